#include "storage/manifest_repair.h"

#include <filesystem>
#include <random>
#include <system_error>
#include <utility>
#include <vector>

#include "core/byte_codec.h"
#include "core/status_macros.h"
#include "fmt/format.h"
#include "rocksdb/transaction_log.h"
#include "rocksdb/write_batch.h"
#include "storage/manifest_header.h"
#include "storage/manifest_keys.h"
#include "storage/rocksdb_status.h"
#include "storage/sequence_file.h"

namespace epic {
namespace {

namespace fs = std::filesystem;
using Condition = ManifestCopyView::Condition;

constexpr size_t kCopyPieceBytes = size_t{1} << 20;
// Replace, migrate, replace, then a look that finds both equal; one more for a copy that fails while it is read.
constexpr int kRecoveryStepsMax = 5;

rocksdb::Env* OrDefault(rocksdb::Env* env) { return env == nullptr ? rocksdb::Env::Default() : env; }

absl::Status SyncFolder(const std::string& folder, rocksdb::Env* env) {
  std::unique_ptr<rocksdb::Directory> directory;
  rocksdb::Status status = env->NewDirectory(folder, &directory);
  if (status.ok()) status = directory->Fsync();
  return FromRocksDb(status, folder);
}

absl::Status CopyFile(const std::string& from, const std::string& to, rocksdb::Env* env) {
  std::unique_ptr<rocksdb::SequentialFile> source;
  EPIC_RETURN_IF_ERROR(FromRocksDb(env->NewSequentialFile(from, &source, rocksdb::EnvOptions()), from));
  std::unique_ptr<rocksdb::WritableFile> target;
  EPIC_RETURN_IF_ERROR(FromRocksDb(env->NewWritableFile(to, &target, rocksdb::EnvOptions()), to));
  std::vector<char> buffer(kCopyPieceBytes);
  while (true) {
    rocksdb::Slice piece;
    EPIC_RETURN_IF_ERROR(FromRocksDb(source->Read(buffer.size(), &piece, buffer.data()), from));
    if (piece.empty()) break;
    EPIC_RETURN_IF_ERROR(FromRocksDb(target->Append(piece), to));
  }
  rocksdb::Status status = target->Sync();
  if (status.ok()) status = target->Close();
  return FromRocksDb(status, to);
}

// Of the database's folder, what is of the process that had it open and not of the data.
bool IsOfTheProcess(const std::string& name) {
  return name == "LOCK" || name == "LOG" || name.starts_with("LOG.old") || name.ends_with(".dbtmp") ||
         name.starts_with(std::string(kSequenceFileName) + ".");
}

bool IsOfADatabase(const std::string& name) {
  return IsOfTheProcess(name) || name == "CURRENT" || name == "IDENTITY" || name == kSequenceFileName ||
         name.starts_with("MANIFEST-") || name.starts_with("OPTIONS-") || name.ends_with(".log");
}

absl::Status RemoveFolder(const std::string& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  if (!error) return absl::OkStatus();
  return absl::UnavailableError(fmt::format("cannot remove {}: {}", folder, error.message()));
}

// What is no manifest is somebody else's, unless it is empty or a manifest that was never begun.
absl::Status CheckNotForeign(const std::string& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (IsOfADatabase(entry.path().filename().string())) continue;
    return absl::FailedPreconditionError(
        fmt::format("{} is to hold a copy of the manifest but has other files in it ({}); choose another folder",
                    folder, entry.path().filename().string()));
  }
  return absl::OkStatus();
}

std::string ParentOf(const std::string& folder) {
  const fs::path parent = fs::absolute(folder).lexically_normal().parent_path();
  return parent.string();
}

// The same path without a slash at its end, so that a suffix makes a sibling of it.
std::string Beside(const std::string& folder, const char* suffix) {
  std::string path = fs::path(folder).lexically_normal().string();
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path + suffix;
}

absl::Status CopyFiles(const std::string& from, const std::string& to, rocksdb::Env* env) {
  EPIC_RETURN_IF_ERROR(PrepareFolder(to));
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(from, error)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_regular_file() || IsOfTheProcess(name)) continue;
    EPIC_RETURN_IF_ERROR(CopyFile(entry.path().string(), fmt::format("{}/{}", to, name), env));
  }
  if (error) return absl::UnavailableError(fmt::format("cannot read {}: {}", from, error.message()));
  return SyncFolder(to, env);
}

