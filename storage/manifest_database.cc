#include "storage/manifest_database.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <system_error>
#include <utility>

#include "core/byte_codec.h"
#include "core/status_macros.h"
#include "core/sync.h"
#include "fmt/format.h"
#include "rocksdb/listener.h"
#include "rocksdb/sst_file_reader.h"
#include "storage/manifest_keys.h"
#include "storage/rocksdb_status.h"
#include "storage/sequence_file.h"

namespace epic {
namespace {

namespace fs = std::filesystem;
using Condition = ManifestCopyView::Condition;

// Small, so that a restart replays little: a few of the largest documents.
constexpr size_t kWriteBufferBytes = size_t{16} << 20;
constexpr uint64_t kWriteAheadLogBytesMax = uint64_t{32} << 20;
constexpr size_t kComplaintBytesMax = 1024;

rocksdb::Env* OrDefault(rocksdb::Env* env) { return env == nullptr ? rocksdb::Env::Default() : env; }

// Notes each flush in the sequence file. That write may fail without harm: the older number stays true, and the guard
// only reaches less far.
class FlushListener : public rocksdb::EventListener {
 public:
  explicit FlushListener(std::string folder) : folder_(std::move(folder)) {}
  void OnFlushCompleted(rocksdb::DB* /*db*/, const rocksdb::FlushJobInfo& info) override {
    WriteSequenceFile(folder_, info.largest_seqno).IgnoreError();
  }

 private:
  const std::string folder_;
};

// Keeps what RocksDB logs as a warning or worse: its statuses often leave out which file is meant. Thread-safe.
class ComplaintLogger : public rocksdb::Logger {
 public:
  ComplaintLogger() : rocksdb::Logger(rocksdb::InfoLogLevel::WARN_LEVEL) {}
  using rocksdb::Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    char line[kComplaintBytesMax];
    const int length = std::vsnprintf(line, sizeof(line), format, arguments);
    if (length <= 0) return;
    const MutexLock lock(mutex_);
    if (complaints_.size() >= kComplaintBytesMax) return;
    if (!complaints_.empty()) complaints_ += "; ";
    complaints_.append(line, std::min(static_cast<size_t>(length), sizeof(line) - 1));
  }
  std::string complaints() const {
    const MutexLock lock(mutex_);
    return complaints_;
  }

 private:
  mutable Mutex mutex_;  // protects the text
  std::string complaints_ EPIC_GUARDED_BY(mutex_);
};

rocksdb::Options DatabaseOptions(rocksdb::Env* env) {
  rocksdb::Options options;
  options.env = OrDefault(env);
  options.create_if_missing = true;
  options.paranoid_checks = true;
  options.write_buffer_size = kWriteBufferBytes;
  options.max_total_wal_size = kWriteAheadLogBytesMax;
  // A write that was cut off by a crash was not acknowledged and may go; damage anywhere else stops the opening. The
  // default would drop everything behind the damage in silence.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.track_and_verify_wals_in_manifest = true;
  options.verify_sst_unique_id_in_manifest = true;
  options.max_open_files = 64;
  options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  options.max_log_file_size = size_t{1} << 20;
  options.keep_log_file_num = 2;
  return options;
}

// The files that say what belongs to the database and what came last, for a message.
std::string HistoryFiles(const std::string& folder) {
  std::string log;
  std::string manifest;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string path = entry.path().string();
    if (entry.path().extension() == ".log") log = std::max(log, path);
    if (entry.path().filename().string().starts_with("MANIFEST-")) manifest = std::max(manifest, path);
  }
  if (log.empty()) return fmt::format("a file {}/*.log, of which there is none, or {}", folder, manifest);
  return fmt::format("{} or {}", log, manifest);
}

// Whether a folder without CURRENT had a database in it.
bool HasHistory(const std::string& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".sst") || name.starts_with("MANIFEST-") || name == kSequenceFileName) return true;
  }
  return false;
}

// CURRENT names the MANIFEST file that counts. RocksDB's own errors leave open which of the two is at fault.
absl::Status CheckCurrent(const std::string& folder) {
  const std::string path = folder + "/CURRENT";
  std::ifstream file(path, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), {}};
  std::error_code error;
  const bool is_name = content.starts_with("MANIFEST-") && content.find('/') == std::string::npos &&
                       content.find('\n') == content.size() - 1;
  const std::string name = is_name ? content.substr(0, content.size() - 1) : "";
  if (is_name && fs::exists(fmt::format("{}/{}", folder, name), error)) return absl::OkStatus();
  return absl::DataLossError(fmt::format("the manifest in {} is damaged: {}", folder,
                                         is_name ? fmt::format("{} names {}/{}, which is not there", path, folder, name)
                                                 : fmt::format("{} does not hold the name of a file", path)));
}

