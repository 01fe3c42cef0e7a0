#include "storage/manifest_recovery.h"

#include <tuple>

#include "fmt/format.h"

namespace epic {
namespace {

using Condition = ManifestCopyView::Condition;

absl::Status CheckVersion(const ManifestCopyView& view) {
  if (view.condition != Condition::kNewer) return absl::OkStatus();
  return absl::FailedPreconditionError(fmt::format(
      "the manifest in {} has format version {}, this program reads up to {}: it was written by a newer EPIC; "
      "use that one or another data directory",
      view.folder, view.version, kManifestFormatVersion));
}

std::string Describe(const ManifestCopyView& view) {
  return view.condition == Condition::kAbsent ? fmt::format("there is none in {}", view.folder) : view.reason;
}

std::tuple<uint64_t, uint64_t> Position(const ManifestCopyView& view) { return {view.state.epoch, view.sequence}; }

// Whether all that `behind` holds is the beginning of what `ahead` holds.
bool IsBeginning(const ManifestCopyView& behind, const ManifestCopyView& ahead) {
  if (behind.version != ahead.version) return false;
  if (behind.state.epoch == ahead.state.epoch) return true;
  return behind.state.epoch + 1 == ahead.state.epoch && behind.sequence <= ahead.state.epoch_base_sequence;
}

absl::StatusOr<ManifestRecovery> DecideBothSound(const ManifestCopyView& primary, const ManifestCopyView& copy) {
  if (primary.version >= 2 && copy.version >= 2 && primary.state.identity != copy.state.identity) {
    return absl::FailedPreconditionError(
        fmt::format("{} is not a copy of the manifest in {}: they belong to two different nodes; give each node "
                    "folders of its own",
                    copy.folder, primary.folder));
  }
  if (Position(copy) > Position(primary)) {
    return IsBeginning(primary, copy) ? ManifestRecovery::kCatchUpPrimary : ManifestRecovery::kReplacePrimary;
  }
  if (primary.version < kManifestFormatVersion) return ManifestRecovery::kMigratePrimary;
  if (Position(primary) > Position(copy)) {
    return IsBeginning(copy, primary) ? ManifestRecovery::kCatchUpCopy : ManifestRecovery::kReplaceCopy;
  }
  if (primary.state != copy.state) {
    return absl::DataLossError(fmt::format(
        "the two copies of the manifest in {} and {} both end at change {} but hold different records; nothing was "
        "changed: remove the one that is wrong, or restore the folders",
        primary.folder, copy.folder, primary.sequence));
  }
  return ManifestRecovery::kOpen;
}

}  // namespace

absl::StatusOr<ManifestRecovery> DecideManifestRecovery(const ManifestCopyView& primary, const ManifestCopyView& copy) {
  for (const ManifestCopyView* view : {&primary, &copy}) {
    if (const absl::Status status = CheckVersion(*view); !status.ok()) return status;
  }
  const bool primary_sound = primary.condition == Condition::kSound;
  const bool copy_sound = copy.condition == Condition::kSound;
  if (primary_sound && copy_sound) return DecideBothSound(primary, copy);
  if (primary_sound) {
    return primary.version < kManifestFormatVersion ? ManifestRecovery::kMigratePrimary
                                                    : ManifestRecovery::kReplaceCopy;
  }
  if (copy_sound) return ManifestRecovery::kReplacePrimary;
  if (primary.condition == Condition::kAbsent && copy.condition == Condition::kAbsent) return ManifestRecovery::kCreate;
  return absl::DataLossError(
      fmt::format("the manifest is damaged and no copy of it is sound: {}; {}; nothing was changed: restore one of the "
                  "folders",
                  Describe(primary), Describe(copy)));
}

}  // namespace epic
