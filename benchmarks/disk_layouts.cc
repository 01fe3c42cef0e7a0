#include "benchmarks/disk_layouts.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <list>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "core/eviction_policy.h"
#include "fmt/format.h"
#include "rocksdb/db.h"
#include "rocksdb/filter_policy.h"
#include "rocksdb/statistics.h"
#include "rocksdb/table.h"
#include "storage/disk_tier.h"

namespace epic {
namespace {

constexpr size_t kWriteBufferBytes = size_t{64} << 20;
constexpr size_t kFileBytes = size_t{256} << 20;

[[noreturn]] void Fail(const std::string& what) {
  std::cerr << "error: " << what << "\n";
  std::exit(1);
}
void Check(bool good, const std::string& what) {
  if (!good) Fail(fmt::format("{}: {}", what, std::strerror(errno)));
}

// One preallocated file, values one behind the other.
class PlainFile final : public DiskLayout {
 public:
  PlainFile(const std::string& folder, size_t values, size_t value_bytes, bool direct_io)
      : stride_(DiskPaddedBytes(value_bytes)),
        file_(open((folder + "/plain").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | (direct_io ? O_DIRECT : 0), 0640)) {
    Check(file_ >= 0, "cannot open a plain file");
    Check(posix_fallocate(file_, 0, static_cast<off_t>(values * stride_)) == 0, "cannot reserve space");
  }
  ~PlainFile() override { close(file_); }
  // The memory of a value goes on to the next multiple of 4096.
  void Put(const KvBlockView& block, size_t number) override {
    const size_t bytes = DiskPaddedBytes(block.bytes().size());
    Check(
        pwrite(file_, block.bytes().data(), bytes, static_cast<off_t>(number * stride_)) == static_cast<ssize_t>(bytes),
        "cannot write");
  }
  void Replace(const KvBlockView& block, size_t number) override { Put(block, number); }
  bool Get(const KvBlockView& /*block*/, size_t number, std::span<std::byte> out) override {
    Check(
        pread(file_, out.data(), out.size(), static_cast<off_t>(number * stride_)) == static_cast<ssize_t>(out.size()),
        "cannot read");
    return true;
  }
  void Finish() override {
    Check(fdatasync(file_) == 0, "cannot sync");
    Check(posix_fadvise(file_, 0, 0, POSIX_FADV_DONTNEED) == 0, "cannot drop the cache");
  }

 private:
  const size_t stride_;
  const int file_;
};

class RocksDbLayout final : public DiskLayout {
 public:
  RocksDbLayout(const std::string& folder, rocksdb::Options options, bool deletes) : deletes_(deletes) {
    options.create_if_missing = true;
    options.compression = rocksdb::kNoCompression;
    options.use_direct_reads = true;
    options.use_direct_io_for_flush_and_compaction = true;
    options.write_buffer_size = kWriteBufferBytes;
    options.max_background_jobs = 2;
    options.statistics = rocksdb::CreateDBStatistics();
    statistics_ = options.statistics;
    rocksdb::DB* database = nullptr;
    const rocksdb::Status status = rocksdb::DB::Open(options, folder, &database);
    if (!status.ok()) Fail(status.ToString());
    database_.reset(database);
  }
  void Put(const KvBlockView& block, size_t /*number*/) override {
    const rocksdb::Slice value(reinterpret_cast<const char*>(block.bytes().data()), block.bytes().size());
    const rocksdb::Status status = database_->Put(WriteOptions(), Key(block), value);
    if (!status.ok()) Fail(status.ToString());
  }
  void Replace(const KvBlockView& block, size_t number) override {
    if (deletes_) database_->Delete(WriteOptions(), Key(block)).PermitUncheckedError();
    Put(block, number);
  }
  bool Get(const KvBlockView& block, size_t /*number*/, std::span<std::byte> out) override {
    rocksdb::ReadOptions options;
    options.verify_checksums = false;  // the block's own are verified
    rocksdb::PinnableSlice value;
    const rocksdb::Status status = database_->Get(options, database_->DefaultColumnFamily(), Key(block), &value);
    if (status.IsNotFound()) return false;
    if (!status.ok()) Fail(status.ToString());
    std::memcpy(out.data(), value.data(), value.size());
    return true;
  }
  void Finish() override {
    const rocksdb::Status status = database_->Flush(rocksdb::FlushOptions());
    if (!status.ok()) Fail(status.ToString());
    // A pause waits for what is scheduled; what it leads to is scheduled when the pause ends.
    for (uint64_t before = UINT64_MAX; before != written_bytes();) {
      before = written_bytes();
      database_->PauseBackgroundWork().PermitUncheckedError();
      database_->ContinueBackgroundWork().PermitUncheckedError();
    }
  }
  uint64_t written_bytes() const override {
    return statistics_->getTickerCount(rocksdb::FLUSH_WRITE_BYTES) +
           statistics_->getTickerCount(rocksdb::COMPACT_WRITE_BYTES) +
           statistics_->getTickerCount(rocksdb::BLOB_DB_BLOB_FILE_BYTES_WRITTEN);
  }

