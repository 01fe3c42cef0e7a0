#include "storage/disk_tier.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/disk_index.h"
#include "storage/disk_tier_testing.h"
#include "storage/manifest_testing.h"

namespace epic {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr size_t kMiB = size_t{1} << 20;

class DiskTierTest : public testing::Test {
 protected:
  DiskTierOptions Options(size_t capacity_bytes = 8 * kMiB) const {
    return {.folder = folder_.path() + "/disk",
            .capacity_bytes = capacity_bytes,
            .segment_bytes = kMiB,
            .free_bytes_min = 0,
            .direct_io = true};
  }
  // Opens the tier, after closing the one that is open.
  DiskTier& Reopen(const DiskTierOptions& options) {
    tier_.reset();
    auto policy = std::make_unique<TestLruPolicy>();
    policy_ = policy.get();
    absl::StatusOr<std::unique_ptr<DiskTier>> tier = DiskTier::Open(options, std::move(policy));
    EXPECT_TRUE(tier.ok()) << tier.status();
    tier_ = *std::move(tier);
    return *tier_;
  }
  DiskTier& Reopen() { return Reopen(Options()); }

  static absl::Status ReadAndCompare(DiskTier& tier, const TestBlock& block) {
    const PageAlignedBytes memory(DiskPaddedBytes(block.bytes().size()));
    absl::Status status = tier.Read(block.key(), memory.span());
    if (status.ok()) {
      EXPECT_TRUE(std::equal(block.bytes().begin(), block.bytes().end(), memory.span().begin()));
    }
    return status;
  }
  size_t BytesOnDisk() const {
    size_t bytes = 0;
    for (const auto& file : fs::recursive_directory_iterator(Options().folder)) {
      if (file.is_regular_file()) bytes += file.file_size();
    }
    return bytes;
  }
  fs::path SegmentPath(int number) const { return fmt::format("{}/segment-{:06}", Options().folder, number); }
  static void FlipByte(const fs::path& path, size_t offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const char byte = static_cast<char>(file.get() ^ 0x10);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
    ASSERT_TRUE(file.good());
  }
  // Where the block's bytes begin in its segment file.
  std::pair<fs::path, size_t> Locate(const TestBlock& block) const {
    const std::string wanted(reinterpret_cast<const char*>(block.bytes().data()), block.bytes().size());
    for (const auto& file : fs::directory_iterator(Options().folder)) {
      if (!file.is_regular_file()) continue;
      std::ifstream stream(file.path(), std::ios::binary);
      const std::string contents(std::istreambuf_iterator<char>(stream), {});
      if (const size_t at = contents.find(wanted); at != std::string::npos) return {file.path(), at};
    }
    ADD_FAILURE() << "the block is in no segment";
    return {};
  }

  const TemporaryFolder folder_;
  std::unique_ptr<DiskTier> tier_;
  TestLruPolicy* policy_ = nullptr;
};

TEST_F(DiskTierTest, GivesBackWhatWasWritten) {
  DiskTier& tier = Reopen();
  const TestBlock small(1);
  const TestBlock large(2, 8, 300);
  EXPECT_NE(small.bytes().size() % kDiskAlignmentBytes, 0u);
  EXPECT_TRUE(tier.Write(small.view(), 12.5).value());
  EXPECT_TRUE(tier.Write(large.view(), 99).value());
  EXPECT_FALSE(tier.Write(small.view(), 50).value()) << "it is there already";
  const auto found = tier.Find(small.key());
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->block_bytes, small.bytes().size());
  EXPECT_EQ(found->edition, small.view().edition());
  EXPECT_EQ(found->recompile_cost_us, 12.5);
  EXPECT_TRUE(ReadAndCompare(tier, small).ok());
  EXPECT_TRUE(ReadAndCompare(tier, large).ok());
  const DiskTierStats stats = tier.Stats();
  EXPECT_EQ(stats.blocks, 2u);
  EXPECT_EQ(stats.writes_total, 2u);
  EXPECT_EQ(stats.reads_total, 2u);
  EXPECT_EQ(stats.used_bytes, DiskPaddedBytes(small.bytes().size()) + DiskPaddedBytes(large.bytes().size()));
  EXPECT_EQ(stats.written_bytes_total, stats.used_bytes);
}

