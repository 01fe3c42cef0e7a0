// Ranges, the conformance suite over the transports that need no network, and the injected faults.
#include "transfer/block_source.h"

#include <limits>
#include <memory>
#include <thread>
#include <utility>

#include "transfer/conformance.h"
#include "transfer/fake_block_source.h"
#include "transfer/faulty_block_source.h"
#include "transfer/in_process_block_source.h"
#include "transfer/synthetic_blocks.h"

namespace epic {
namespace {

KvBlockInfo InfoOf(const LocateQuery& query, const LocateQuery::Chunk& chunk) {
  return SyntheticBlockInfo(kSyntheticShape, query.recipe, query.tenant, chunk.token_ids);
}

std::unique_ptr<FakeBlockSource> MakeFake(bool in_place) {
  auto fake = std::make_unique<FakeBlockSource>(FakeBlockSource::Options{.address = "fake", .in_place = in_place});
  fake->SetCompile([](const LocateQuery& query, const LocateQuery::Chunk& chunk) {
    return absl::StatusOr<std::vector<std::byte>>(MakeSyntheticBlock(InfoOf(query, chunk)));
  });
  return fake;
}

class FakeHarness : public BlockSourceHarness {
 public:
  explicit FakeHarness(bool in_place) : fake_(MakeFake(in_place)) {}
  BlockSource& source() override { return *fake_; }
  KvShape shape() const override { return kSyntheticShape; }
  int64_t leases() override { return fake_->leases(); }

 private:
  const std::unique_ptr<FakeBlockSource> fake_;
};

// A decorator without faults changes nothing.
class FaultlessHarness : public FakeHarness {
 public:
  FaultlessHarness() : FakeHarness(false), faulty_(&FakeHarness::source()) {}
  BlockSource& source() override { return faulty_; }

 private:
  FaultyBlockSource faulty_;
};

// A provider over the fake, so that the in-process transport has a node to stand on.
class FakeProvider : public BlockProvider {
 public:
  explicit FakeProvider(FakeBlockSource* fake) : fake_(fake) {}
  absl::StatusOr<std::vector<Located>> Locate(const LocateQuery& query, Deadline deadline) override {
    EPIC_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<LocatedBlock>> blocks, fake_->Locate(query, deadline));
    std::vector<Located> located;
    for (std::unique_ptr<LocatedBlock>& block : blocks) {
      Located one{.origin = block->origin, .view = nullptr, .compile_us = 0};
      std::shared_ptr<LocatedBlock> owner = std::move(block);
      if (owner->InPlace() != nullptr) one.view = std::shared_ptr<const KvBlockView>(owner, owner->InPlace());
      located.push_back(std::move(one));
    }
    return located;
  }

 private:
  FakeBlockSource* const fake_;
};

class InProcessHarness : public BlockSourceHarness {
 public:
  BlockSource& source() override { return source_; }
  KvShape shape() const override { return kSyntheticShape; }
  int64_t leases() override { return fake_->leases(); }

