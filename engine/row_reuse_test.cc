// Rows that are kept between requests, through the engine's public interface on the tiny model: how many rows run, and
// that the answers are what they are without.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/engine_fixture_for_test.h"

namespace epic {
namespace {

constexpr const char* kKeepingLinkers[] = {"prefix", "naive", "legolink:0", "legolink:1", "legolink:16"};

class RowReuseTest : public EngineTest {
 protected:
  // The same without reuse. Chunks are compiled once and shared by both.
  Outcome RunAfresh(GenerationRequest request) {
    request.reuses_rows = false;
    return Run(std::move(request));
  }
  static void ExpectSame(const Outcome& a, const Outcome& b) {
    EXPECT_TRUE(a.status.ok()) << a.status;
    EXPECT_EQ(a.ids, b.ids);
    EXPECT_EQ(a.logprobs, b.logprobs);  // to the last bit
  }
  // A change of one segment of the prompt; how many rows of the original are still used.
  int32_t HitsAfter(GenerationRequest request, const std::function<void(GenerationRequest&)>& change) {
    change(request);
    const Outcome outcome = Run(request);
    ExpectSame(outcome, RunAfresh(request));
    return outcome.stats.prefix_hit_tokens;
  }
};

TEST_F(RowReuseTest, ARepeatedPromptRunsItsLastRowOnly) {
  for (const char* linker : kKeepingLinkers) {
    GenerationRequest request = Request(linker);
    request.cache_salt = linker;
    const Outcome afresh = RunAfresh(request);
    const Outcome first = Run(request);
    const uint64_t rows_before = engine_->Load().linked_rows_total;
    const Outcome second = Run(request);
    ExpectSame(first, afresh);
    ExpectSame(second, afresh);
    EXPECT_EQ(first.stats.prefix_hit_tokens, 0) << linker;
    EXPECT_EQ(first.stats.selected_tokens, afresh.stats.selected_tokens);
    EXPECT_EQ(second.stats.prefix_hit_tokens, afresh.stats.selected_tokens - 1);
    EXPECT_EQ(second.stats.selected_tokens, 1);
    EXPECT_EQ(second.stats.recomputed_tokens, 1);
    EXPECT_EQ(engine_->Load().linked_rows_total, rows_before + 1);
  }
}

TEST_F(RowReuseTest, AnotherQuestionAboutTheSameDocumentsRunsTheQuestionOnly) {
  GenerationRequest request = Request("legolink:16");
  Run(request);
  request.prompt.back().token_ids = Tokens(20, 99);
  const Outcome outcome = Run(request);
  ExpectSame(outcome, RunAfresh(request));
  EXPECT_EQ(outcome.stats.prefix_hit_tokens, 9 + 16 + 16 + 4 + 16);
  EXPECT_EQ(outcome.stats.selected_tokens, 20);
  EXPECT_EQ(outcome.stats.recomputed_per_segment, std::vector<int32_t>({0, 0, 0, 0, 0, 20}));
}

TEST_F(RowReuseTest, ASecondTurnRunsWhatIsNew) {
  for (const char* linker : kKeepingLinkers) {
    GenerationRequest request = Request(linker, 0, 70);  // the answer fills a page, and part of another
    request.cache_salt = linker;
    const Outcome first = Run(request);
    const int32_t rows = first.stats.selected_tokens;
    std::vector<int32_t> more = first.ids;
    const std::vector<int32_t> question = Tokens(15, 77);
    more.insert(more.end(), question.begin(), question.end());
    request.prompt.push_back({more, false, nullptr});
    const Outcome second = Run(request);
    EXPECT_EQ(second.stats.prefix_hit_tokens, rows + 69) << linker;  // the last token's row has not run
    EXPECT_EQ(second.stats.selected_tokens, 1 + 15);
    ExpectSame(second, RunAfresh(request));  // this model decodes and prefills from the same weights
  }
}

TEST_F(RowReuseTest, RowsAreUsedUpToTheFirstDifference) {
  const GenerationRequest request = Request("legolink:16");
  Run(request);
  const auto same = [](GenerationRequest&) {};
  EXPECT_EQ(HitsAfter(request, same), 9 + 16 + 16 + 4 + 16 + 13);
  // Another order of chunks.
  EXPECT_EQ(HitsAfter(request, [](GenerationRequest& r) { std::swap(r.prompt[1], r.prompt[2]); }), 9);
  // Another chunk that begins alike: its head has the same context, what follows it has not.
  EXPECT_EQ(HitsAfter(request,
                      [&](GenerationRequest& r) {
                        r.prompt[2].token_ids.back() ^= 1;
                        r.prompt[2].chunk = Compile(r.prompt[2].token_ids);
                      }),
            9 + 16 + 16);
  // The same chunk in other memory is the same chunk.
  EXPECT_EQ(HitsAfter(request, [&](GenerationRequest& r) { r.prompt[1].chunk = Compile(r.prompt[1].token_ids); }),
            9 + 16 + 16 + 4 + 16 + 13);
  EXPECT_EQ(HitsAfter(request, [](GenerationRequest& r) { r.linker = *Linker::Parse("legolink:15"); }), 9 + 15);
  EXPECT_EQ(HitsAfter(request, [](GenerationRequest& r) { r.linker = *Linker::Parse("naive"); }), 9);
  EXPECT_EQ(HitsAfter(request, [](GenerationRequest& r) { r.prompt[3].token_ids[2] ^= 1; }), 9 + 16 + 16 + 2);
  EXPECT_EQ(HitsAfter(request, [](GenerationRequest& r) { r.prompt[0].token_ids[0] ^= 1; }), 0);
  EXPECT_EQ(HitsAfter(request, [](GenerationRequest& r) { r.cache_salt = "another tenant"; }), 0);
}

TEST_F(RowReuseTest, TheReferenceAndLinkersWithOtherRowsKeepNothing) {
  for (const char* linker : {"full", "cacheblend:15", "naive-last", "random:15"}) {
    const Outcome first = Run(Request(linker));
    const Outcome second = Run(Request(linker));
    EXPECT_EQ(second.stats.selected_tokens, first.stats.selected_tokens) << linker;
    EXPECT_EQ(second.stats.prefix_hit_tokens, 0);
    EXPECT_EQ(engine_->Load().prefix_cache_used_bytes, 0u);
  }
  RunAfresh(Request("prefix"));
  EXPECT_EQ(engine_->Load().prefix_cache_used_bytes, 0u);
}

TEST_F(RowReuseTest, ABudgetOfZeroKeepsNothing) {
  EngineOptions options;
  options.prefix_cache_bytes = 0;
  Start(options);
  Run(Request("legolink:16"));
  EXPECT_EQ(Run(Request("legolink:16")).stats.selected_tokens, 75);
  EXPECT_EQ(engine_->Load().prefix_cache_used_bytes, 0u);
}

TEST_F(RowReuseTest, ASmallBudgetIsNeverPassedAndTheAnswersStay) {
  EngineOptions options;
  options.prefix_cache_bytes = 200 << 10;  // three pages of 64 KiB
  Start(options);
  std::vector<GenerationRequest> requests;
  std::vector<Outcome> expected;
  for (int variant = 0; variant < 3; ++variant) {
    requests.push_back(Request(variant == 1 ? "prefix" : "legolink:16", variant, 30));
    expected.push_back(RunAfresh(requests.back()));
  }
  for (int round = 0; round < 12; ++round) {
    ExpectSame(Run(requests[round * round % 3]), expected[round * round % 3]);
    const EngineLoad load = engine_->Load();
    EXPECT_LE(load.prefix_cache_used_bytes, options.prefix_cache_bytes);
    EXPECT_EQ(load.private_kv_used_bytes, 0u);
  }
  EXPECT_GT(engine_->Load().prefix_hit_tokens_total, 0u);
}

// Rows of a request that was cancelled while it was linked or decoded are complete as far as they are kept.
TEST_F(RowReuseTest, ACancelledRequestsRowsServeTheNext) {
  GenerationRequest request = Request("prefix", 0, 3000);
  Collector collector;
  collector.Attach(request);
  auto handle = *engine_->Generate(request);
  collector.WaitForTokens(100);
  handle->Cancel();
  const Outcome cancelled = collector.Wait();
  ASSERT_GE(cancelled.ids.size(), 100u);
  request = Request("prefix");
  request.prompt.push_back({cancelled.ids, false, nullptr});
  const Outcome next = Run(request);
  EXPECT_GE(next.stats.prefix_hit_tokens, 210 + 98);
  ExpectSame(next, RunAfresh(request));
}

TEST_F(RowReuseTest, RequestsThatRunBesideEachOtherShareWhatWasLinked) {
  GenerationRequest request = Request("legolink:16", 0, 2000);
  Collector first;
  first.Attach(request);
  auto handle = *engine_->Generate(request);
  first.WaitForTokens(2);
  request = Request("legolink:16", 0, 5);
  EXPECT_EQ(Run(request).stats.prefix_hit_tokens, 74);  // while the first one decodes
  EXPECT_EQ(first.done_count(), 0);
  handle->Cancel();
  first.Wait();
}

}  // namespace
}  // namespace epic
