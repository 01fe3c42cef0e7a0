#include "storage/manifest_repair.h"

#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/manifest.h"
#include "storage/manifest_keys.h"
#include "storage/manifest_pair.h"
#include "storage/manifest_testing.h"
#include "storage/manifest_verify.h"

namespace epic {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Condition = ManifestCopyView::Condition;

constexpr int kDocuments = 10;

class ManifestRepairTest : public testing::Test {
 protected:
  ManifestRepairTest() { PutDocuments(0, kDocuments); }

  void PutDocuments(int first, int end) {
    const std::unique_ptr<Manifest> manifest = Manifest::Open(folder_.path()).value();
    for (int i = first; i < end; ++i) EXPECT_TRUE(manifest->PutDocument(TestDocument(i), nullptr).value());
  }
  std::vector<std::string> OpenAndCheck(int documents) {
    std::vector<std::string> warnings;
    const absl::StatusOr<std::unique_ptr<Manifest>> manifest = OpenWithWarnings(folder_.path(), &warnings);
    EXPECT_TRUE(manifest.ok()) << manifest.status();
    if (!manifest.ok()) return warnings;
    for (int i = 0; i < documents; ++i) EXPECT_TRUE((*manifest)->GetDocument("acme", TestDocument(i).id).ok());
    EXPECT_EQ((*manifest)->CountDocuments().value(), documents);
    return warnings;
  }
  ManifestCopyView Look(const std::string& folder) { return InspectManifestCopy(folder, nullptr).value(); }

