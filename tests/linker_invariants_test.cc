// What must hold between linkers, whatever the model computes (docs/linking.md, "Exactness"). Chunk KV is read-only
// memory here.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/cpu/kernels.h"
#include "tests/engine_harness.h"

namespace epic::testing {
namespace {

class LinkerInvariantsTest : public ::testing::TestWithParam<GoldenModel> {
 protected:
  LinkerInvariantsTest() : engine_(GetParam().path), rounding_(RoundingOf(ReadJson(GetParam().linker_golden))) {}

  // Rows that go through the same arithmetic in another order of pieces differ by less than this: one and a half times
  // what rounded keys and values cost the reference. A wrong offset, mask or rotation moves the logits by far more.
  static double RoundingOf(const nlohmann::json& golden) {
    double largest = 0;
    for (const auto& entry : golden["cases"]) {
      for (const auto& result : entry["results"]) {
        largest = std::max(largest, result["bf16_kv_error"]["max_abs"].get<double>());
      }
    }
    return 1.5 * largest * (SelectCpuKernels()->rounds_activations ? kRoundedActivationsRatioMax : 1);
  }

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
  static void ExpectSame(const LinkResult& a, const LinkResult& b, double tolerance) {
    EXPECT_LE(Difference(a.logits, b.logits).max_abs, tolerance);
  }
  void ExpectSame(const LinkResult& a, const LinkResult& b) const { ExpectSame(a, b, rounding_); }

