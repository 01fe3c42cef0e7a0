#include "storage/disk_index.h"

#include <sys/statvfs.h>

#include <bit>
#include <cstdarg>
#include <filesystem>
#include <optional>
#include <system_error>

#include "core/byte_codec.h"
#include "core/status_macros.h"
#include "fmt/format.h"
#include "rocksdb/db.h"
#include "rocksdb/env.h"
#include "rocksdb/table.h"
#include "rocksdb/write_batch.h"

namespace epic {
namespace {

rocksdb::Slice AsSlice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }
std::string_view AsView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

std::string Encode(const DiskIndexEntry& entry) {
  ByteWriter writer;
  writer.Put(entry.segment);
  writer.Put(entry.offset);
  writer.Put(entry.block_bytes);
  writer.Put(entry.edition);
  writer.Put(entry.header_checksum);
  writer.Put(std::bit_cast<uint64_t>(entry.recompile_cost_us));
  writer.Put(entry.sequence);
  return std::move(writer).Take();
}

std::optional<DiskIndexEntry> Decode(std::string_view bytes) {
  ByteReader reader(bytes);
  DiskIndexEntry entry;
  entry.segment = reader.Get<uint32_t>();
  entry.offset = reader.Get<uint64_t>();
  entry.block_bytes = reader.Get<uint64_t>();
  entry.edition = reader.Get<uint64_t>();
  entry.header_checksum = reader.Get<uint64_t>();
  entry.recompile_cost_us = std::bit_cast<double>(reader.Get<uint64_t>());
  entry.sequence = reader.Get<uint64_t>();
  if (!reader.ok() || reader.remaining() != 0) return std::nullopt;
  return entry;
}

constexpr size_t kLookWriteBufferBytes = size_t{4} << 20;

// Keeps RocksDB from writing a log file: on a full disk the second line of it ends a process whose RocksDB was built
// with assertions. And a folder that is only looked at stays as it is.
class SilentLogger : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char* /*format*/, va_list /*arguments*/) override {}
};

rocksdb::Options DatabaseOptions(size_t write_buffer_bytes) {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.paranoid_checks = true;
  options.write_buffer_size = write_buffer_bytes;
  options.max_write_buffer_number = 2;
  options.max_total_wal_size = 2 * write_buffer_bytes;
  options.max_bytes_for_level_base = 4 * write_buffer_bytes;
  options.target_file_size_base = write_buffer_bytes;
  // What power loss cut off was not promised; the ranges that the rest names are verified when they are read.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  options.compression = rocksdb::kNoCompression;
  options.max_open_files = 64;
  options.max_background_jobs = 1;
  options.max_manifest_file_size = write_buffer_bytes;
  options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  options.info_log = std::make_shared<SilentLogger>();
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  // Everything is read once, at the start.
  rocksdb::BlockBasedTableOptions table;
  table.no_block_cache = true;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

// Nothing where the files are to blame. RocksDB has one code for all I/O errors; its words tell them apart.
std::optional<absl::Status> SystemFault(const rocksdb::Status& status, const std::string& folder) {
  const std::string words = status.ToString();
  const auto mentions = [&](const char* text) { return words.find(text) != std::string::npos; };
  if (status.IsNoSpace()) {
    return absl::ResourceExhaustedError(fmt::format("the disk of {} is full: {}; free some space", folder, words));
  }
  if (mentions("Permission denied") || mentions("Read-only file system")) {
    return absl::PermissionDeniedError(
        fmt::format("{} cannot be written: {}; choose a directory that this user may write", folder, words));
  }
  if (mentions("Too many open files") || mentions("Cannot allocate memory")) {
    return absl::UnavailableError(fmt::format("the disk tier's index in {} cannot be opened: {}", folder, words));
  }
  return std::nullopt;
}

absl::Status FromWrite(const rocksdb::Status& status, const std::string& folder) {
  if (status.ok()) return absl::OkStatus();
  const std::string message =
      fmt::format("the disk tier's index in {} cannot be written: {}", folder, status.ToString());
  if (status.IsNoSpace()) return absl::ResourceExhaustedError(message + "; free some space");
  return absl::UnavailableError(message);
}

rocksdb::Status OpenDatabase(const std::string& folder, size_t write_buffer_bytes,
                             std::unique_ptr<rocksdb::DB>* database) {
  rocksdb::DB* raw = nullptr;
  rocksdb::Status status = rocksdb::DB::Open(DatabaseOptions(write_buffer_bytes), folder, &raw);
  database->reset(raw);
  return status;
}

}  // namespace

DiskIndex::DiskIndex(std::string folder, size_t write_buffer_bytes, std::unique_ptr<rocksdb::DB> database)
    : folder_(std::move(folder)), write_buffer_bytes_(write_buffer_bytes), database_(std::move(database)) {}

DiskIndex::~DiskIndex() = default;

absl::StatusOr<DiskIndex::Contents> DiskIndex::Open(const std::string& folder, size_t write_buffer_bytes) {
  Contents contents;
  for (const bool last_attempt : {false, true}) {
    std::unique_ptr<rocksdb::DB> database;
    const rocksdb::Status opened = OpenDatabase(folder, write_buffer_bytes, &database);
    std::string damage;
    if (opened.ok()) {
      contents.index.reset(new DiskIndex(folder, write_buffer_bytes, std::move(database)));
      const absl::Status read = contents.index->ReadAll(&contents);
      if (read.ok()) return contents;
      damage = std::string(read.message());
    } else {
      if (const std::optional<absl::Status> fault = SystemFault(opened, folder)) return *fault;
      damage = opened.ToString();
    }
    if (last_attempt) {
      return absl::UnavailableError(
          fmt::format("a new index of the disk tier in {} cannot be made: {}", folder, damage));
    }
    contents = {};
    contents.damage = damage;
    std::error_code error;
    std::filesystem::remove_all(folder, error);
    if (error) {
      return absl::UnavailableError(
          fmt::format("the damaged index of the disk tier in {} cannot be removed: {}", folder, error.message()));
    }
  }
  return contents;
}