absl::Status CheckSame(const ManifestCopyView& expected, const ManifestCopyView& seen) {
  if (seen.condition == Condition::kSound && seen.sequence == expected.sequence && seen.state == expected.state) {
    return absl::OkStatus();
  }
  return absl::UnavailableError(
      fmt::format("what was copied from {} to {} does not read back as it was written: {}; "
                  "check the disk",
                  expected.folder, seen.folder, seen.reason));
}

absl::Status Rename(const std::string& from, const std::string& to, rocksdb::Env* env) {
  EPIC_RETURN_IF_ERROR(FromRocksDb(env->RenameFile(from, to), from));
  return SyncFolder(ParentOf(to), env);
}

// Which of the two folders a step of the recovery changes, and which one it reads.
struct Roles {
  const ManifestCopyView* good;
  const ManifestCopyView* bad;
  std::unique_ptr<FolderLock>* bad_lock;
};

std::string DescribeReplaced(const Roles& roles) {
  const std::string& bad = roles.bad->folder;
  const std::string& good = roles.good->folder;
  switch (roles.bad->condition) {
    case Condition::kAbsent:
      return fmt::format("there was no copy of the manifest in {}: it was made from {}", bad, good);
    case Condition::kDamaged:
      return fmt::format("{}; it was replaced by what is in {} and kept as {}", roles.bad->reason, good,
                         Beside(bad, ".damaged"));
    default:
      return fmt::format(
          "the manifest in {} (to change {}) was behind that in {} (to change {}); it was replaced by "
          "that and kept as {}",
          bad, roles.bad->sequence, good, roles.good->sequence, Beside(bad, ".damaged"));
  }
}

absl::Status Replace(const Roles& roles, rocksdb::Env* env, const std::function<void(const std::string&)>& warn) {
  roles.bad_lock->reset();
  EPIC_RETURN_IF_ERROR(ReplaceManifestCopy(*roles.good, *roles.bad, env));
  warn(DescribeReplaced(roles));
  EPIC_ASSIGN_OR_RETURN(*roles.bad_lock, FolderLock::Take(roles.bad->folder, env));
  return absl::OkStatus();
}

absl::Status CatchUp(const Roles& roles, rocksdb::Env* env, const std::function<void(const std::string&)>& warn) {
  roles.bad_lock->reset();
  EPIC_ASSIGN_OR_RETURN(const bool done, CatchUpManifestCopy(*roles.good, *roles.bad, env));
  if (!done) return Replace(roles, env, warn);
  warn(fmt::format("the manifest in {} ended at change {}; it got the later ones, to change {}, from {}",
                   roles.bad->folder, roles.bad->sequence, roles.good->sequence, roles.good->folder));
  EPIC_ASSIGN_OR_RETURN(*roles.bad_lock, FolderLock::Take(roles.bad->folder, env));
  return absl::OkStatus();
}

absl::Status Migrate(const ManifestCopyView& view, rocksdb::Env* env,
                     const std::function<void(const std::string&)>& warn, std::unique_ptr<FolderLock>* lock) {
  lock->reset();
  EPIC_RETURN_IF_ERROR(MigrateManifest(view, env));
  warn(fmt::format("the manifest in {} was brought from format version {} to {}", view.folder, view.version,
                   kManifestFormatVersion));
  EPIC_ASSIGN_OR_RETURN(*lock, FolderLock::Take(view.folder, env));
  return absl::OkStatus();
}

absl::Status UnreadableDocument(const ManifestCopyView& view, std::string_view key, const absl::Status& why) {
  const auto names = ParseManifestKey(ManifestKeyKind::kDocument, key);
  const bool has_names = names.has_value() && names->size() == 2;
  return absl::Status(why.code(),
                      fmt::format("the manifest in {} cannot be migrated: document {} of tenant {}: {}; nothing was "
                                  "changed: restore the folder, or delete the document with the older EPIC",
                                  view.folder, has_names ? (*names)[1] : "?", has_names ? (*names)[0] : "?",
                                  std::string(why.message())));
}

}  // namespace