 private:
  static rocksdb::Slice Key(const KvBlockView& block) {
    return {reinterpret_cast<const char*>(block.info().key.bytes.data()), block.info().key.bytes.size()};
  }
  static rocksdb::WriteOptions WriteOptions() {
    rocksdb::WriteOptions options;
    options.disableWAL = true;
    return options;
  }
  const bool deletes_;
  std::shared_ptr<rocksdb::Statistics> statistics_;
  std::unique_ptr<rocksdb::DB> database_;
};

rocksdb::Options BlobOptions() {
  rocksdb::Options options;
  options.enable_blob_files = true;
  options.min_blob_size = 4096;
  options.blob_file_size = kFileBytes;
  options.enable_blob_garbage_collection = true;
  options.blob_garbage_collection_age_cutoff = 0.5;
  options.blob_garbage_collection_force_threshold = 0.5;
  return options;
}

rocksdb::Options TableOptions() {
  rocksdb::Options options;
  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::kXXH3;
  table.block_size = size_t{1} << 20;
  table.no_block_cache = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

rocksdb::Options UniversalOptions() {
  rocksdb::Options options = TableOptions();
  options.compaction_style = rocksdb::kCompactionStyleUniversal;
  return options;
}

rocksdb::Options FifoOptions(size_t bytes) {
  rocksdb::Options options = TableOptions();
  options.compaction_style = rocksdb::kCompactionStyleFIFO;
  options.compaction_options_fifo.max_table_files_size = bytes;
  return options;
}

// First in, first out.
class OldestFirst final : public EvictionPolicy {
 public:
  std::string_view name() const override { return "oldest-first"; }
  void OnInsert(const Block& block) override { places_[block.key] = order_.insert(order_.end(), block.key); }
  void OnAccess(const ChunkKey& /*key*/) override {}
  void OnMiss(const ChunkKey& /*key*/) override {}
  void SetCost(const ChunkKey& /*key*/, double /*cost_us*/) override {}
  void OnEvict(const ChunkKey& key) override { OnRemove(key); }
  void OnRemove(const ChunkKey& key) override {
    const auto place = places_.find(key);
    order_.erase(place->second);
    places_.erase(place);
  }
  void VisitVictims(const std::function<bool(const ChunkKey&)>& visit) override {
    for (const ChunkKey& key : order_) {
      if (visit(key)) return;
    }
  }
  bool Admits(const Block& /*candidate*/) override { return true; }

 private:
  std::list<ChunkKey> order_;
  absl::flat_hash_map<ChunkKey, std::list<ChunkKey>::iterator> places_;
};

class SegmentFiles final : public DiskLayout {
 public:
  SegmentFiles(const std::string& folder, size_t values, size_t value_bytes) {
    // With the index's share, and what the ends of segments leave over.
    const size_t capacity_bytes = values * DiskPaddedBytes(value_bytes) * 5 / 4 + (size_t{32} << 20);
    auto tier = DiskTier::Open({.folder = folder, .capacity_bytes = capacity_bytes}, std::make_unique<OldestFirst>());
    if (!tier.ok()) Fail(std::string(tier.status().message()));
    tier_ = *std::move(tier);
  }
  void Put(const KvBlockView& block, size_t /*number*/) override {
    const absl::StatusOr<bool> written = tier_->Write(block, 1);
    if (!written.ok() || !*written) Fail(std::string(written.status().message()));
  }
  void Replace(const KvBlockView& block, size_t number) override {
    tier_->Drop(block.info().key);
    Put(block, number);
  }
  bool Get(const KvBlockView& block, size_t /*number*/, std::span<std::byte> out) override {
    return tier_->Read(block.info().key, out).ok();
  }
  void Finish() override {}
  uint64_t written_bytes() const override { return tier_->Stats().written_bytes_total; }

 private:
  std::unique_ptr<DiskTier> tier_;
};

}  // namespace

std::vector<DiskLayoutKind> DiskLayoutKinds() {
  const auto rocks = [](auto options, bool deletes) {
    return [=](const std::string& folder, size_t values, size_t value_bytes) -> std::unique_ptr<DiskLayout> {
      return std::make_unique<RocksDbLayout>(folder, options(values * value_bytes), deletes);
    };
  };
  const auto plain = [](bool direct_io) {
    return [=](const std::string& folder, size_t values, size_t value_bytes) -> std::unique_ptr<DiskLayout> {
      return std::make_unique<PlainFile>(folder, values, value_bytes, direct_io);
    };
  };
  return {
      {"plain file, direct", plain(true), false},
      {"plain file, buffered", plain(false), false},
      {"BlobDB", rocks([](size_t) { return BlobOptions(); }, true), true},
      {"tables, universal", rocks([](size_t) { return UniversalOptions(); }, true), true},
      {"tables, FIFO", rocks([](size_t bytes) { return FifoOptions(bytes + bytes / 8); }, false), true},
      {"segment files",
       [](const std::string& folder, size_t values, size_t value_bytes) -> std::unique_ptr<DiskLayout> {
         return std::make_unique<SegmentFiles>(folder, values, value_bytes);
       },
       false},
  };
}

}  // namespace epic
