// What every BlockSource must do, as one suite of tests that each transport is run through.
//
//     class MyHarness : public BlockSourceHarness {...};
//     INSTANTIATE_TEST_SUITE_P(MyTransport, BlockSourceConformance, testing::Values(&MakeMyHarness));
//
// The harness gives a source whose node can make any chunk of the synthetic model by the recipe "plain", tenant
// "default".
#ifndef EPIC_TRANSFER_CONFORMANCE_H_
#define EPIC_TRANSFER_CONFORMANCE_H_

#include <chrono>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "transfer/block_source.h"
#include "transfer/synthetic_blocks.h"

namespace epic {

class BlockSourceHarness {
 public:
  virtual ~BlockSourceHarness() = default;
  virtual BlockSource& source() = 0;
  virtual KvShape shape() const = 0;
  // Leases on the node's side that are alive now.
  virtual int64_t leases() = 0;
};

class BlockSourceConformance : public testing::TestWithParam<std::unique_ptr<BlockSourceHarness> (*)()> {
 protected:
  using Blocks = std::vector<std::unique_ptr<LocatedBlock>>;

  // Far enough that only a call that hangs meets it.
  static Deadline Soon() { return std::chrono::steady_clock::now() + std::chrono::seconds(60); }
  static std::vector<int32_t> Tokens(int32_t first, int32_t count) {
    std::vector<int32_t> ids(count);
    std::iota(ids.begin(), ids.end(), first);
    return ids;
  }
  KvBlockInfo Info(const std::vector<int32_t>& tokens) const {
    return SyntheticBlockInfo(harness_->shape(), Recipe{.id = "plain", .prefix_tokens = {}}, "default", tokens);
  }
  Blocks LocateOrDie(const LocateQuery& query) {
    absl::StatusOr<Blocks> blocks = source().Locate(query, Soon());
    EXPECT_TRUE(blocks.ok()) << blocks.status();
    return blocks.ok() ? *std::move(blocks) : Blocks{};
  }
  absl::StatusOr<std::vector<std::byte>> Read(const LocatedBlock& block, const BlockRange& range, size_t bytes) {
    std::vector<std::byte> out(bytes);
    EPIC_RETURN_IF_ERROR(source().Read(block, range, out, Soon()));
    return out;
  }
  BlockSource& source() { return harness_->source(); }