TEST_F(DiskTierTest, TakesABlockFromMemoryThatIsNotAligned) {
  DiskTier& tier = Reopen();
  const TestBlock block(1, 8, 700);
  ASSERT_GT(block.bytes().size(), size_t{256} << 10) << "more than one piece";
  const PageAlignedBytes memory(block.bytes().size() + 64);
  std::copy(block.bytes().begin(), block.bytes().end(), memory.span().begin() + 64);
  EXPECT_TRUE(tier.Write(KvBlockView::Parse(memory.span().subspan(64)).value(), 1).value());
  EXPECT_TRUE(ReadAndCompare(tier, block).ok());
}

TEST_F(DiskTierTest, RefusesMemoryOfAnotherSizeOrAlignment) {
  DiskTier& tier = Reopen();
  const TestBlock block(1);
  EXPECT_EQ(ReadAndCompare(tier, block).code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(tier.Write(block.view(), 1).ok());
  const PageAlignedBytes memory(2 * DiskPaddedBytes(block.bytes().size()));
  EXPECT_EQ(tier.Read(block.key(), memory.span()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(tier.Read(block.key(), memory.span().subspan(64, DiskPaddedBytes(block.bytes().size()))).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(ReadAndCompare(tier, block).ok()) << "nothing was dropped for that";
}

TEST_F(DiskTierTest, NamesEveryOptionThatIsWrong) {
  const absl::Status status = DiskTierOptions{.folder = "", .capacity_bytes = 5, .segment_bytes = 7}.Validate();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const char* field : {"folder", "capacity_bytes is 5", "segment_bytes is 7"}) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(field));
  }
}

TEST_F(DiskTierTest, FindsEverythingAgainAfterARestart) {
  std::vector<TestBlock> blocks;
  for (int i = 0; i < 100; ++i) blocks.emplace_back(i, 1 + i % 5);
  Reopen();
  for (const TestBlock& block : blocks) ASSERT_TRUE(tier_->Write(block.view(), 3).value());
  tier_->Drop(blocks[7].key());
  const DiskTierStats before = tier_->Stats();
  DiskTier& tier = Reopen();
  const DiskTierStats after = tier.Stats();
  EXPECT_EQ(after.blocks, 99u);
  EXPECT_EQ(after.used_bytes, before.used_bytes);
  EXPECT_EQ(after.segment_bytes, before.segment_bytes);
  EXPECT_EQ(after.dropped_at_start_total, 0u);
  EXPECT_EQ(after.index_resets_total, 0u);
  std::vector<ChunkKey> keys;
  tier.ForEach([&](const ChunkKey& key, const DiskTier::Entry& entry) {
    EXPECT_EQ(entry.recompile_cost_us, 3);
    keys.push_back(key);
  });
  EXPECT_EQ(keys.size(), 99u);
  for (const TestBlock& block : blocks) {
    EXPECT_EQ(ReadAndCompare(tier, block).ok(), block.key() != blocks[7].key());
  }
  // The oldest goes first, as before the restart: the policy was told in the order of writing.
  std::vector<ChunkKey> victims;
  Reopen();
  policy_->VisitVictims([&](const ChunkKey& key) {
    victims.push_back(key);
    return victims.size() == 2;
  });
  EXPECT_EQ(victims, (std::vector<ChunkKey>{blocks[0].key(), blocks[1].key()}));
}

TEST_F(DiskTierTest, OneOwnerAtATime) {
  Reopen();
  const absl::Status second = DiskTier::Open(Options(), std::make_unique<TestLruPolicy>()).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.message()), HasSubstr("belongs to a running instance"));
  tier_.reset();
  EXPECT_TRUE(DiskTier::Open(Options(), std::make_unique<TestLruPolicy>()).ok());
}