  const TemporaryFolder folder_;
};

struct Stop {
  ReplaceStep step;
  bool in_copy;
};

class ManifestReplaceStopTest : public ManifestRepairTest, public testing::WithParamInterface<Stop> {};

// As after a crash at this step: whatever is left, the next opening finishes it.
TEST_P(ManifestReplaceStopTest, TheNextOpeningFinishesIt) {
  const std::string bad = GetParam().in_copy ? folder_.copy_path() : folder_.path();
  const std::string good = GetParam().in_copy ? folder_.path() : folder_.copy_path();
  fs::resize_file(bad + "/CURRENT", 3);
  const ManifestCopyView target = Look(bad);
  ASSERT_EQ(target.condition, Condition::kDamaged);
  const absl::Status stopped = ReplaceManifestCopy(Look(good), target, nullptr, [](ReplaceStep step) {
    return step == GetParam().step ? absl::CancelledError("power loss") : absl::OkStatus();
  });
  EXPECT_EQ(stopped.code(), absl::StatusCode::kCancelled);
  OpenAndCheck(kDocuments);
  EXPECT_THAT(OpenAndCheck(kDocuments), IsEmpty());
  EXPECT_FALSE(fs::exists(bad + ".new"));
  EXPECT_EQ(fs::file_size(bad + ".damaged/CURRENT"), 3u);
}

std::vector<Stop> AllStops() {
  std::vector<Stop> stops;
  for (const ReplaceStep step : {ReplaceStep::kLeftoversRemoved, ReplaceStep::kFilesCopied, ReplaceStep::kOldOneRemoved,
                                 ReplaceStep::kDamagedSetAside, ReplaceStep::kDone}) {
    stops.push_back({step, false});
    stops.push_back({step, true});
  }
  return stops;
}

INSTANTIATE_TEST_SUITE_P(EveryStep, ManifestReplaceStopTest, testing::ValuesIn(AllStops()));

TEST_F(ManifestRepairTest, TheCopySharesNoFileWithTheOriginal) {
  PutDocuments(kDocuments, kDocuments + 1);  // so that there is a table
  fs::remove_all(folder_.copy_path());
  OpenAndCheck(kDocuments + 1);
  int tables = 0;
  for (const auto& entry : fs::directory_iterator(folder_.copy_path())) {
    struct stat status = {};
    ASSERT_EQ(stat(entry.path().c_str(), &status), 0);
    EXPECT_EQ(status.st_nlink, 1u) << entry.path();
    tables += entry.path().extension() == ".sst" ? 1 : 0;
  }
  EXPECT_GT(tables, 0);
}

TEST_F(ManifestRepairTest, OnlyTheNewestDamagedOneIsKept) {
  for (const uintmax_t bytes : {3, 2}) {
    fs::resize_file(folder_.copy_path() + "/CURRENT", bytes);
    OpenAndCheck(kDocuments);
    EXPECT_EQ(fs::file_size(folder_.copy_path() + ".damaged/CURRENT"), bytes);
  }
  // A copy that is only missing does not push it out.
  fs::remove_all(folder_.copy_path());
  OpenAndCheck(kDocuments);
  EXPECT_EQ(fs::file_size(folder_.copy_path() + ".damaged/CURRENT"), 2u);
}

TEST_F(ManifestRepairTest, AFolderWithOtherFilesIsNotReplaced) {
  fs::remove_all(folder_.copy_path());
  fs::create_directory(folder_.copy_path());
  std::ofstream(folder_.copy_path() + "/thesis.txt") << "all of it";
  const absl::Status status = Manifest::Open(folder_.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("thesis.txt"));
  EXPECT_TRUE(fs::exists(folder_.copy_path() + "/thesis.txt"));
}

TEST_F(ManifestRepairTest, ChangesThatOneLacksComeFromTheOthersLog) {
  const TemporaryFolder before;
  CopyAll(folder_, before);
  std::vector<std::string> warnings;
  {
    // The process dies while it is open, so that all changes are in its log.
    const std::unique_ptr<Manifest> manifest = Manifest::Open(folder_.path()).value();
    for (int i = kDocuments; i < kDocuments + 5; ++i) {
      ASSERT_TRUE(manifest->PutDocument(TestDocument(i), nullptr).value());
    }
    ASSERT_TRUE(manifest->DeleteDocument("acme", TestDocument(kDocuments + 4).id).ok());
  }
  for (const bool primary : {false, true}) {
    const TemporaryFolder folder;
    CopyAll(folder_, folder);
    const std::string behind = primary ? folder.path() : folder.copy_path();
    fs::remove_all(behind);
    fs::copy(primary ? before.path() : before.copy_path(), behind);
    EXPECT_EQ(OpenWithWarnings(folder.path(), &warnings).value()->CountDocuments().value(), kDocuments + 4);
    EXPECT_THAT(warnings, Contains(HasSubstr("the manifest in " + behind + " ended at change")));
    EXPECT_FALSE(fs::exists(behind + ".damaged"));
  }
}

TEST_F(ManifestRepairTest, WhereTheLogIsGoneTheOneBehindIsReplaced) {
  const TemporaryFolder before;
  CopyAll(folder_, before);
  PutDocuments(kDocuments, kDocuments + 2);
  const ManifestCopyView ahead = Look(folder_.path());
  // Opening it writes what is in the log into a table and removes the log.
  { const auto database = OpenAsSeen(ahead, nullptr); }
  { const auto database = OpenAsSeen(ahead, nullptr); }
  fs::remove_all(folder_.copy_path());
  fs::copy(before.copy_path(), folder_.copy_path());
  EXPECT_THAT(OpenAndCheck(kDocuments + 2), ElementsAre(HasSubstr("was behind that in")));
  EXPECT_TRUE(fs::exists(folder_.copy_path() + ".damaged"));
}

TEST_F(ManifestRepairTest, AChangeThatOnlyTheOlderOneHasIsNotMixedIn) {
  // The copy's disk is away for a while and comes back with a change that the other one never got.
  const TemporaryFolder away;
  CopyAll(folder_, away);
  {
    const std::unique_ptr<Manifest> manifest = Manifest::Open(away.path()).value();
    for (int i = 100; i < 110; ++i) ASSERT_TRUE(manifest->PutDocument(TestDocument(i), nullptr).ok());
  }
  for (int i = 0; i < 2; ++i) PutDocuments(kDocuments + i, kDocuments + i + 1);
  fs::remove_all(folder_.copy_path());
  fs::copy(away.copy_path(), folder_.copy_path());
  EXPECT_THAT(OpenAndCheck(kDocuments + 2), ElementsAre(HasSubstr("was behind that in")));
}

TEST_F(ManifestRepairTest, VerifyCountsAndChangesNothing) {
  {
    const std::unique_ptr<Manifest> manifest = Manifest::Open(folder_.path()).value();
    ASSERT_TRUE(manifest->PutChunkList("acme", TestDocument(1).id, TestChunkList(1)).ok());
    ASSERT_TRUE(manifest->SetPinned("acme", TestDocument(1).id, true).ok());
    ManifestReport report;
    EXPECT_EQ(VerifyManifest(folder_.path(), "", &report).code(), absl::StatusCode::kFailedPrecondition);
  }
  const auto listing = [&] {
    std::vector<std::pair<std::string, fs::file_time_type>> files;
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(folder_.path()).parent_path())) {
      files.emplace_back(entry.path(), entry.last_write_time());
    }
    return files;
  };
  const auto before = listing();
  ManifestReport report;
  EXPECT_TRUE(VerifyManifest(folder_.path(), "", &report).ok());
  EXPECT_EQ(listing(), before);
  for (const ManifestReport::Copy& copy : {report.primary, report.copy}) {
    EXPECT_EQ(copy.version, kManifestFormatVersion);
    EXPECT_EQ(copy.document_count, kDocuments);
    EXPECT_EQ(copy.chunk_list_count, 1);
    EXPECT_EQ(copy.pin_count, 1);
    EXPECT_EQ(copy.sequence, report.primary.sequence);
  }
  EXPECT_FALSE(report.one_is_behind);
}

