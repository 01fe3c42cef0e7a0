#include "storage/manifest_pair.h"

#include <utility>

#include "core/status_macros.h"
#include "fmt/format.h"
#include "rocksdb/write_batch.h"
#include "storage/manifest_database.h"
#include "storage/manifest_keys.h"
#include "storage/manifest_space.h"
#include "storage/rocksdb_status.h"
#include "storage/sequence_file.h"

namespace epic {
namespace {

// For what RocksDB writes beside the tables.
constexpr uint64_t kCompactReserveBytes = uint64_t{1} << 20;

absl::Status WriteSynced(const ManifestPair::Side& side, rocksdb::WriteBatch& batch) {
  rocksdb::WriteOptions options;
  options.sync = true;
  return FromRocksDb(side.database->Write(options, &batch), side.folder);
}

// RocksDB writes everything anew before it lets go of the old tables. Where it finds the disk full on the way, it takes
// no changes any more before the database is opened anew.
absl::Status CheckRoomToCompact(rocksdb::DB& database, const std::string& folder) {
  uint64_t table_bytes = 0;
  uint64_t memory_bytes = 0;
  database.GetIntProperty(rocksdb::DB::Properties::kTotalSstFilesSize, &table_bytes);
  database.GetIntProperty(rocksdb::DB::Properties::kCurSizeAllMemTables, &memory_bytes);
  const uint64_t needed_bytes = table_bytes + memory_bytes + kCompactReserveBytes;
  EPIC_ASSIGN_OR_RETURN(const uint64_t free_bytes, FreeBytes(folder));
  if (free_bytes >= needed_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      fmt::format("the disk of {} has {} bytes free, compacting needs {} for a while: nothing was changed; free some "
                  "space",
                  folder, free_bytes, needed_bytes));
}

// Whether the other copy may know better.
bool IsUnreadable(const rocksdb::Status& status) { return status.IsCorruption() || status.IsIOError(); }

// Keys hold names and zero bytes.
std::string Printable(std::string_view key) {
  std::string text;
  for (const char byte : key) text.push_back(byte >= 0x20 && byte < 0x7f ? byte : '.');
  return text;
}

}  // namespace

absl::Status ManifestChange::Forget(const std::string& key) {
  const absl::StatusOr<std::string> old = pair_->Get(key);
  if (absl::IsNotFound(old.status())) return absl::OkStatus();
  EPIC_RETURN_IF_ERROR(old.status());
  --record_count_;
  digest_ -= ManifestRecordDigest(key, *old);
  return absl::OkStatus();
}

absl::Status ManifestChange::Put(std::string key, std::string value) {
  EPIC_RETURN_IF_ERROR(Forget(key));
  ++record_count_;
  digest_ += ManifestRecordDigest(key, value);
  bytes_ += key.size() + value.size();
  edits_.push_back({std::move(key), std::move(value), false});
  return absl::OkStatus();
}

absl::Status ManifestChange::Delete(std::string key) {
  EPIC_RETURN_IF_ERROR(Forget(key));
  bytes_ += key.size();
  edits_.push_back({std::move(key), {}, true});
  return absl::OkStatus();
}

ManifestPair::ManifestPair(Side primary, Side copy, const ManifestState& state,
                           std::function<void(const std::string&)> warn)
    : primary_(std::move(primary)), copy_(std::move(copy)), warn_(std::move(warn)), state_(state) {}

ManifestPair::~ManifestPair() {
  // From here on even a log that is cut short is noticed. As after a flush, failing does no harm.
  for (const Side* side : {&primary_, &copy_}) {
    const uint64_t sequence = side->database->GetLatestSequenceNumber();
    if (side->database->Close().ok()) WriteSequenceFile(side->folder, sequence).IgnoreError();
  }
}

absl::Status ManifestPair::Stopped(const absl::Status& cause) const {
  return absl::Status(cause.code(),
                      fmt::format("the manifest in {} takes no changes since one failed ({}); what was acknowledged is "
                                  "safe: mend the cause and restart the node",
                                  primary_.folder, std::string(cause.message())));
}

absl::Status ManifestPair::CheckWritable() const {
  const MutexLock lock(mutex_);
  return stopped_;
}

absl::Status ManifestPair::Commit(const ManifestChange& change) {
  Waiting self;
  self.change = &change;
  {
    const MutexLock lock(mutex_);
    if (!stopped_.ok()) return stopped_;
    if (waiting_.size() >= kManifestWaitingChangesMax) {
      return absl::ResourceExhaustedError(
          fmt::format("{} changes of the manifest in {} wait for its disk already; try again later", waiting_.size(),
                      primary_.folder));
    }
    waiting_.push_back(&self);
  }
  while (true) {
    std::vector<Waiting*> group;
    ManifestState state;
    {
      const MutexLock lock(mutex_);
      while (writing_ && !self.done) group_done_.Wait(mutex_);
      if (self.done) return self.status;
      writing_ = true;
      state = state_;
      size_t bytes = 0;
      while (!waiting_.empty() &&
             (group.empty() || bytes + waiting_.front()->change->bytes_ <= kManifestGroupBytesMax)) {
        const ManifestChange& next = *waiting_.front()->change;
        bytes += next.bytes_;
        state.record_count += next.record_count_;
        state.digest += next.digest_;
        group.push_back(waiting_.front());
        waiting_.pop_front();
      }
    }
    const absl::Status status = WriteGroup(group, state);
    {
      const MutexLock lock(mutex_);
      writing_ = false;
      if (status.ok()) {
        state_ = state;
        ++counters_.groups_total;
        counters_.changes_total += static_cast<int64_t>(group.size());
      } else {
        stopped_ = Stopped(status);
        group.insert(group.end(), waiting_.begin(), waiting_.end());
        waiting_.clear();
      }
      for (Waiting* member : group) {
        member->status = status.ok() ? absl::OkStatus() : stopped_;
        member->done = true;
      }
    }
    group_done_.NotifyAll();
    if (!status.ok()) warn_(std::string(Stopped(status).message()));
  }
}

absl::Status ManifestPair::WriteGroup(const std::vector<Waiting*>& group, const ManifestState& state) {
  rocksdb::WriteBatch batch;
  for (const Waiting* member : group) {
    for (const ManifestChange::Edit& edit : member->change->edits_) {
      if (edit.is_delete) {
        batch.Delete(AsSlice(edit.key));
      } else {
        batch.Put(AsSlice(edit.key), AsSlice(edit.value));
      }
    }
  }
  batch.Put(AsSlice(ManifestKey(ManifestKeyKind::kState, {})), AsSlice(EncodeManifestState(state)));
  EPIC_RETURN_IF_ERROR(WriteSynced(primary_, batch));
  EPIC_RETURN_IF_ERROR(WriteSynced(copy_, batch));
  const uint64_t sequence = primary_.database->GetLatestSequenceNumber();
  const uint64_t copy_sequence = copy_.database->GetLatestSequenceNumber();
  if (sequence == copy_sequence) return absl::OkStatus();
  return absl::InternalError(fmt::format("{} is at change {}, its copy {} at change {}", primary_.folder, sequence,
                                         copy_.folder, copy_sequence));
}

absl::Status ManifestPair::BeginEpoch(const ManifestChange& change) {
  {
    const MutexLock lock(mutex_);
    state_.epoch += 1;
    state_.epoch_base_sequence = primary_.database->GetLatestSequenceNumber();
  }
  EPIC_RETURN_IF_ERROR(Commit(change));
  for (const Side* side : {&primary_, &copy_}) {
    EPIC_RETURN_IF_ERROR(WriteSequenceFile(side->folder, side->database->GetLatestSequenceNumber()));
  }
  return absl::OkStatus();
}

void ManifestPair::NoteUnreadable(const absl::Status& status, std::string_view key) const {
  ++reads_from_copy_total_;
  warn_(fmt::format("record {} was read from the copy in {}; the next start repairs what is damaged: {}",
                    Printable(key), copy_.folder, std::string(status.message())));
}

absl::StatusOr<std::string> ManifestPair::Get(std::string_view key) const {
  std::string value;
  const Side* side = &primary_;
  rocksdb::Status status = side->database->Get(rocksdb::ReadOptions(), AsSlice(key), &value);
  if (IsUnreadable(status)) {
    NoteUnreadable(FromRocksDb(status, side->folder), key);
    side = &copy_;
    status = side->database->Get(rocksdb::ReadOptions(), AsSlice(key), &value);
  }
  if (status.IsNotFound()) return absl::NotFoundError("no such record");
  EPIC_RETURN_IF_ERROR(FromRocksDb(status, side->folder));
  return value;
}

absl::Status ManifestPair::Scan(
    std::string_view prefix, std::string_view start,
    const std::function<absl::StatusOr<bool>(std::string_view, std::string_view)>& visit) const {
  std::string next(start);  // the first key that was not visited yet
  for (const Side* side : {&primary_, &copy_}) {
    const std::unique_ptr<rocksdb::Iterator> iterator(side->database->NewIterator(rocksdb::ReadOptions()));
    for (iterator->Seek(AsSlice(next)); iterator->Valid() && iterator->key().starts_with(AsSlice(prefix));
         iterator->Next()) {
      EPIC_ASSIGN_OR_RETURN(const bool more, visit(AsView(iterator->key()), AsView(iterator->value())));
      if (!more) return absl::OkStatus();
      next.assign(iterator->key().data(), iterator->key().size());
      next.push_back('\0');
    }
    const rocksdb::Status status = iterator->status();
    if (side == &copy_ || !IsUnreadable(status)) return FromRocksDb(status, side->folder);
    NoteUnreadable(FromRocksDb(status, side->folder), next);
  }
  return absl::OkStatus();
}

ManifestCounters ManifestPair::counters() const {
  const MutexLock lock(mutex_);
  ManifestCounters counters = counters_;
  counters.reads_from_copy_total = reads_from_copy_total_;
  return counters;
}

absl::StatusOr<std::pair<uint64_t, uint64_t>> ManifestPair::Compact() {
  std::pair<uint64_t, uint64_t> bytes{0, 0};
  for (const Side* side : {&primary_, &copy_}) {
    EPIC_RETURN_IF_ERROR(CheckRoomToCompact(*side->database, side->folder));
    // What is in memory yet takes room afterwards, and so it counts before.
    EPIC_RETURN_IF_ERROR(FromRocksDb(side->database->Flush(rocksdb::FlushOptions()), side->folder));
    uint64_t table_bytes = 0;
    side->database->GetIntProperty(rocksdb::DB::Properties::kTotalSstFilesSize, &table_bytes);
    bytes.first += table_bytes;
    rocksdb::CompactRangeOptions options;
    options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
    EPIC_RETURN_IF_ERROR(FromRocksDb(side->database->CompactRange(options, nullptr, nullptr), side->folder));
    side->database->GetIntProperty(rocksdb::DB::Properties::kTotalSstFilesSize, &table_bytes);
    bytes.second += table_bytes;
  }
  return bytes;
}

}  // namespace epic