 private:
  const std::unique_ptr<FakeBlockSource> fake_ = MakeFake(true);
  FakeProvider provider_{fake_.get()};
  InProcessBlockSource source_{&provider_, "here"};
};

template <typename Harness, auto... kArguments>
std::unique_ptr<BlockSourceHarness> Make() {
  return std::make_unique<Harness>(kArguments...);
}
INSTANTIATE_TEST_SUITE_P(Fake, BlockSourceConformance, testing::Values(&Make<FakeHarness, false>));
INSTANTIATE_TEST_SUITE_P(FakeInPlace, BlockSourceConformance, testing::Values(&Make<FakeHarness, true>));
INSTANTIATE_TEST_SUITE_P(Faultless, BlockSourceConformance, testing::Values(&Make<FaultlessHarness>));
INSTANTIATE_TEST_SUITE_P(InProcess, BlockSourceConformance, testing::Values(&Make<InProcessHarness>));

const LocateQuery& OneChunk() {
  static const LocateQuery& query = *new LocateQuery(SyntheticQuery({{1, 2, 3, 4}}));
  return query;
}

Deadline Soon() { return std::chrono::steady_clock::now() + std::chrono::seconds(60); }

TEST(ResolveRange, LayerRangesWidenToWholeGroups) {
  const std::vector<std::byte> bytes = MakeSyntheticBlock(InfoOf(OneChunk(), OneChunk().chunks[0]));
  const KvBlockView block = KvBlockView::Parse(bytes).value();
  ASSERT_EQ(block.groups().size(), 3u);
  // Layers 7 and 8 lie in the first two groups of eight.
  const ByteSpan span = ResolveRange(block, {.first_layer = 7, .layer_count = 2}).value();
  EXPECT_EQ(span.begin, block.groups()[0].offset);
  EXPECT_EQ(span.end, block.groups()[1].offset + block.groups()[1].bytes);
}

TEST(ResolveRange, HostileNumbersDoNotWrapAround) {
  const std::vector<std::byte> bytes = MakeSyntheticBlock(InfoOf(OneChunk(), OneChunk().chunks[0]));
  const KvBlockView block = KvBlockView::Parse(bytes).value();
  const size_t huge = std::numeric_limits<size_t>::max();
  const int32_t most = std::numeric_limits<int32_t>::max();
  for (const BlockRange& range :
       {BlockRange{.offset = huge, .length = 2}, BlockRange{.offset = 1, .length = huge},
        BlockRange{.first_layer = 1, .layer_count = most}, BlockRange{.first_layer = most, .layer_count = most},
        BlockRange{.first_layer = 0, .layer_count = -1}}) {
    EXPECT_EQ(ResolveRange(block, range).status().code(), absl::StatusCode::kOutOfRange);
  }
}

TEST(FaultyBlockSource, CorruptsTheChosenByteOfWholeAndOfLayerReads) {
  const std::unique_ptr<FakeBlockSource> fake = MakeFake(true);
  FaultyBlockSource faulty(fake.get());
  const auto blocks = faulty.Locate(OneChunk(), Soon()).value();
  EXPECT_EQ(blocks[0]->InPlace(), nullptr);
  std::vector<std::byte> good(blocks[0]->block_bytes);
  ASSERT_TRUE(faulty.Read(*blocks[0], {}, good, Soon()).ok());
  const LayerGroup group = KvBlockView::Parse(good)->groups()[1];
  BlockFaults faults;
  faults.corrupt_byte = group.offset + 3;
  faulty.SetFaults(faults);
  std::vector<std::byte> whole(good.size());
  ASSERT_TRUE(faulty.Read(*blocks[0], {}, whole, Soon()).ok());
  EXPECT_EQ(whole[group.offset + 3], good[group.offset + 3] ^ std::byte{0xff});
  EXPECT_EQ(KvBlockView::Parse(whole)->VerifyPayload().code(), absl::StatusCode::kDataLoss);
  std::vector<std::byte> part(group.bytes);
  ASSERT_TRUE(faulty.Read(*blocks[0], {.first_layer = group.first_layer, .layer_count = 1}, part, Soon()).ok());
  EXPECT_EQ(part[3], whole[group.offset + 3]);
}

TEST(FaultyBlockSource, FailsAfterTheChosenBytes) {
  const std::unique_ptr<FakeBlockSource> fake = MakeFake(false);
  FaultyBlockSource faulty(fake.get());
  const auto blocks = faulty.Locate(OneChunk(), Soon()).value();
  BlockFaults faults;
  faults.read_fails_after_bytes = 150;
  faulty.SetFaults(faults);
  std::vector<std::byte> piece(100);
  EXPECT_TRUE(faulty.Read(*blocks[0], {.offset = 0, .length = 100}, piece, Soon()).ok());
  EXPECT_EQ(faulty.Read(*blocks[0], {.offset = 100, .length = 100}, piece, Soon()).code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(fake->bytes_read(), 100);
}

TEST(FaultyBlockSource, LosesLeasesAndEditionsAndLocates) {
  const std::unique_ptr<FakeBlockSource> fake = MakeFake(false);
  FaultyBlockSource faulty(fake.get());
  const auto blocks = faulty.Locate(OneChunk(), Soon()).value();
  std::vector<std::byte> out(8);
  faulty.SetFaults({.leases_lost = true});
  EXPECT_EQ(faulty.Read(*blocks[0], {.length = 8}, out, Soon()).code(), absl::StatusCode::kNotFound);
  faulty.SetFaults({.other_edition = true});
  EXPECT_EQ(faulty.Read(*blocks[0], {.length = 8}, out, Soon()).code(), absl::StatusCode::kFailedPrecondition);
  faulty.SetFaults({.locate_error = absl::UnavailableError("gone")});
  EXPECT_EQ(faulty.Locate(OneChunk(), Soon()).status().code(), absl::StatusCode::kUnavailable);
}

TEST(FaultyBlockSource, HoldsReadsUntilLetGoOrTheirDeadline) {
  const std::unique_ptr<FakeBlockSource> fake = MakeFake(false);
  FaultyBlockSource faulty(fake.get());
  const auto blocks = faulty.Locate(OneChunk(), Soon()).value();
  faulty.SetFaults({.hold_reads = true});
  std::vector<std::byte> out(8);
  EXPECT_EQ(faulty.Read(*blocks[0], {.length = 8}, out, std::chrono::steady_clock::now()).code(),
            absl::StatusCode::kDeadlineExceeded);
  absl::Status status = absl::UnknownError("not read");
  std::thread reader([&] { status = faulty.Read(*blocks[0], {.length = 8}, out, Soon()); });
  faulty.WaitForHeldCalls(1);
  EXPECT_EQ(fake->read_calls(), 0);
  faulty.SetFaults({});
  reader.join();
  EXPECT_TRUE(status.ok()) << status;
}

TEST(FakeBlockSource, EndedLeasesCannotBeRead) {
  const std::unique_ptr<FakeBlockSource> fake = MakeFake(false);
  const auto blocks = fake->Locate(OneChunk(), Soon()).value();
  fake->EndLeases();
  std::vector<std::byte> out(8);
  EXPECT_EQ(fake->Read(*blocks[0], {.length = 8}, out, Soon()).code(), absl::StatusCode::kNotFound);
  const auto again = fake->Locate(OneChunk(), Soon()).value();
  EXPECT_TRUE(fake->Read(*again[0], {.length = 8}, out, Soon()).ok());
}

TEST(FakeBlockSource, RemovedBlocksStayReadableUnderTheirLease) {
  const std::unique_ptr<FakeBlockSource> fake = MakeFake(true);
  const auto blocks = fake->Locate(OneChunk(), Soon()).value();
  fake->Remove(OneChunk().chunks[0].key);
  EXPECT_TRUE(blocks[0]->InPlace()->VerifyPayload().ok());
  LocateQuery query = OneChunk();
  query.compile_missing = false;
  EXPECT_EQ(fake->Locate(query, Soon()).value()[0]->origin, BlockOrigin::kAbsent);
}

}  // namespace
}  // namespace epic