TEST_F(DiskTierTest, StaysWithinItsCapacityWhileItEvicts) {
  const size_t capacity_bytes = 4 * kMiB;
  Reopen(Options(capacity_bytes));
  std::vector<ChunkKey> removed;
  tier_->SetRemovalObserver([&](const ChunkKey& key) { removed.push_back(key); });
  std::vector<ChunkKey> written;
  for (int i = 0; i < 3000; ++i) {
    const TestBlock block(i, 1 + i * 7 % 23, 32);
    ASSERT_TRUE(tier_->Write(block.view(), 1).value()) << i;
    written.push_back(block.key());
    if (i % 250 == 0) {
      ASSERT_LE(BytesOnDisk(), capacity_bytes);
    }
    ASSERT_TRUE(tier_->Find(block.key()).has_value());
  }
  EXPECT_LE(BytesOnDisk(), capacity_bytes);
  const DiskTierStats stats = tier_->Stats();
  EXPECT_EQ(stats.evictions_total, removed.size());
  EXPECT_EQ(stats.blocks + removed.size(), written.size());
  EXPECT_GT(static_cast<double>(stats.used_bytes), 0.7 * static_cast<double>(stats.segment_bytes));
  for (const ChunkKey& key : removed) EXPECT_FALSE(tier_->Find(key).has_value());
  // By recency, so the first quarter is gone whole.
  removed.resize(std::min(removed.size(), written.size()));
  std::sort(removed.begin(), removed.end());
  for (size_t i = 0; i < written.size() / 4; ++i) {
    EXPECT_TRUE(std::binary_search(removed.begin(), removed.end(), written[i]));
  }
  const size_t blocks = stats.blocks;
  EXPECT_EQ(Reopen(Options(capacity_bytes)).Stats().blocks, blocks);
  EXPECT_EQ(tier_->VerifyAll([](const VerifyProgress&) { return true; })->faults.size(), 0u);
}

TEST_F(DiskTierTest, AReadKeepsABlockFromEviction) {
  const DiskTierOptions options = Options(4 * kMiB);
  DiskTier& tier = Reopen(options);
  const TestBlock kept(0, 8, 320);
  ASSERT_TRUE(tier.Write(kept.view(), 1).value());
  tier.SetEvictionFilter([&](const ChunkKey& key) { return key != kept.key(); });
  for (int i = 1; i < 40; ++i) ASSERT_TRUE(tier.Write(TestBlock(i, 8, 320).view(), 1).value());
  EXPECT_GT(tier.Stats().evictions_total, 0u);
  EXPECT_TRUE(ReadAndCompare(tier, kept).ok());
  tier.SetEvictionFilter([](const ChunkKey&) { return false; });
  const absl::Status refused = tier.Write(TestBlock(99, 8, 320).view(), 1).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr(std::to_string(options.capacity_bytes)));
  EXPECT_FALSE(tier.Find(TestBlock(99, 8, 320).key()).has_value());
}

TEST_F(DiskTierTest, ThePolicyRefusesWhatIsNotWorthAPlace) {
  DiskTier& tier = Reopen(Options(4 * kMiB));
  policy_->admits = false;
  int written = 0;
  absl::Status status;
  while (status.ok()) status = tier.Write(TestBlock(written++, 8, 320).view(), 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("policy"));
  EXPECT_GE(tier.Stats().blocks, 10u) << "where there is room nobody asks the policy";
  EXPECT_EQ(tier.Stats().evictions_total, 0u);
  tier.NoteMiss(TestBlock(0).key());
  EXPECT_EQ(policy_->misses, 1);
}

TEST_F(DiskTierTest, MakesOneSegmentLargerForALargeBlockAndRefusesOneThatNeverFits) {
  DiskTier& tier = Reopen(Options(8 * kMiB));
  const TestBlock large(1, 32, 512);
  ASSERT_GT(large.bytes().size(), 2 * kMiB);
  EXPECT_TRUE(tier.Write(large.view(), 1).value());
  EXPECT_TRUE(ReadAndCompare(tier, large).ok());
  const absl::Status refused = tier.Write(TestBlock(2, 100, 1024).view(), 1).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(ReadAndCompare(tier, large).ok()) << "nothing was evicted in vain";
}

TEST_F(DiskTierTest, ABitFlipAnywhereInABlockDropsIt) {
  const TestBlock block(1, 8, 64);
  const TestBlock neighbour(2, 8, 64);
  const size_t header_bytes = block.view().header_bytes();
  for (const size_t offset : {size_t{0}, size_t{100}, header_bytes - 1, header_bytes, block.bytes().size() - 1}) {
    DiskTier& tier = Reopen();
    ASSERT_TRUE(tier.Write(block.view(), 1).ok());
    ASSERT_TRUE(tier.Write(neighbour.view(), 1).ok());
    const auto [path, at] = Locate(block);
    FlipByte(path, at + offset);
    EXPECT_EQ(ReadAndCompare(tier, block).code(), absl::StatusCode::kDataLoss) << offset;
    EXPECT_EQ(tier.Stats().checksum_failures_total, 1u);
    EXPECT_FALSE(tier.Find(block.key()).has_value());
    EXPECT_TRUE(ReadAndCompare(tier, neighbour).ok());
    EXPECT_FALSE(Reopen().Find(block.key()).has_value()) << "it stays forgotten";
    EXPECT_TRUE(tier_->Write(block.view(), 1).value());
    EXPECT_TRUE(ReadAndCompare(*tier_, block).ok());
  }
}