uint64_t NewManifestIdentity() {
  std::random_device random;
  return uint64_t{random()} << 32 | random();
}

absl::Status ReplaceManifestCopy(const ManifestCopyView& source, const ManifestCopyView& target, rocksdb::Env* env,
                                 const std::function<absl::Status(ReplaceStep)>& after_step) {
  env = OrDefault(env);
  const auto after = [&](ReplaceStep step) { return after_step ? after_step(step) : absl::OkStatus(); };
  const bool is_kept = target.condition != Condition::kAbsent;
  if (!is_kept) EPIC_RETURN_IF_ERROR(CheckNotForeign(target.folder));
  const std::string fresh = Beside(target.folder, ".new");
  const std::string damaged = Beside(target.folder, ".damaged");
  EPIC_RETURN_IF_ERROR(RemoveFolder(fresh));
  EPIC_RETURN_IF_ERROR(after(ReplaceStep::kLeftoversRemoved));
  EPIC_RETURN_IF_ERROR(CopyFiles(source.folder, fresh, env));
  EPIC_ASSIGN_OR_RETURN(const ManifestCopyView copied, InspectManifestCopy(fresh, env));
  EPIC_RETURN_IF_ERROR(CheckSame(source, copied));
  EPIC_RETURN_IF_ERROR(after(ReplaceStep::kFilesCopied));
  EPIC_RETURN_IF_ERROR(RemoveFolder(is_kept ? damaged : target.folder));
  EPIC_RETURN_IF_ERROR(after(ReplaceStep::kOldOneRemoved));
  if (is_kept) EPIC_RETURN_IF_ERROR(Rename(target.folder, damaged, env));
  EPIC_RETURN_IF_ERROR(after(ReplaceStep::kDamagedSetAside));
  EPIC_RETURN_IF_ERROR(Rename(fresh, target.folder, env));
  return after(ReplaceStep::kDone);
}

absl::StatusOr<bool> CatchUpManifestCopy(const ManifestCopyView& ahead, const ManifestCopyView& behind,
                                         rocksdb::Env* env) {
  EPIC_ASSIGN_OR_RETURN(const std::unique_ptr<rocksdb::DB> target, OpenAsSeen(behind, env));
  std::string complaints;
  EPIC_ASSIGN_OR_RETURN(const std::unique_ptr<rocksdb::DB> source, OpenForReading(ahead.folder, env, &complaints));
  std::unique_ptr<rocksdb::TransactionLogIterator> log;
  if (!source->GetUpdatesSince(behind.sequence + 1, &log).ok()) return false;
  for (; log->Valid(); log->Next()) {
    rocksdb::BatchResult batch = log->GetBatch();
    if (batch.sequence != target->GetLatestSequenceNumber() + 1) return false;
    rocksdb::WriteOptions options;
    options.sync = true;
    EPIC_RETURN_IF_ERROR(FromRocksDb(target->Write(options, batch.writeBatchPtr.get()), behind.folder));
  }
  return target->GetLatestSequenceNumber() == ahead.sequence;
}

