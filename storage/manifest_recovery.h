// What to do with the two copies of a manifest before it is opened: a pure decision over what was found in each.
#ifndef EPIC_STORAGE_MANIFEST_RECOVERY_H_
#define EPIC_STORAGE_MANIFEST_RECOVERY_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "storage/manifest_state.h"

namespace epic {

inline constexpr uint32_t kManifestFormatVersion = 2;

// What was found in the folder of one copy.
struct ManifestCopyView {
  enum class Condition {
    kAbsent,   // no folder, or one without any history
    kSound,    // every byte that counts was read and agrees with its checksums, its count and its digest
    kDamaged,  // `reason` says which file and why
    kNewer,    // of a format version that this program does not know
  };
  std::string folder;
  Condition condition = Condition::kAbsent;
  std::string reason;
  // The rest is of kSound only, but the version also of kNewer.
  uint32_t version = 0;
  uint64_t sequence = 0;  // of the last change
  ManifestState state;    // all zeros in version 1
  int64_t document_count = 0;
};

enum class ManifestRecovery {
  kCreate,  // there is no manifest: make a new one
  kOpen,    // both are equal
  // One holds a beginning of what the other one holds: it gets the changes that it lacks, or is replaced where they
  // cannot be had any more.
  kCatchUpPrimary,
  kCatchUpCopy,
  kReplacePrimary,  // by the copy
  kReplaceCopy,     // by the primary
  kMigratePrimary,  // to the present format version; the copy follows
};

// The next step towards two equal copies. Does the first one that applies; the caller looks again after each.
// FAILED_PRECONDITION for a newer version and for folders of two different manifests; DATA_LOSS naming both folders and
// what is wrong with each where none is sound, and where two sound ones contradict each other.
[[nodiscard]] absl::StatusOr<ManifestRecovery> DecideManifestRecovery(const ManifestCopyView& primary,
                                                                      const ManifestCopyView& copy);

}  // namespace epic

#endif  // EPIC_STORAGE_MANIFEST_RECOVERY_H_