TEST_F(DiskTierTest, ASoundBlockInTheWrongPlaceIsNotTaken) {
  DiskTier& tier = Reopen();
  const TestBlock block(1);
  const TestBlock other(2);
  const TestBlock other_edition(1, 2, 32, /*first_bits=*/77);
  for (const TestBlock* foreign : {&other, &other_edition}) {
    ASSERT_TRUE(tier.Write(block.view(), 1).value());
    const auto [path, at] = Locate(block);
    ASSERT_EQ(foreign->bytes().size(), block.bytes().size());
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(at));
    file.write(reinterpret_cast<const char*>(foreign->bytes().data()),
               static_cast<std::streamsize>(foreign->bytes().size()));
    file.close();
    EXPECT_EQ(ReadAndCompare(tier, block).code(), absl::StatusCode::kDataLoss);
    EXPECT_FALSE(tier.Find(block.key()).has_value());
  }
  EXPECT_EQ(tier.Stats().checksum_failures_total, 2u);
}

TEST_F(DiskTierTest, ForgetsWhatLayInATruncatedOrMissingSegment) {
  std::vector<TestBlock> blocks;
  for (int i = 0; i < 60; ++i) blocks.emplace_back(i, 8, 96);
  Reopen();
  for (const TestBlock& block : blocks) ASSERT_TRUE(tier_->Write(block.view(), 1).value());
  ASSERT_GE(tier_->Stats().segment_bytes, 4 * kMiB);
  tier_.reset();
  fs::resize_file(SegmentPath(1), kMiB / 2 + 5);
  fs::remove(SegmentPath(2));
  fs::resize_file(SegmentPath(3), 0);
  DiskTier& tier = Reopen();
  const DiskTierStats stats = tier.Stats();
  EXPECT_EQ(stats.blocks + stats.dropped_at_start_total, blocks.size());
  EXPECT_GT(stats.blocks, 10u);
  EXPECT_GT(stats.dropped_at_start_total, 10u);
  size_t readable = 0;
  for (const TestBlock& block : blocks) readable += ReadAndCompare(tier, block).ok() ? 1 : 0;
  EXPECT_EQ(readable, stats.blocks);
  EXPECT_EQ(tier.Stats().checksum_failures_total, 0u);
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(tier.Write(TestBlock(100 + i, 8, 96).view(), 1).ok());
  EXPECT_LE(BytesOnDisk(), Options().capacity_bytes);
  EXPECT_EQ(Reopen().Stats().dropped_at_start_total, 0u) << "they are forgotten for good";
}