  std::mt19937 generator_{7};
  EngineHarness engine_;
  double rounding_;
};

INSTANTIATE_TEST_SUITE_P(Models, LinkerInvariantsTest, ::testing::ValuesIn(SafetensorsGoldenModels()),
                         [](const auto& param) { return param.param.name; });

TEST_P(LinkerInvariantsTest, LegoLinkWithWholeChunksIsFullRecompute) {
  const auto prompt = TypicalPrompt();
  const LinkResult full = engine_.Link(prompt, "full");
  const LinkResult linked = engine_.Link(prompt, "legolink:130");
  EXPECT_EQ(linked.selected, full.selected);
  ExpectSame(linked, full, 0);
}

TEST_P(LinkerInvariantsTest, LinkersReallyDiffer) {
  const auto prompt = TypicalPrompt();
  const LinkResult full = engine_.Link(prompt, "full");
  for (const char* linker : {"naive", "naive-last", "cacheblend:15", "legolink:1", "legolink:16", "random:15"}) {
    EXPECT_GT(Difference(engine_.Link(prompt, linker).logits, full.logits).max_abs, rounding_) << linker;
  }
}

TEST_P(LinkerInvariantsTest, AChunkAloneAtTheStartIsExact) {
  const std::vector<PromptSegment> prompt = {Chunk(200), Fresh(24)};
  const LinkResult full = engine_.Link(prompt, "full");
  for (const char* linker : {"naive", "legolink:1", "legolink:16"}) {
    const LinkResult linked = engine_.Link(prompt, linker);
    EXPECT_EQ(linked.selected.size(), 24u) << linker;
    ExpectSame(linked, full);
  }
}

// The proof of the counter-rotation: KV that is right, used at another position than it was compiled at.
TEST_P(LinkerInvariantsTest, AChunkCompiledBehindItsContextAndMovedIsExact) {
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

// Chunks of one document, compiled one behind the other over the blocks of those before, and linked as they stand in
// it: nothing is lost, wherever the prompt stands.
TEST_P(LinkerInvariantsTest, ADocumentCompiledInPlaceBehindItsBeginningIsExact) {
  const PromptSegment start = Fresh(3);
  const Recipe behind_start{"plain", start.token_ids};
  std::vector<PromptSegment> prompt = {start};
  std::vector<ChunkKvPtr> blocks;
  std::vector<int32_t> seen;
  for (const int32_t length : {70, 33, 128, 64}) {
    PromptSegment chunk = Chunk(length);
    chunk.context_token_ids = seen;
    chunk.chunk = engine_.Compile(chunk.token_ids, RecipeBehind(behind_start, seen), 50, blocks);
    blocks.push_back(chunk.chunk);
    seen.insert(seen.end(), chunk.token_ids.begin(), chunk.token_ids.end());
    prompt.push_back(std::move(chunk));
  }
  prompt.push_back(Fresh(20));
  const LinkResult full = engine_.Link(prompt, "full");
  for (const int32_t moved : {0, 1000}) {
    for (const char* linker : {"naive", "legolink:16"}) {
      const LinkResult linked = engine_.Link(prompt, linker, behind_start, moved);
      EXPECT_EQ(linked.selected.size(), 23u) << linker;
      ExpectSame(linked, full);
    }
  }
  // Only some of the blocks are there: what they leave out runs.
  for (const std::vector<ChunkKvPtr>& held :
       {std::vector<ChunkKvPtr>{}, {blocks[0]}, {blocks[1], blocks[2]}, {blocks[2]}}) {
    prompt[4].chunk =
        engine_.Compile(prompt[4].token_ids, RecipeBehind(behind_start, prompt[4].context_token_ids), 50, held);
    ExpectSame(engine_.Link(prompt, "naive", behind_start), full);
  }
}

TEST_P(LinkerInvariantsTest, MovingThePromptChangesNothing) {
  const auto prompt = TypicalPrompt();
  for (const char* linker :
       {"full", "naive", "naive-last", "cacheblend:15", "legolink:1", "legolink:16", "random:15"}) {
    ExpectSame(engine_.Link(prompt, linker), engine_.Link(prompt, linker, {"plain", {}}, 5000));
  }
}

TEST_P(LinkerInvariantsTest, PiecesDoNotChangeABit) {
  const auto prompt = TypicalPrompt();
  for (const char* linker : {"full", "naive", "naive-last", "cacheblend:15", "legolink:16", "random:15"}) {
    const LinkResult whole = engine_.Link(prompt, linker, {"plain", {}}, 0, 4096);
    for (const int32_t piece : {1, 7, 64}) {
      ExpectSame(engine_.Link(prompt, linker, {"plain", {}}, 0, piece), whole, 0);
    }
  }
}

TEST_P(LinkerInvariantsTest, BeginningOfSequenceBehindWhichAChunkWasCompiledLeavesItExact) {
  const PromptSegment start{{1}, false, nullptr};
  const std::vector<PromptSegment> prompt = {start, Chunk(150), Fresh(20)};
  const LinkResult linked = engine_.Link(prompt, "legolink:16", {"plain", start.token_ids});
  EXPECT_EQ(linked.selected.size(), 21u);
  ExpectSame(linked, engine_.Link(prompt, "full"));
}

TEST_P(LinkerInvariantsTest, CacheBlendOfEverythingIsFullRecompute) {
  const auto prompt = TypicalPrompt();
  ExpectSame(engine_.Link(prompt, "cacheblend:100"), engine_.Link(prompt, "full"));
}

TEST_P(LinkerInvariantsTest, RandomOfEverythingIsFullRecompute) {
  const auto prompt = TypicalPrompt();
  const LinkResult full = engine_.Link(prompt, "full");
  const LinkResult linked = engine_.Link(prompt, "random:100");
  EXPECT_EQ(linked.selected, full.selected);
  ExpectSame(linked, full, 0);
}

// Where the chunk is right as it is, whichever of its rows run again come out as they were. A stale copy that is seen
// beside its row, or a row that sees what stands behind it, does not.
TEST_P(LinkerInvariantsTest, ScatteredRowsOfAnExactChunkChangeNothing) {
  const PromptSegment context = Fresh(40);
  const std::vector<PromptSegment> prompt = {context, Chunk(220), Fresh(30)};
  const Recipe recipe{"behind-context", context.token_ids};
  const LinkResult full = engine_.Link(prompt, "full");
  for (const auto& [linker, chosen] :
       {std::pair("random:7", 15), std::pair("random:50", 110), std::pair("random:99", 217)}) {
    for (const int32_t moved : {0, 17, 5000}) {
      const LinkResult linked = engine_.Link(prompt, linker, recipe, moved);
      EXPECT_EQ(linked.selected.size(), 70u + chosen);
      ExpectSame(linked, full);
    }
  }
}

TEST_P(LinkerInvariantsTest, RandomAndCacheBlendRunEquallyManyRowsBehindTheChoice) {
  const std::vector<PromptSegment> prompt = {Fresh(9), Chunk(80), Fresh(5), Chunk(51)};
  for (const char* percent : {"0.5", "15", "99.9", "100"}) {
    EXPECT_EQ(engine_.Link(prompt, std::string("random:") + percent).selected.size(),
              engine_.Link(prompt, std::string("cacheblend:") + percent).selected.size())
        << percent;
  }
}

TEST_P(LinkerInvariantsTest, APromptThatEndsInAChunkRunsItsLastToken) {
  const std::vector<PromptSegment> prompt = {Fresh(9), Chunk(80)};
  const LinkResult naive = engine_.Link(prompt, "naive");
  EXPECT_EQ(naive.selected.size(), 10u);
  EXPECT_EQ(naive.selected.back(), 88);
}

}  // namespace
}  // namespace epic::testing