TEST_F(ManifestRepairTest, VerifyNamesFaults) {
  ManifestReport report;
  const TemporaryFolder empty;
  EXPECT_EQ(VerifyManifest(empty.path(), "", &report).code(), absl::StatusCode::kNotFound);

  const auto put = [&](const std::string& folder, const std::string& key, const std::string& value) {
    ASSERT_TRUE(OpenAsSeen(Look(folder), nullptr).value()->Put({}, key, value).ok());
  };
  {
    const ManifestCopyView view = Look(folder_.path());
    ManifestPair pair({folder_.path(), OpenAsSeen(view, nullptr).value()},
                      {folder_.copy_path(), OpenAsSeen(Look(folder_.copy_path()), nullptr).value()}, view.state,
                      [](const std::string& line) { ADD_FAILURE() << line; });
    ManifestChange change(&pair);
    ASSERT_TRUE(change.Put(ManifestKey(ManifestKeyKind::kPin, {"acme", "nobody"}), "").ok());
    ASSERT_TRUE(pair.Commit(change).ok());
  }
  EXPECT_EQ(VerifyManifest(folder_.path(), "", &report).code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(report.faults, Contains(HasSubstr("record P of acme, nobody in " + folder_.path())));
  EXPECT_THAT(report.faults, Contains(HasSubstr("record P of acme, nobody in " + folder_.copy_path())));

  put(folder_.copy_path(), ManifestKey(ManifestKeyKind::kDocument, {"acme", TestDocument(2).id}), "no record");
  put(folder_.copy_path(), "what is this", "");
  EXPECT_EQ(VerifyManifest(folder_.path(), "", &report).code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(report.faults, Contains(HasSubstr(TestDocument(2).id + " in " + folder_.copy_path())));
  EXPECT_THAT(report.faults, Contains(HasSubstr("an unreadable key")));
  EXPECT_THAT(report.faults, Contains(HasSubstr("records where")));

  fs::remove_all(folder_.copy_path());
  EXPECT_EQ(VerifyManifest(folder_.path(), "", &report).code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(report.faults, Contains(HasSubstr("there is no copy of the manifest in " + folder_.copy_path())));
}

}  // namespace
}  // namespace epic
