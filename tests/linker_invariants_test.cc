// What must hold between linkers, whatever the model computes (docs/linking.md, "Exactness"). Chunk KV is read-only
// memory here.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "tests/engine_harness.h"

namespace epic::testing {
namespace {

// Rounding: rows that go through the same arithmetic in another order of pieces differ by less than this; a wrong
// offset, mask or rotation moves this model's logits by more than 0.5.
constexpr double kRounding = 0.15;

class LinkerInvariantsTest : public ::testing::Test {
 protected:
  LinkerInvariantsTest() : engine_(SourcePath("tests/golden/tiny/tiny")) {}

  std::vector<int32_t> Tokens(int count) {
    std::vector<int32_t> ids(count);
    for (int32_t& id : ids) id = std::uniform_int_distribution<int32_t>(3, engine_.config().vocab_size - 1)(generator_);
    return ids;
  }
  PromptSegment Fresh(int count) { return {Tokens(count), false, nullptr}; }
  PromptSegment Chunk(int count) { return {Tokens(count), true, nullptr}; }
  std::vector<PromptSegment> TypicalPrompt() {
    return {Fresh(21), Chunk(130), Chunk(7), Fresh(3), Chunk(64), Chunk(95), Fresh(18)};
  }
  static void ExpectSame(const LinkResult& a, const LinkResult& b, double tolerance = kRounding) {
    EXPECT_LE(Difference(a.logits, b.logits).max_abs, tolerance);
  }

  std::mt19937 generator_{7};
  EngineHarness engine_;
};

TEST_F(LinkerInvariantsTest, LegoLinkWithWholeChunksIsFullRecompute) {
  const auto prompt = TypicalPrompt();
  const LinkResult full = engine_.Link(prompt, "full");
  const LinkResult linked = engine_.Link(prompt, "legolink:130");
  EXPECT_EQ(linked.selected, full.selected);
  ExpectSame(linked, full, 0);
}

TEST_F(LinkerInvariantsTest, LinkersReallyDiffer) {
  const auto prompt = TypicalPrompt();
  const LinkResult full = engine_.Link(prompt, "full");
  for (const char* linker : {"naive", "naive-last", "cacheblend:15", "legolink:1", "legolink:16"}) {
    EXPECT_GT(Difference(engine_.Link(prompt, linker).logits, full.logits).max_abs, kRounding) << linker;
  }
}

TEST_F(LinkerInvariantsTest, AChunkAloneAtTheStartIsExact) {
  const std::vector<PromptSegment> prompt = {Chunk(200), Fresh(24)};
  const LinkResult full = engine_.Link(prompt, "full");
  for (const char* linker : {"naive", "legolink:1", "legolink:16"}) {
    const LinkResult linked = engine_.Link(prompt, linker);
    EXPECT_EQ(linked.selected.size(), 24u) << linker;
    ExpectSame(linked, full);
  }
}

// The proof of the counter-rotation: KV that is right, used at another position than it was compiled at.
TEST_F(LinkerInvariantsTest, AChunkCompiledBehindItsContextAndMovedIsExact) {
  const PromptSegment context = Fresh(40);
  const std::vector<PromptSegment> prompt = {context, Chunk(220), Fresh(30)};
  const Recipe recipe{"behind-context", context.token_ids};
  const LinkResult full = engine_.Link(prompt, "full");
  for (const int32_t moved : {0, 1, 17, 1000, 5000}) {
    const LinkResult linked = engine_.Link(prompt, "naive", recipe, moved);
    EXPECT_EQ(linked.selected.size(), 70u);
    ExpectSame(linked, full);
  }
}

TEST_F(LinkerInvariantsTest, MovingThePromptChangesNothing) {
  const auto prompt = TypicalPrompt();
  for (const char* linker : {"full", "naive", "naive-last", "cacheblend:15", "legolink:1", "legolink:16"}) {
    ExpectSame(engine_.Link(prompt, linker), engine_.Link(prompt, linker, {"plain", {}}, 5000));
  }
}

TEST_F(LinkerInvariantsTest, PiecesDoNotChangeABit) {
  const auto prompt = TypicalPrompt();
  for (const char* linker : {"full", "naive", "naive-last", "cacheblend:15", "legolink:16"}) {
    const LinkResult whole = engine_.Link(prompt, linker, {"plain", {}}, 0, 4096);
    for (const int32_t piece : {1, 7, 64}) {
      ExpectSame(engine_.Link(prompt, linker, {"plain", {}}, 0, piece), whole, 0);
    }
  }
}

TEST_F(LinkerInvariantsTest, BeginningOfSequenceBehindWhichAChunkWasCompiledLeavesItExact) {
  const PromptSegment start{{1}, false, nullptr};
  const std::vector<PromptSegment> prompt = {start, Chunk(150), Fresh(20)};
  const LinkResult linked = engine_.Link(prompt, "legolink:16", {"plain", start.token_ids});
  EXPECT_EQ(linked.selected.size(), 21u);
  ExpectSame(linked, engine_.Link(prompt, "full"));
}

TEST_F(LinkerInvariantsTest, CacheBlendOfEverythingIsFullRecompute) {
  const auto prompt = TypicalPrompt();
  ExpectSame(engine_.Link(prompt, "cacheblend:100"), engine_.Link(prompt, "full"));
}

TEST_F(LinkerInvariantsTest, APromptThatEndsInAChunkRunsItsLastToken) {
  const std::vector<PromptSegment> prompt = {Fresh(9), Chunk(80)};
  const LinkResult naive = engine_.Link(prompt, "naive");
  EXPECT_EQ(naive.selected.size(), 10u);
  EXPECT_EQ(naive.selected.back(), 88);
}

}  // namespace
}  // namespace epic::testing
