#include "storage/disk_verify.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/disk_tier.h"
#include "storage/disk_tier_testing.h"
#include "storage/manifest_testing.h"

namespace epic {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class DiskVerifyTest : public testing::Test {
 protected:
  std::string folder() const { return folder_.path() + "/disk"; }
  std::unique_ptr<DiskTier> Open() const {
    auto tier = DiskTier::Open({.folder = folder(),
                                .capacity_bytes = size_t{8} << 20,
                                .segment_bytes = size_t{1} << 20,
                                .free_bytes_min = 0,
                                .direct_io = true},
                               std::make_unique<TestLruPolicy>());
    EXPECT_TRUE(tier.ok()) << tier.status();
    return *std::move(tier);
  }
  // Every file's name, size and time of change.
  std::map<std::string, std::pair<uintmax_t, fs::file_time_type>> Files() const {
    std::map<std::string, std::pair<uintmax_t, fs::file_time_type>> files;
    for (const auto& file : fs::recursive_directory_iterator(folder())) {
      if (file.is_regular_file()) files[file.path()] = {file.file_size(), file.last_write_time()};
    }
    return files;
  }
  void FlipByte(size_t offset) const {
    std::fstream file(folder() + "/segment-000001", std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const char byte = static_cast<char>(file.get());
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(static_cast<char>(byte ^ 1));
  }

  const TemporaryFolder folder_;
};

TEST_F(DiskVerifyTest, ASoundTierIsReadWholeAndLeftAsItWas) {
  {
    const auto tier = Open();
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(tier->Write(TestBlock(i).view(), 1).ok());
  }
  const auto before = Files();
  DiskReport report;
  int calls = 0;
  const absl::Status status = VerifyDiskTier(folder(), &report, [&](const DiskReport&) { ++calls; });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(report.blocks_done, 5u);
  EXPECT_EQ(report.blocks_total, 5u);
  EXPECT_EQ(calls, 5);
  EXPECT_EQ(Files(), before);
}

TEST_F(DiskVerifyTest, BadBlocksAreNamedAndStay) {
  {
    const auto tier = Open();
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(tier->Write(TestBlock(i).view(), 1).ok());
  }
  FlipByte(1500);
  const auto before = Files();
  DiskReport report;
  EXPECT_EQ(VerifyDiskTier(folder(), &report, nullptr).code(), absl::StatusCode::kDataLoss);
  ASSERT_EQ(report.faults.size(), 1u);
  EXPECT_THAT(report.faults[0], HasSubstr(TestBlock(0).key().Hex()));
  EXPECT_EQ(Files(), before);
  EXPECT_EQ(Open()->Stats().blocks, 3u) << "the tier finds it out for itself";
}

TEST_F(DiskVerifyTest, ADamagedIndexIsNamedAndStays) {
  {
    const auto tier = Open();
    ASSERT_TRUE(tier->Write(TestBlock(0).view(), 1).ok());
  }
  { std::ofstream(folder() + "/index/CURRENT") << "nothing\n"; }
  DiskReport report;
  EXPECT_EQ(VerifyDiskTier(folder(), &report, nullptr).code(), absl::StatusCode::kDataLoss);
  ASSERT_EQ(report.faults.size(), 1u);
  EXPECT_THAT(report.faults[0], HasSubstr("/index"));
  EXPECT_TRUE(fs::exists(folder() + "/index/CURRENT"));
}

TEST_F(DiskVerifyTest, AbsentRunningAndNewerTiersAreRefused) {
  DiskReport report;
  EXPECT_EQ(VerifyDiskTier(folder(), &report, nullptr).code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(fs::exists(folder()));
  {
    const auto tier = Open();
    EXPECT_EQ(VerifyDiskTier(folder(), &report, nullptr).code(), absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_TRUE(VerifyDiskTier(folder(), &report, nullptr).ok());
  { std::ofstream(folder() + "/FORMAT") << "garbage\n"; }
  EXPECT_EQ(VerifyDiskTier(folder(), &report, nullptr).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace epic
