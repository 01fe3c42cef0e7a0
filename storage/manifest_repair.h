// Making two copies of the manifest equal before it is opened.
#ifndef EPIC_STORAGE_MANIFEST_REPAIR_H_
#define EPIC_STORAGE_MANIFEST_REPAIR_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "rocksdb/env.h"
#include "storage/manifest_database.h"
#include "storage/manifest_recovery.h"

namespace epic {

// What a replacement has just done; a process may die after each.
enum class ReplaceStep { kLeftoversRemoved, kFilesCopied, kOldOneRemoved, kDamagedSetAside, kDone };

// Puts a copy of the closed, sound manifest in `source` in the place of the folder `target`: copied to `target`.new,
// synced and read back, then renamed. What was in `target` is kept as `target`.damaged, where the one that was there
// before goes. Dying at any step leaves `source` as it is and a target that is the old one, absent or complete. The
// caller holds the lock of `source`. `after_step`, where given, may stop it by an error: for tests.
//
// FAILED_PRECONDITION where `target` is no manifest but has files in it, RESOURCE_EXHAUSTED where the disk is full,
// UNAVAILABLE for other I/O errors, naming the path.
absl::Status ReplaceManifestCopy(const ManifestCopyView& source, const ManifestCopyView& target, rocksdb::Env* env,
                                 const std::function<absl::Status(ReplaceStep)>& after_step = {});

// Writes the changes that `behind` lacks from the write-ahead log of `ahead` into it. OK with false where the log no
// longer has all of them: then `behind` still holds a beginning of `ahead`. REQUIRES: it does before. The caller holds
// the lock of `ahead`, and not that of `behind`.
absl::StatusOr<bool> CatchUpManifestCopy(const ManifestCopyView& ahead, const ManifestCopyView& behind,
                                         rocksdb::Env* env);

// Brings a sound manifest of an older format version to the present one, in one batch: it gets an identity, and its
// documents get headers. DATA_LOSS where a document cannot be decoded; then nothing was changed. The caller does not
// hold the lock.
absl::Status MigrateManifest(const ManifestCopyView& view, rocksdb::Env* env);

// The locks of both folders, where these were ever opened.
struct ManifestLocks {
  std::unique_ptr<FolderLock> primary;
  std::unique_ptr<FolderLock> copy;
};
absl::StatusOr<ManifestLocks> LockManifest(const std::string& folder, const std::string& copy_folder,
                                           rocksdb::Env* env);

// Does what DecideManifestRecovery says until both copies are equal, or both absent, and gives what they then are.
// `warn` gets a line for each repair. `locks` are those of both folders, before and after.
absl::StatusOr<ManifestCopyView> RecoverManifest(const std::string& folder, const std::string& copy_folder,
                                                 rocksdb::Env* env, const std::function<void(const std::string&)>& warn,
                                                 ManifestLocks* locks);

uint64_t NewManifestIdentity();

// Opens it for writing. FAILED_PRECONDITION where it is not what was seen before: another process was in between.
absl::StatusOr<std::unique_ptr<rocksdb::DB>> OpenAsSeen(const ManifestCopyView& view, rocksdb::Env* env);

}  // namespace epic

#endif  // EPIC_STORAGE_MANIFEST_REPAIR_H_