// The tables that cannot be read, for a message: RocksDB often blames the file that refers to them.
std::string UnreadableTables(const std::string& folder, rocksdb::Env* env) {
  std::string tables;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() != ".sst") continue;
    rocksdb::Options options;
    options.env = OrDefault(env);
    rocksdb::SstFileReader reader(options);
    rocksdb::Status status = reader.Open(entry.path().string());
    if (status.ok()) status = reader.VerifyChecksum();
    if (!status.ok()) tables += fmt::format("; {} cannot be read: {}", entry.path().string(), status.ToString());
  }
  return tables;
}

// One look at one folder.
class Inspection {
 public:
  Inspection(const std::string& folder, rocksdb::Env* env) : env_(env) { view_.folder = folder; }

  absl::StatusOr<ManifestCopyView> Run(const RecordVisitor& visit) {
    const absl::Status status = Look(visit);
    if (status.ok()) return view_;
    if (absl::IsPermissionDenied(status)) return status;
    view_.condition = Condition::kDamaged;
    view_.reason = fmt::format("{}{}", std::string(status.message()), UnreadableTables(view_.folder, env_));
    return view_;
  }

 private:
  absl::Status Look(const RecordVisitor& visit);
  absl::Status ReadVersion(rocksdb::DB& database);
  absl::Status ReadRecords(rocksdb::DB& database, const RecordVisitor& visit);
  absl::Status Damaged(const std::string& what) const {
    return absl::DataLossError(fmt::format("the manifest in {} is damaged: {}", view_.folder, what));
  }

  rocksdb::Env* const env_;
  ManifestCopyView view_;
};

absl::Status Inspection::Look(const RecordVisitor& visit) {
  const std::string& folder = view_.folder;
  EPIC_ASSIGN_OR_RETURN(const std::optional<uint64_t> durable_sequence, ReadSequenceFile(folder));
  std::error_code error;
  if (!fs::exists(folder + "/CURRENT", error)) {
    return HasHistory(folder) ? Damaged(fmt::format("the file {}/CURRENT is gone", folder)) : absl::OkStatus();
  }
  EPIC_RETURN_IF_ERROR(CheckCurrent(folder));
  std::string complaints;
  absl::StatusOr<std::unique_ptr<rocksdb::DB>> database = OpenForReading(folder, env_, &complaints);
  if (!database.ok()) {
    if (complaints.empty()) return database.status();
    return absl::Status(database.status().code(),
                        fmt::format("{} ({})", std::string(database.status().message()), complaints));
  }
  view_.sequence = (*database)->GetLatestSequenceNumber();
  if (view_.sequence < durable_sequence.value_or(0)) {
    return Damaged(
        fmt::format("it ends at change {}, but change {} had been stored: {} was cut short or is an old copy",
                    view_.sequence, *durable_sequence, HistoryFiles(folder)));
  }
  EPIC_RETURN_IF_ERROR(ReadVersion(**database));
  if (view_.condition != Condition::kSound) return absl::OkStatus();
  return ReadRecords(**database, visit);
}

// Leaves kAbsent where the database is so new that nothing was written yet.
absl::Status Inspection::ReadVersion(rocksdb::DB& database) {
  std::string value;
  const rocksdb::Status status =
      database.Get(rocksdb::ReadOptions(), AsSlice(ManifestKey(ManifestKeyKind::kFormatVersion, {})), &value);
  if (status.IsNotFound()) {
    const std::unique_ptr<rocksdb::Iterator> iterator(database.NewIterator(rocksdb::ReadOptions()));
    iterator->SeekToFirst();
    return iterator->Valid() ? Damaged(fmt::format("it has no format version ({})", HistoryFiles(view_.folder)))
                             : FromRocksDb(iterator->status(), view_.folder);
  }
  EPIC_RETURN_IF_ERROR(FromRocksDb(status, view_.folder));
  ByteReader reader(value);
  view_.version = reader.Get<uint32_t>();
  if (!reader.ok() || reader.remaining() != 0 || view_.version == 0) {
    return Damaged(fmt::format("its format version cannot be read ({})", HistoryFiles(view_.folder)));
  }
  view_.condition = view_.version > kManifestFormatVersion ? Condition::kNewer : Condition::kSound;
  return absl::OkStatus();
}