absl::Status DiskIndex::ReadAll(rocksdb::DB& database, Contents* contents, rocksdb::WriteBatch* unreadable) {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  const std::unique_ptr<rocksdb::Iterator> iterator(database.NewIterator(options));
  for (iterator->SeekToFirst(); iterator->Valid(); iterator->Next()) {
    const absl::StatusOr<ChunkKey> key = ChunkKey::FromBytes(AsView(iterator->key()));
    const std::optional<DiskIndexEntry> entry = Decode(AsView(iterator->value()));
    if (key.ok() && entry) {
      contents->entries.emplace_back(*key, *entry);
    } else {
      unreadable->Delete(iterator->key());
      ++contents->unreadable_entries;
    }
  }
  return iterator->status().ok() ? absl::OkStatus() : absl::DataLossError(iterator->status().ToString());
}

absl::Status DiskIndex::ReadAll(Contents* contents) {
  rocksdb::WriteBatch unreadable;
  EPIC_RETURN_IF_ERROR(ReadAll(*database_, contents, &unreadable));
  if (unreadable.Count() == 0) return absl::OkStatus();
  return Write(unreadable);
}

DiskIndex::Contents DiskIndex::Look(const std::string& folder) {
  Contents contents;
  rocksdb::Options options = DatabaseOptions(kLookWriteBufferBytes);
  options.create_if_missing = false;
  rocksdb::DB* raw = nullptr;
  const rocksdb::Status opened = rocksdb::DB::OpenForReadOnly(options, folder, &raw);
  const std::unique_ptr<rocksdb::DB> database(raw);
  if (!opened.ok()) {
    contents.damage = opened.ToString();
    return contents;
  }
  rocksdb::WriteBatch unreadable;
  if (const absl::Status read = ReadAll(*database, &contents, &unreadable); !read.ok()) {
    contents.damage = std::string(read.message());
  }
  return contents;
}

absl::Status DiskIndex::Write(rocksdb::WriteBatch& batch) {
  struct statvfs attributes = {};
  if (statvfs(folder_.c_str(), &attributes) == 0) {
    const size_t free_bytes = static_cast<size_t>(attributes.f_bavail) * attributes.f_frsize;
    if (free_bytes < FreeBytesMin(write_buffer_bytes_)) {
      return absl::ResourceExhaustedError(
          fmt::format("the disk of {} has {} free bytes, the disk tier's index needs {}; free some space", folder_,
                      free_bytes, FreeBytesMin(write_buffer_bytes_)));
    }
  }
  EPIC_RETURN_IF_ERROR(Enter());
  const rocksdb::Status status = database_->Write(rocksdb::WriteOptions(), &batch);
  Leave(status.ok());
  return FromWrite(status, folder_);
}

absl::Status DiskIndex::Enter() {
  const MutexLock lock(mutex_);
  while (reopening_) changed_.Wait(mutex_);
  if (failed_) {
    reopening_ = true;
    while (writers_ > 0) changed_.Wait(mutex_);
    mutex_.Unlock();
    database_.reset();
    const rocksdb::Status status = OpenDatabase(folder_, write_buffer_bytes_, &database_);
    mutex_.Lock();
    failed_ = !status.ok();
    reopening_ = false;
    changed_.NotifyAll();
    if (failed_) return FromWrite(status, folder_);
  }
  ++writers_;
  return absl::OkStatus();
}

void DiskIndex::Leave(bool written) {
  const MutexLock lock(mutex_);
  --writers_;
  failed_ = failed_ || !written;
  changed_.NotifyAll();
}

absl::Status DiskIndex::Put(const ChunkKey& key, const DiskIndexEntry& entry) {
  rocksdb::WriteBatch batch;
  batch.Put(AsSlice(key.AsBytes()), AsSlice(Encode(entry)));
  return Write(batch);
}

absl::Status DiskIndex::Erase(std::span<const ChunkKey> keys) {
  if (keys.empty()) return absl::OkStatus();
  rocksdb::WriteBatch batch;
  for (const ChunkKey& key : keys) batch.Delete(AsSlice(key.AsBytes()));
  return Write(batch);
}

absl::StatusOr<std::pair<uint64_t, uint64_t>> DiskIndex::Compact() {
  const auto table_bytes = [this] {
    uint64_t bytes = 0;
    database_->GetIntProperty(rocksdb::DB::Properties::kTotalSstFilesSize, &bytes);
    return bytes;
  };
  EPIC_RETURN_IF_ERROR(Enter());
  // What is in memory yet takes room afterwards, and so it counts before.
  if (const rocksdb::Status flushed = database_->Flush(rocksdb::FlushOptions()); !flushed.ok()) {
    Leave(false);
    return FromWrite(flushed, folder_);
  }
  const uint64_t before = table_bytes();
  rocksdb::CompactRangeOptions options;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  const rocksdb::Status status = database_->CompactRange(options, nullptr, nullptr);
  const uint64_t after = table_bytes();
  Leave(status.ok());
  EPIC_RETURN_IF_ERROR(FromWrite(status, folder_));
  return std::pair{before, after};
}

}  // namespace epic