TEST_F(DiskTierTest, ASegmentThatIsCutShortWhileItIsOpenIsNoticed) {
  DiskTier& tier = Reopen();
  const TestBlock block(1, 8, 96);
  ASSERT_TRUE(tier.Write(block.view(), 1).value());
  fs::resize_file(SegmentPath(1), 8192);
  EXPECT_EQ(ReadAndCompare(tier, block).code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(tier.Find(block.key()).has_value());
}

TEST_F(DiskTierTest, ADamagedIndexIsThrownAwayWhole) {
  Reopen();
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(tier_->Write(TestBlock(i).view(), 1).value());
  tier_.reset();
  const std::string index = Options().folder + "/index";
  for (const char* start : {"MANIFEST-", "CURRENT"}) {
    for (const auto& file : fs::directory_iterator(index)) {
      if (std::string(file.path().filename()).starts_with(start)) FlipByte(file.path(), 5);
    }
    DiskTier& tier = Reopen();
    EXPECT_EQ(tier.Stats().blocks, 0u);
    EXPECT_EQ(tier.Stats().index_resets_total, 1u);
    for (int i = 0; i < 50; ++i) ASSERT_TRUE(tier.Write(TestBlock(i).view(), 1).value());
    EXPECT_TRUE(ReadAndCompare(tier, TestBlock(3)).ok());
    EXPECT_LE(BytesOnDisk(), Options().capacity_bytes);
    tier_.reset();
  }
}

TEST_F(DiskTierTest, NoBitFlipInTheIndexYieldsAWrongByte) {
  Reopen();
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(tier_->Write(TestBlock(i).view(), 1).value());
  tier_.reset();
  // What the log holds goes into a table with this.
  Reopen();
  for (int i = 50; i < 60; ++i) ASSERT_TRUE(tier_->Write(TestBlock(i).view(), 1).value());
  tier_.reset();
  const TemporaryFolder copy;
  const std::string intact = copy.path() + "/intact";
  fs::copy(Options().folder, intact, fs::copy_options::recursive);
  std::vector<std::pair<std::string, size_t>> files;
  for (const auto& file : fs::directory_iterator(intact + "/index")) {
    files.emplace_back(file.path().filename(), file.file_size());
  }
  for (const auto& [name, bytes] : files) {
    for (int step = 0; step < 4 && bytes > 0; ++step) {
      fs::remove_all(Options().folder);
      fs::copy(intact, Options().folder, fs::copy_options::recursive);
      FlipByte(fs::path(Options().folder) / "index" / name, bytes * static_cast<size_t>(step) / 4);
      DiskTier& tier = Reopen();
      for (int i = 0; i < 60; ++i) {
        const absl::Status read = ReadAndCompare(tier, TestBlock(i));
        EXPECT_TRUE(read.ok() || absl::IsNotFound(read) || absl::IsDataLoss(read)) << read;
      }
      EXPECT_TRUE(tier.Write(TestBlock(1000).view(), 1).value()) << name;
      EXPECT_TRUE(ReadAndCompare(tier, TestBlock(1000)).ok());
    }
  }
}

TEST_F(DiskTierTest, RefusesANewerFormatAndReplacesADamagedOne) {
  const TestBlock block(1);
  Reopen();
  ASSERT_TRUE(tier_->Write(block.view(), 1).value());
  tier_.reset();
  const std::string path = Options().folder + "/FORMAT";
  std::string ours;
  std::getline(std::ifstream(path), ours);
  EXPECT_THAT(ours, testing::StartsWith("epic-disk-tier 1 "));
  // What version 2 would write: the words' XXH3-64 stands behind them.
  std::ofstream(path) << "epic-disk-tier 2 ddee7fbc82fd0c65\n";
  const absl::Status refused = DiskTier::Open(Options(), std::make_unique<TestLruPolicy>()).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("format version 2"));
  EXPECT_TRUE(fs::exists(SegmentPath(1)));

  std::ofstream(path) << ours << "\n";
  EXPECT_TRUE(ReadAndCompare(Reopen(), block).ok()) << "nothing was touched";
  FlipByte(path, 15);
  EXPECT_EQ(Reopen().Stats().blocks, 0u);
  EXPECT_TRUE(tier_->Write(block.view(), 1).value());
  EXPECT_TRUE(ReadAndCompare(Reopen(), block).ok());
}