absl::Status MigrateManifest(const ManifestCopyView& view, rocksdb::Env* env) {
  EPIC_ASSIGN_OR_RETURN(const std::unique_ptr<rocksdb::DB> database, OpenAsSeen(view, env));
  ManifestState state{.identity = NewManifestIdentity()};
  rocksdb::WriteBatch batch;
  const auto put = [&](const std::string& key, const std::string& value) {
    batch.Put(AsSlice(key), AsSlice(value));
    ++state.record_count;
    state.digest += ManifestRecordDigest(key, value);
  };
  int64_t document_count = 0;
  const std::unique_ptr<rocksdb::Iterator> iterator(database->NewIterator(rocksdb::ReadOptions()));
  for (iterator->SeekToFirst(); iterator->Valid(); iterator->Next()) {
    const std::string_view key = AsView(iterator->key());
    const std::string_view value = AsView(iterator->value());
    const auto kind = static_cast<ManifestKeyKind>(key.front());
    if (kind == ManifestKeyKind::kIndex || kind == ManifestKeyKind::kFormatVersion) continue;  // written anew
    ++state.record_count;
    state.digest += ManifestRecordDigest(key, value);
    if (kind != ManifestKeyKind::kDocument) continue;
    ++document_count;
    const absl::StatusOr<DocumentRecord> decoded = DecodeDocumentRecord(value);
    if (!decoded.ok()) return UnreadableDocument(view, key, decoded.status());
    const DocumentRecord& document = *decoded;
    put(ManifestKey(ManifestKeyKind::kIndex, {document.tenant, document.id}), EncodeDocumentHeader(HeaderOf(document)));
  }
  EPIC_RETURN_IF_ERROR(FromRocksDb(iterator->status(), view.folder));
  if (document_count != view.document_count) {
    return absl::DataLossError(
        fmt::format("the manifest in {} is damaged: it has {} documents and {} entries in their "
                    "index; nothing was changed: restore the folder",
                    view.folder, document_count, view.document_count));
  }
  ByteWriter version;
  version.Put(kManifestFormatVersion);
  put(ManifestKey(ManifestKeyKind::kFormatVersion, {}), version.bytes());
  state.epoch = 1;
  state.epoch_base_sequence = view.sequence;
  batch.Put(AsSlice(ManifestKey(ManifestKeyKind::kState, {})), AsSlice(EncodeManifestState(state)));
  rocksdb::WriteOptions options;
  options.sync = true;
  return FromRocksDb(database->Write(options, &batch), view.folder);
}

absl::StatusOr<std::unique_ptr<rocksdb::DB>> OpenAsSeen(const ManifestCopyView& view, rocksdb::Env* env) {
  EPIC_ASSIGN_OR_RETURN(std::unique_ptr<rocksdb::DB> database, OpenForWriting(view.folder, env));
  if (database->GetLatestSequenceNumber() == view.sequence) return database;
  return absl::FailedPreconditionError(
      fmt::format("the manifest in {} was changed by another process while it was opened; try again", view.folder));
}

absl::StatusOr<ManifestLocks> LockManifest(const std::string& folder, const std::string& copy_folder,
                                           rocksdb::Env* env) {
  ManifestLocks locks;
  EPIC_ASSIGN_OR_RETURN(locks.primary, FolderLock::TakeIfThere(folder, env));
  EPIC_ASSIGN_OR_RETURN(locks.copy, FolderLock::TakeIfThere(copy_folder, env));
  return locks;
}

absl::StatusOr<ManifestCopyView> RecoverManifest(const std::string& folder, const std::string& copy_folder,
                                                 rocksdb::Env* env, const std::function<void(const std::string&)>& warn,
                                                 ManifestLocks* locks) {
  for (int step = 0; step < kRecoveryStepsMax; ++step) {
    EPIC_ASSIGN_OR_RETURN(const ManifestCopyView primary, InspectManifestCopy(folder, env));
    EPIC_ASSIGN_OR_RETURN(const ManifestCopyView copy, InspectManifestCopy(copy_folder, env));
    EPIC_ASSIGN_OR_RETURN(const ManifestRecovery action, DecideManifestRecovery(primary, copy));
    const Roles primary_bad{&copy, &primary, &locks->primary};
    const Roles copy_bad{&primary, &copy, &locks->copy};
    absl::Status status;
    switch (action) {
      case ManifestRecovery::kCreate:
      case ManifestRecovery::kOpen:
        return primary;
      case ManifestRecovery::kCatchUpPrimary:
        status = CatchUp(primary_bad, env, warn);
        break;
      case ManifestRecovery::kCatchUpCopy:
        status = CatchUp(copy_bad, env, warn);
        break;
      case ManifestRecovery::kReplacePrimary:
        status = Replace(primary_bad, env, warn);
        break;
      case ManifestRecovery::kReplaceCopy:
        status = Replace(copy_bad, env, warn);
        break;
      case ManifestRecovery::kMigratePrimary:
        status = Migrate(primary, env, warn, &locks->primary);
        break;
    }
    EPIC_RETURN_IF_ERROR(status);
  }
  return absl::UnavailableError(
      fmt::format("the manifest in {} and its copy in {} are still not equal after {} repairs; check the disks", folder,
                  copy_folder, kRecoveryStepsMax));
}

}  // namespace epic
