#include "storage/manifest_recovery.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using ::testing::HasSubstr;
using Condition = ManifestCopyView::Condition;

ManifestCopyView Sound(const std::string& folder, uint64_t epoch, uint64_t sequence, uint64_t base = 0) {
  ManifestCopyView view;
  view.folder = folder;
  view.condition = Condition::kSound;
  view.version = kManifestFormatVersion;
  view.sequence = sequence;
  view.state = {.identity = 7, .epoch = epoch, .epoch_base_sequence = base, .record_count = sequence, .digest = 1};
  return view;
}

ManifestCopyView Version1(const std::string& folder, uint64_t sequence) {
  ManifestCopyView view = Sound(folder, 0, sequence);
  view.version = 1;
  view.state = {};
  return view;
}

ManifestCopyView Other(const std::string& folder, Condition condition) {
  ManifestCopyView view;
  view.folder = folder;
  view.condition = condition;
  view.version = condition == Condition::kNewer ? 9 : 0;
  view.reason = condition == Condition::kDamaged ? folder + "/000001.sst is damaged" : "";
  return view;
}

std::string Decide(const ManifestCopyView& primary, const ManifestCopyView& copy) {
  const absl::StatusOr<ManifestRecovery> decision = DecideManifestRecovery(primary, copy);
  if (!decision.ok()) return absl::StatusCodeToString(decision.status().code());
  switch (*decision) {
    case ManifestRecovery::kCreate:
      return "create";
    case ManifestRecovery::kOpen:
      return "open";
    case ManifestRecovery::kCatchUpPrimary:
      return "catch up primary";
    case ManifestRecovery::kCatchUpCopy:
      return "catch up copy";
    case ManifestRecovery::kReplacePrimary:
      return "replace primary";
    case ManifestRecovery::kReplaceCopy:
      return "replace copy";
    case ManifestRecovery::kMigratePrimary:
      return "migrate primary";
  }
  return "?";
}

TEST(ManifestRecoveryTest, EveryConditionOfOneWithEveryConditionOfTheOther) {
  const auto view = [](const std::string& folder, const std::string& what) {
    if (what == "absent") return Other(folder, Condition::kAbsent);
    if (what == "damaged") return Other(folder, Condition::kDamaged);
    if (what == "newer") return Other(folder, Condition::kNewer);
    return what == "1" ? Version1(folder, 40) : Sound(folder, 3, 50, 45);
  };
  const std::vector<std::string> conditions = {"absent", "damaged", "newer", "1", "2"};
  // Rows: the primary; columns: the copy.
  const std::vector<std::vector<std::string>> expected = {
      {"create", "DATA_LOSS", "FAILED_PRECONDITION", "replace primary", "replace primary"},
      {"DATA_LOSS", "DATA_LOSS", "FAILED_PRECONDITION", "replace primary", "replace primary"},
      {"FAILED_PRECONDITION", "FAILED_PRECONDITION", "FAILED_PRECONDITION", "FAILED_PRECONDITION",
       "FAILED_PRECONDITION"},
      {"migrate primary", "migrate primary", "FAILED_PRECONDITION", "migrate primary", "replace primary"},
      {"replace copy", "replace copy", "FAILED_PRECONDITION", "replace copy", "open"},
  };
  for (size_t i = 0; i < conditions.size(); ++i) {
    for (size_t j = 0; j < conditions.size(); ++j) {
      EXPECT_EQ(Decide(view("p", conditions[i]), view("c", conditions[j])), expected[i][j])
          << conditions[i] << " and " << conditions[j];
    }
  }
}

TEST(ManifestRecoveryTest, InOneEpochTheShorterOneIsABeginning) {
  EXPECT_EQ(Decide(Sound("p", 3, 50, 45), Sound("c", 3, 49, 45)), "catch up copy");
  EXPECT_EQ(Decide(Sound("p", 3, 48, 45), Sound("c", 3, 50, 45)), "catch up primary");
}

TEST(ManifestRecoveryTest, AcrossEpochsItIsABeginningUpToTheBase) {
  EXPECT_EQ(Decide(Sound("p", 4, 60, 50), Sound("c", 3, 50, 45)), "catch up copy");
  EXPECT_EQ(Decide(Sound("p", 4, 60, 50), Sound("c", 3, 49, 45)), "catch up copy");
  // It got a change that the other one, opened without it, never had.
  EXPECT_EQ(Decide(Sound("p", 4, 60, 50), Sound("c", 3, 51, 45)), "replace copy");
  EXPECT_EQ(Decide(Sound("p", 3, 51, 45), Sound("c", 4, 60, 50)), "replace primary");
  EXPECT_EQ(Decide(Sound("p", 3, 50, 45), Sound("c", 4, 60, 50)), "catch up primary");
  // The later opening counts, also where the other one has more changes.
  EXPECT_EQ(Decide(Sound("p", 3, 90, 45), Sound("c", 4, 60, 50)), "replace primary");
  // Nothing is known of the epoch in between.
  EXPECT_EQ(Decide(Sound("p", 5, 70, 60), Sound("c", 3, 40, 35)), "replace copy");
}

TEST(ManifestRecoveryTest, OlderVersionsThatDifferFollowTheLongerOne) {
  EXPECT_EQ(Decide(Version1("p", 40), Version1("c", 30)), "migrate primary");
  EXPECT_EQ(Decide(Version1("p", 30), Version1("c", 40)), "catch up primary");
}

TEST(ManifestRecoveryTest, CopiesOfTwoManifestsAreRefused) {
  ManifestCopyView foreign = Sound("c", 3, 50, 45);
  foreign.state.identity = 8;
  const absl::Status status = DecideManifestRecovery(Sound("p", 3, 60, 45), foreign).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("c is not a copy of the manifest in p"));
}

TEST(ManifestRecoveryTest, EqualPositionsWithOtherRecordsAreRefused) {
  ManifestCopyView other = Sound("c", 3, 50, 45);
  other.state.digest = 2;
  EXPECT_EQ(Decide(Sound("p", 3, 50, 45), other), "DATA_LOSS");
}

TEST(ManifestRecoveryTest, WhereNoneIsSoundTheErrorNamesBoth) {
  const std::string message(
      DecideManifestRecovery(Other("p", Condition::kDamaged), Other("c", Condition::kDamaged)).status().message());
  EXPECT_THAT(message, HasSubstr("p/000001.sst"));
  EXPECT_THAT(message, HasSubstr("c/000001.sst"));
  EXPECT_THAT(
      std::string(
          DecideManifestRecovery(Other("p", Condition::kDamaged), Other("c", Condition::kAbsent)).status().message()),
      HasSubstr("there is none in c"));
}

}  // namespace
}  // namespace epic