absl::Status Inspection::ReadRecords(rocksdb::DB& database, const RecordVisitor& visit) {
  const std::string state_key = ManifestKey(ManifestKeyKind::kState, {});
  bool has_state = false;
  ManifestState seen;
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  const std::unique_ptr<rocksdb::Iterator> iterator(database.NewIterator(options));
  for (iterator->SeekToFirst(); iterator->Valid(); iterator->Next()) {
    const std::string_view key = AsView(iterator->key());
    const std::string_view value = AsView(iterator->value());
    if (visit) visit(key, value);
    if (key == state_key) {
      EPIC_ASSIGN_OR_RETURN(view_.state, DecodeManifestState(value));
      has_state = true;
      continue;
    }
    ++seen.record_count;
    seen.digest += ManifestRecordDigest(key, value);
    if (key.front() == static_cast<char>(ManifestKeyKind::kIndex)) ++view_.document_count;
  }
  EPIC_RETURN_IF_ERROR(FromRocksDb(iterator->status(), view_.folder));
  if (view_.version < 2) return absl::OkStatus();
  if (has_state && seen.record_count == view_.state.record_count && seen.digest == view_.state.digest) {
    return absl::OkStatus();
  }
  return Damaged(
      fmt::format("it holds {} records where {} were written, or other ones: {} was cut short or a file is "
                  "an old copy",
                  seen.record_count, view_.state.record_count, HistoryFiles(view_.folder)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<FolderLock>> FolderLock::Take(const std::string& folder, rocksdb::Env* env) {
  rocksdb::FileLock* lock = nullptr;
  const rocksdb::Status status = OrDefault(env)->LockFile(folder + "/LOCK", &lock);
  if (!status.ok()) return FromRocksDbOpen(status, folder);
  return std::unique_ptr<FolderLock>(new FolderLock(OrDefault(env), lock));
}

absl::StatusOr<std::unique_ptr<FolderLock>> FolderLock::TakeIfThere(const std::string& folder, rocksdb::Env* env) {
  std::error_code error;
  if (!fs::exists(folder + "/LOCK", error)) return nullptr;
  return Take(folder, env);
}

FolderLock::~FolderLock() { env_->UnlockFile(lock_).PermitUncheckedError(); }

namespace {

// Puts the names of a folder and of those above it on stable storage: whoever made them, this process or another, may
// not have. A folder above that cannot be opened was not made by this user.
void SyncNamesAbove(const fs::path& folder) {
  for (fs::path above = folder.parent_path(); !above.empty(); above = above.parent_path()) {
    const int descriptor = open(above.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor >= 0) {
      static_cast<void>(fsync(descriptor));
      close(descriptor);
    }
    if (above == above.root_path()) return;
  }
}

}  // namespace

absl::Status PrepareFolder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (!error) SyncNamesAbove(fs::absolute(folder));
  if (!error && access(folder.c_str(), R_OK | W_OK | X_OK) != 0) error = {errno, std::generic_category()};
  if (!error) return absl::OkStatus();
  const std::string message = fmt::format("data directory {} cannot be written: {}", folder, error.message());
  if (error == std::errc::no_space_on_device) return absl::ResourceExhaustedError(message);
  return absl::PermissionDeniedError(message + "; choose a directory that this user may write");
}

absl::StatusOr<std::unique_ptr<rocksdb::DB>> OpenForWriting(const std::string& folder, rocksdb::Env* env) {
  rocksdb::Options options = DatabaseOptions(env);
  options.listeners.push_back(std::make_shared<FlushListener>(folder));
  rocksdb::DB* database = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, folder, &database);
  if (!status.ok()) return FromRocksDbOpen(status, folder);
  return std::unique_ptr<rocksdb::DB>(database);
}

absl::StatusOr<std::unique_ptr<rocksdb::DB>> OpenForReading(const std::string& folder, rocksdb::Env* env,
                                                            std::string* complaints) {
  rocksdb::Options options = DatabaseOptions(env);
  const auto logger = std::make_shared<ComplaintLogger>();
  options.info_log = logger;
  rocksdb::DB* database = nullptr;
  const rocksdb::Status status = rocksdb::DB::OpenForReadOnly(options, folder, &database);
  *complaints = logger->complaints();
  if (!status.ok()) return FromRocksDbOpen(status, folder);
  return std::unique_ptr<rocksdb::DB>(database);
}

absl::StatusOr<ManifestCopyView> InspectManifestCopy(const std::string& folder, rocksdb::Env* env,
                                                     const RecordVisitor& visit) {
  return Inspection(folder, env).Run(visit);
}

}  // namespace epic