  const std::unique_ptr<BlockSourceHarness> harness_ = GetParam()();
};

TEST_P(BlockSourceConformance, CompilesWhatIsMissingOnceAndThenHoldsIt) {
  const LocateQuery query = SyntheticQuery({Tokens(1, 32), Tokens(100, 40)});
  Blocks first = LocateOrDie(query);
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(first[0]->origin, BlockOrigin::kCompiled);
  EXPECT_EQ(first[1]->origin, BlockOrigin::kCompiled);
  Blocks second = LocateOrDie(query);
  ASSERT_EQ(second.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(second[i]->origin, BlockOrigin::kHeld);
    EXPECT_EQ(second[i]->edition, first[i]->edition);
    EXPECT_EQ(second[i]->block_bytes, KvBlockBytes(Info(query.chunks[i].token_ids)));
  }
}

TEST_P(BlockSourceConformance, AnAbsentChunkIsNoErrorAndCannotBeRead) {
  LocateQuery query = SyntheticQuery({Tokens(1, 32), Tokens(500, 32)});
  const Blocks held = LocateOrDie(SyntheticQuery({Tokens(1, 32)}));
  query.compile_missing = false;
  const Blocks blocks = LocateOrDie(query);
  ASSERT_EQ(blocks.size(), 2u);
  EXPECT_EQ(blocks[0]->origin, BlockOrigin::kHeld);
  EXPECT_EQ(blocks[1]->origin, BlockOrigin::kAbsent);
  EXPECT_EQ(blocks[1]->InPlace(), nullptr);
  EXPECT_EQ(blocks[1]->block_bytes, 0u);
  EXPECT_EQ(Read(*blocks[1], {}, 64).status().code(), absl::StatusCode::kNotFound);
}

TEST_P(BlockSourceConformance, TheSameChunkTwiceIsOneBlockTwice) {
  const Blocks blocks = LocateOrDie(SyntheticQuery({Tokens(7, 32), Tokens(9, 32), Tokens(7, 32)}));
  ASSERT_EQ(blocks.size(), 3u);
  EXPECT_EQ(blocks[0]->edition, blocks[2]->edition);
  EXPECT_NE(blocks[0]->edition, blocks[1]->edition);
}

TEST_P(BlockSourceConformance, WholeBlockArrivesByteForByte) {
  const Blocks blocks = LocateOrDie(SyntheticQuery({Tokens(3, 45)}));
  ASSERT_EQ(blocks.size(), 1u);
  const std::vector<std::byte> expected = MakeSyntheticBlock(Info(Tokens(3, 45)));
  const absl::StatusOr<std::vector<std::byte>> got = Read(*blocks[0], {}, expected.size());
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_TRUE(*got == expected);
  const absl::StatusOr<KvBlockView> view = KvBlockView::Parse(*got);
  ASSERT_TRUE(view.ok()) << view.status();
  EXPECT_EQ(view->edition(), blocks[0]->edition);
  EXPECT_TRUE(view->VerifyPayload().ok());
  if (blocks[0]->InPlace() != nullptr) {
    const std::span<const std::byte> in_place = blocks[0]->InPlace()->bytes();
    EXPECT_TRUE(std::equal(in_place.begin(), in_place.end(), expected.begin(), expected.end()));
  }
}

TEST_P(BlockSourceConformance, RangesOfBytesAndOfLayersAreThoseOfTheBlock) {
  const Blocks blocks = LocateOrDie(SyntheticQuery({Tokens(11, 32)}));
  ASSERT_EQ(blocks.size(), 1u);
  const std::vector<std::byte> expected = MakeSyntheticBlock(Info(Tokens(11, 32)));
  const absl::StatusOr<KvBlockView> view = KvBlockView::Parse(expected);
  ASSERT_TRUE(view.ok());
  const LayerGroup& last = view->groups().back();
  const auto check = [&](const BlockRange& range, size_t begin, size_t end) {
    const absl::StatusOr<std::vector<std::byte>> got = Read(*blocks[0], range, end - begin);
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(std::memcmp(got->data(), expected.data() + begin, end - begin), 0) << begin << " " << end;
  };
  check({.offset = 5, .length = 1000}, 5, 1005);
  check({.offset = 77}, 77, expected.size());
  check({.first_layer = 0, .layer_count = view->info().shape.layers}, view->groups().front().offset, expected.size());
  check({.first_layer = last.first_layer, .layer_count = 1}, last.offset, last.offset + last.bytes);
  check({.first_layer = last.first_layer, .layer_count = 1, .offset = 64, .length = 128}, last.offset + 64,
        last.offset + 192);
}

TEST_P(BlockSourceConformance, RangesOutsideTheBlockAreRefused) {
  const Blocks blocks = LocateOrDie(SyntheticQuery({Tokens(11, 32)}));
  ASSERT_EQ(blocks.size(), 1u);
  const size_t size = blocks[0]->block_bytes;
  const int32_t layers = harness_->shape().layers;
  EXPECT_EQ(Read(*blocks[0], {.offset = size + 1, .length = 1}, 1).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(Read(*blocks[0], {.offset = size - 1, .length = 2}, 2).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(Read(*blocks[0], {.first_layer = layers, .layer_count = 1}, 64).status().code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(Read(*blocks[0], {.first_layer = -1, .layer_count = 1}, 64).status().code(), absl::StatusCode::kOutOfRange);
  // The buffer must be as long as the range.
  EXPECT_EQ(Read(*blocks[0], {.offset = 0, .length = 100}, 99).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(Read(*blocks[0], {.offset = 0, .length = 100}, 101).status().code(), absl::StatusCode::kOutOfRange);
}

TEST_P(BlockSourceConformance, ADeadlineInThePastIsRefusedAtOnce) {
  const Deadline past = std::chrono::steady_clock::now() - std::chrono::seconds(1);
  EXPECT_EQ(source().Locate(SyntheticQuery({Tokens(1, 32)}), past).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  const Blocks blocks = LocateOrDie(SyntheticQuery({Tokens(1, 32)}));
  ASSERT_EQ(blocks.size(), 1u);
  std::vector<std::byte> out(64);
  EXPECT_EQ(source().Read(*blocks[0], {.offset = 0, .length = 64}, out, past).code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_P(BlockSourceConformance, LeasesEndWithTheirBlocks) {
  Blocks blocks = LocateOrDie(SyntheticQuery({Tokens(1, 32), Tokens(50, 32)}));
  ASSERT_EQ(blocks.size(), 2u);
  EXPECT_EQ(harness_->leases(), 2);
  blocks.clear();
  // A transport may release behind the reader's back; what hangs runs into the test's own time limit.
  while (harness_->leases() != 0) std::this_thread::yield();
}

TEST_P(BlockSourceConformance, NoChunksIsAnEmptyAnswer) { EXPECT_TRUE(LocateOrDie(SyntheticQuery({})).empty()); }

}  // namespace epic

#endif  // EPIC_TRANSFER_CONFORMANCE_H_