TEST_F(DiskTierTest, AFailingDiskCostsTheBlockAndNothingElse) {
  DiskTier& tier = Reopen();
  const TestBlock block(1);
  ASSERT_TRUE(tier.Write(block.view(), 1).value());
  // The segment's descriptor is turned into one that may only be written, and then into one that may only be read.
  int descriptor = -1;
  for (const auto& link : fs::directory_iterator("/proc/self/fd")) {
    std::error_code error;
    if (fs::read_symlink(link.path(), error) == SegmentPath(1)) descriptor = std::stoi(link.path().filename());
  }
  ASSERT_GE(descriptor, 0);
  const auto reopen_as = [&](int flags) {
    const int other = open(SegmentPath(1).c_str(), flags | O_CLOEXEC);
    ASSERT_GE(other, 0);
    ASSERT_EQ(dup2(other, descriptor), descriptor);
    close(other);
  };
  reopen_as(O_WRONLY);
  EXPECT_EQ(ReadAndCompare(tier, block).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(tier.Stats().read_errors_total, 1u);
  EXPECT_FALSE(tier.Find(block.key()).has_value());
  reopen_as(O_RDONLY);
  EXPECT_EQ(tier.Write(block.view(), 1).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(tier.Stats().write_errors_total, 1u);
  EXPECT_EQ(tier.Stats().used_bytes, 0u);
  reopen_as(O_RDWR);
  EXPECT_TRUE(tier.Write(block.view(), 1).value());
  EXPECT_TRUE(ReadAndCompare(tier, block).ok());
}

TEST_F(DiskTierTest, AnIndexThatCannotBeWrittenIsOpenedAnew) {
  DiskTier& tier = Reopen();
  const TestBlock before(1);
  ASSERT_TRUE(tier.Write(before.view(), 1).value());
  for (const char* device : {"/dev/full", "/proc/self/exe"}) {
    // The log's descriptor is turned into one that cannot be written.
    int descriptor = -1;
    for (const auto& link : fs::directory_iterator("/proc/self/fd")) {
      std::error_code error;
      const fs::path target = fs::read_symlink(link.path(), error);
      if (target.extension() == ".log" && target.parent_path() == fs::path(Options().folder) / "index") {
        descriptor = std::stoi(link.path().filename());
      }
    }
    ASSERT_GE(descriptor, 0);
    const bool is_full = std::string(device) == "/dev/full";
    const int other = open(device, (is_full ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
    ASSERT_EQ(dup2(other, descriptor), descriptor);
    close(other);
    const TestBlock block(is_full ? 2 : 3);
    EXPECT_EQ(tier.Write(block.view(), 1).status().code(),
              is_full ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kUnavailable);
    EXPECT_FALSE(tier.Find(block.key()).has_value());
    EXPECT_TRUE(tier.Write(block.view(), 1).value());
  }
  Reopen();
  for (int i = 1; i <= 3; ++i) EXPECT_TRUE(ReadAndCompare(*tier_, TestBlock(i)).ok()) << i;
}

TEST_F(DiskTierTest, ASmallerCapacityLetsSegmentsGo) {
  Reopen(Options(16 * kMiB));
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(tier_->Write(TestBlock(i, 8, 256).view(), 1).value());
  ASSERT_GT(tier_->Stats().segment_bytes, 10 * kMiB);
  DiskTier& tier = Reopen(Options(4 * kMiB));
  EXPECT_LE(tier.Stats().segment_bytes, 4 * kMiB);
  EXPECT_GT(tier.Stats().blocks, 5u);
  EXPECT_LE(BytesOnDisk(), 4 * kMiB);
  EXPECT_TRUE(tier.Write(TestBlock(500, 8, 256).view(), 1).value());
}

TEST_F(DiskTierTest, VerifyAllDropsWhatIsNotSoundAndCanBeStopped) {
  DiskTier& tier = Reopen();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(tier.Write(TestBlock(i).view(), 1).value());
  const auto [path, at] = Locate(TestBlock(4));
  FlipByte(path, at + 3000);
  const auto verified = tier.VerifyAll([](const VerifyProgress&) { return true; });
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_EQ(verified->blocks_total, 10u);
  EXPECT_EQ(verified->blocks_done, 10u);
  EXPECT_EQ(verified->faults.size(), 1u);
  EXPECT_FALSE(tier.Find(TestBlock(4).key()).has_value());
  const absl::Status stopped = tier.VerifyAll([](const VerifyProgress& done) { return done.blocks_done < 3; }).status();
  EXPECT_EQ(stopped.code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(std::string(stopped.message()), HasSubstr("3 of 9"));
}

TEST_F(DiskTierTest, AnEmptyTierOfManySmallBlocksOpensAgain) {
  Reopen(Options(64 * kMiB));
  for (int i = 0; i < 2000; ++i) ASSERT_TRUE(tier_->Write(TestBlock(i, 1, 1).view(), 1).value());
  for (int i = 0; i < 2000; i += 2) tier_->Drop(TestBlock(i, 1, 1).key());
  const DiskTierStats before = tier_->Stats();
  const DiskTierStats after = Reopen(Options(64 * kMiB)).Stats();
  EXPECT_EQ(after.blocks, 1000u);
  EXPECT_EQ(after.used_bytes, before.used_bytes);
  // The gaps are free again.
  for (int i = 0; i < 2000; i += 2) ASSERT_TRUE(tier_->Write(TestBlock(i, 1, 1).view(), 1).value());
  EXPECT_EQ(tier_->Stats().segment_bytes, before.segment_bytes);
}

TEST_F(DiskTierTest, OpensAHundredThousandBlocks) {
  constexpr size_t kCount = 100'000;
  DiskTierOptions options = Options(1024 * kMiB);
  options.segment_bytes = 512 * kMiB;
  Reopen(options);
  ASSERT_TRUE(tier_->Write(TestBlock(1).view(), 1).value());
  tier_.reset();
  {
    // As if they had been written: reading 400 MB would not make this a better test.
    auto contents = DiskIndex::Open(options.folder + "/index", kMiB).value();
    for (size_t i = 0; i < kCount; ++i) {
      ChunkKey key;
      std::copy_n(reinterpret_cast<const uint8_t*>(&i), sizeof(i), key.bytes.begin());
      const DiskIndexEntry entry{.segment = 1, .offset = (i + 10) * 4096, .block_bytes = 4000, .sequence = i + 10};
      ASSERT_TRUE(contents.index->Put(key, entry).ok());
    }
  }
  const DiskTierStats stats = Reopen(options).Stats();
  EXPECT_EQ(stats.blocks, kCount + 1);
  EXPECT_EQ(stats.dropped_at_start_total, 0u);
  size_t index_bytes = 0;
  for (const auto& file : fs::directory_iterator(options.folder + "/index")) index_bytes += file.file_size();
  EXPECT_LE(index_bytes, stats.index_bytes_max);
}

// A file system of its own that is too small for the tier.
class SmallFileSystem {
 public:
  SmallFileSystem(const std::string& path, size_t bytes) : path_(path) {
    fs::create_directories(path);
    mounted_ = mount("tmpfs", path.c_str(), "tmpfs", 0, fmt::format("size={}", bytes).c_str()) == 0;
  }
  ~SmallFileSystem() {
    if (mounted_) umount2(path_.c_str(), MNT_DETACH);
  }
  SmallFileSystem(const SmallFileSystem&) = delete;
  SmallFileSystem& operator=(const SmallFileSystem&) = delete;
  bool mounted() const { return mounted_; }

 private:
  const std::string path_;
  bool mounted_ = false;
};

TEST_F(DiskTierTest, StopsGrowingWhereTheDiskIsFullAndGoesOnByEvicting) {
  const SmallFileSystem small(Options().folder, 4 * kMiB);
  if (!small.mounted()) GTEST_SKIP() << "needs the right to mount a tmpfs";
  DiskTierOptions options = Options(8 * kMiB);
  options.free_bytes_min = kMiB;
  DiskTier& tier = Reopen(options);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(tier.Write(TestBlock(i, 8, 256).view(), 1).value()) << i;
  const DiskTierStats stats = tier.Stats();
  EXPECT_GT(stats.no_space_total, 0u);
  EXPECT_GT(stats.evictions_total, 0u);
  EXPECT_GE(stats.segment_bytes, kMiB);
  struct statvfs attributes = {};
  ASSERT_EQ(statvfs(options.folder.c_str(), &attributes), 0);
  EXPECT_GE(attributes.f_bavail * attributes.f_frsize, kMiB / 2) << "the index takes what is not the segments'";
  EXPECT_TRUE(ReadAndCompare(tier, TestBlock(99, 8, 256)).ok());

  // Somebody else fills the rest: the index can no longer be written.
  {
    std::ofstream rest(options.folder + "/somebody-elses");
    const std::string zeros(4096, '\0');
    while (rest.write(zeros.data(), static_cast<std::streamsize>(zeros.size())).flush()) {
    }
  }
  int refused = 0;
  for (int i = 200; i < 3000; ++i) {
    const absl::StatusOr<bool> written = tier.Write(TestBlock(i, 1, 1).view(), 1);
    if (written.ok()) continue;
    EXPECT_EQ(written.status().code(), absl::StatusCode::kResourceExhausted) << written.status();
    ++refused;
  }
  EXPECT_GT(refused, 0);
  fs::remove(options.folder + "/somebody-elses");
  EXPECT_TRUE(tier.Write(TestBlock(500, 8, 256).view(), 1).value()) << "it recovers by itself";
  EXPECT_TRUE(ReadAndCompare(Reopen(options), TestBlock(500, 8, 256)).ok());
  tier_.reset();
}

}  // namespace
}  // namespace epic
