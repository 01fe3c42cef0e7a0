#include "client/offline_verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "storage/disk_tier.h"
#include "storage/disk_tier_testing.h"
#include "storage/manifest.h"
#include "storage/manifest_testing.h"

namespace epic::client {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr size_t kMiB = size_t{1} << 20;

class OfflineVerifyTest : public testing::Test {
 protected:
  OfflineVerifyTest() {
    folders_.data_dir = fs::path(folder_.path()).parent_path();
    const std::unique_ptr<Manifest> manifest = OpenManifest();
    const ChunkListRecord chunks = TestChunkList(1);
    EXPECT_TRUE(manifest->PutDocument(TestDocument(1), &chunks).value());
    EXPECT_TRUE(manifest->SetPinned(TestDocument(1).tenant, TestDocument(1).id, true).ok());
    EXPECT_TRUE(OpenDisk(DataDir() + "/blocks")->Write(block_.view(), 1).value());
  }

  const std::string& DataDir() const { return folders_.data_dir; }
  std::unique_ptr<Manifest> OpenManifest() const { return Manifest::Open(folder_.path()).value(); }
  static std::unique_ptr<DiskTier> OpenDisk(const std::string& path) {
    return DiskTier::Open({.folder = path, .capacity_bytes = 8 * kMiB, .segment_bytes = kMiB, .free_bytes_min = 0},
                          std::make_unique<TestLruPolicy>())
        .value();
  }
  std::map<std::string, std::string> Contents() const {
    std::map<std::string, std::string> contents;
    for (const auto& file : fs::recursive_directory_iterator(DataDir())) {
      std::ifstream stream(file.path(), std::ios::binary);
      contents[file.path()] =
          file.is_regular_file() ? std::string(std::istreambuf_iterator<char>(stream), {}) : "a folder";
    }
    return contents;
  }
  // Also sees that nothing was changed.
  absl::StatusOr<std::vector<OfflinePart>> Verify() const {
    const auto before = Contents();
    auto parts = VerifyOffline(folders_, nullptr);
    EXPECT_EQ(Contents(), before);
    return parts;
  }

  const TemporaryFolder folder_;  // "manifest" in the data folder
  const TestBlock block_{1};
  OfflineFolders folders_;
};

TEST_F(OfflineVerifyTest, ASoundFolderHasThreePartsWithoutFaults) {
  const auto parts = Verify();
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_THAT(*parts, ElementsAre(Field(&OfflinePart::name, "manifest"), Field(&OfflinePart::name, "manifest copy"),
                                  Field(&OfflinePart::name, "disk tier")));
  for (const OfflinePart& part : *parts) {
    EXPECT_THAT(part.faults, IsEmpty()) << part.name;
    EXPECT_GT(part.bytes, 0) << part.name;
  }
  // A document, its chunk list and its pin.
  EXPECT_EQ((*parts)[0].entries, 3);
  EXPECT_EQ((*parts)[1].entries, 3);
  EXPECT_EQ((*parts)[2].entries, 1);
  EXPECT_EQ((*parts)[1].folder, folder_.copy_path());
}

TEST_F(OfflineVerifyTest, FaultsStandWithTheirPart) {
  fs::remove(folder_.copy_path() + "/CURRENT");
  fs::remove(DataDir() + "/blocks/segment-000001");
  const auto parts = Verify();
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_THAT((*parts)[0].faults, IsEmpty());
  EXPECT_THAT((*parts)[1].faults, ElementsAre(HasSubstr(folder_.copy_path() + "/CURRENT")));
  EXPECT_THAT((*parts)[2].faults, ElementsAre(HasSubstr(block_.key().Hex())));
}

TEST_F(OfflineVerifyTest, ACopyThatIsBehindIsNoted) {
  const std::string earlier = DataDir() + "/earlier";
  fs::copy(folder_.copy_path(), earlier, fs::copy_options::recursive);
  EXPECT_TRUE(OpenManifest()->PutDocument(TestDocument(2), nullptr).value());
  fs::remove_all(folder_.copy_path());
  fs::rename(earlier, folder_.copy_path());
  const auto parts = Verify();
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_THAT((*parts)[0].note, IsEmpty());
  EXPECT_THAT((*parts)[1].note, HasSubstr("behind"));
  for (const OfflinePart& part : *parts) EXPECT_THAT(part.faults, IsEmpty()) << part.name;
}

TEST_F(OfflineVerifyTest, RefusesWhileANodeRunsOnIt) {
  {
    const std::unique_ptr<Manifest> running = OpenManifest();
    EXPECT_EQ(VerifyOffline(folders_, nullptr).status().code(), absl::StatusCode::kFailedPrecondition);
  }
  const std::unique_ptr<DiskTier> running = OpenDisk(DataDir() + "/blocks");
  EXPECT_EQ(VerifyOffline(folders_, nullptr).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(OfflineVerifyTest, ANodeMayHaveNoDiskTierButNotOneThatIsNamed) {
  fs::rename(DataDir() + "/blocks", DataDir() + "/elsewhere");
  EXPECT_EQ(Verify()->size(), 2);
  folders_.disk_dir = DataDir() + "/elsewhere";
  EXPECT_EQ(Verify()->size(), 3);
  folders_.disk_dir = DataDir() + "/nowhere";
  EXPECT_EQ(Verify().status().code(), absl::StatusCode::kNotFound);
}

TEST_F(OfflineVerifyTest, TakesTheCopyWhereItIs) {
  fs::rename(folder_.copy_path(), DataDir() + "/second");
  folders_.manifest_copy_dir = DataDir() + "/second";
  const auto parts = Verify();
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_EQ((*parts)[1].folder, DataDir() + "/second");
  EXPECT_THAT((*parts)[1].faults, IsEmpty());
}

TEST_F(OfflineVerifyTest, AFolderWithoutAManifestIsNoDataFolder) {
  folders_.data_dir += "/blocks";
  EXPECT_EQ(Verify().status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace epic::client
