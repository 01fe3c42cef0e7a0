// The pure parts of shadow checks: which requests are chosen, what waits, what is told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "inference_worker/shadow_figures.h"
#include "inference_worker/shadow_queue.h"
#include "inference_worker/shadow_selection.h"

namespace epic {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

InferJob JobWithAChunk() {
  InferJob job;
  JobPart chunk;
  chunk.kind = JobPart::Kind::kChunk;
  job.messages = {{"system", {JobPart{}}}, {"user", {chunk, JobPart{}}}};
  return job;
}

TEST(ShadowSelectionTest, ApproximationsOverChunksAreCandidates) {
  for (const char* name : {"naive", "naive-last", "cacheblend:15", "legolink:0", "legolink:16", "random:15"}) {
    EXPECT_TRUE(IsShadowCandidate(JobWithAChunk(), *Linker::Parse(name))) << name;
  }
  for (const char* name : {"full", "prefix"}) {
    EXPECT_FALSE(IsShadowCandidate(JobWithAChunk(), *Linker::Parse(name))) << name;
  }
}

TEST(ShadowSelectionTest, MeasurementsAndPromptsWithoutChunksAreNone) {
  const Linker linker = *Linker::Parse("legolink:16");
  InferJob job = JobWithAChunk();
  job.afresh = true;
  EXPECT_FALSE(IsShadowCandidate(job, linker));
  job = JobWithAChunk();
  job.continuation = {1};
  EXPECT_FALSE(IsShadowCandidate(job, linker));
  job = JobWithAChunk();
  job.messages.pop_back();
  EXPECT_FALSE(IsShadowCandidate(job, linker));
}

int Drawn(double share, uint64_t seed, int candidates) {
  ShadowSelection selection(share, seed);
  int drawn = 0;
  for (int i = 0; i < candidates; ++i) drawn += selection.Draw() ? 1 : 0;
  return drawn;
}

TEST(ShadowSelectionTest, DrawsTheShareAndTheSameForTheSameSeed) {
  EXPECT_EQ(Drawn(0, 1, 10'000), 0);
  EXPECT_EQ(Drawn(1, 1, 10'000), 10'000);
  for (const uint64_t seed : {1, 2, 3}) {
    EXPECT_NEAR(Drawn(0.01, seed, 100'000), 1000, 100) << "three standard deviations";
    EXPECT_NEAR(Drawn(0.5, seed, 10'000), 5000, 150) << "three standard deviations";
    EXPECT_EQ(Drawn(0.3, seed, 1000), Drawn(0.3, seed, 1000));
  }
  EXPECT_NE(Drawn(0.5, 1, 10'000), Drawn(0.5, 2, 10'000));
}

const steady_clock::time_point kNow = steady_clock::time_point() + seconds(1000);

// A check that its first token id names.
ShadowCheck Check(int32_t name, size_t tokens = 4) {
  ShadowCheck check;
  check.token_ids.assign(tokens, name);
  check.deadline = kNow + seconds(10);
  return check;
}

std::vector<int32_t> TakeAll(ShadowQueue* queue) {
  std::vector<int32_t> names;
  size_t expired = 0;
  while (const std::optional<ShadowCheck> check = queue->Take(kNow, &expired)) names.push_back(check->token_ids[0]);
  EXPECT_EQ(expired, 0U);
  EXPECT_EQ(queue->bytes(), 0U);
  return names;
}

TEST(ShadowQueueTest, TakesTheOldestFirstAndCountsBytes) {
  ShadowQueue queue;
  EXPECT_EQ(queue.Push(Check(1)), 0U);
  ShadowCheck second = Check(2, 10);
  second.linked.resize(3);
  EXPECT_EQ(queue.Push(second), 0U);
  EXPECT_EQ(queue.size(), 2U);
  EXPECT_EQ(queue.bytes(), 4 * 4 + 10 * 4 + 3 * 8U);
  EXPECT_THAT(TakeAll(&queue), ElementsAre(1, 2));
}

TEST(ShadowQueueTest, BeyondItsNumberTheOldestGo) {
  ShadowQueue queue({.checks_max = 2});
  EXPECT_EQ(queue.Push(Check(1)), 0U);
  EXPECT_EQ(queue.Push(Check(2)), 0U);
  EXPECT_EQ(queue.Push(Check(3)), 1U);
  EXPECT_THAT(TakeAll(&queue), ElementsAre(2, 3));
}

TEST(ShadowQueueTest, BeyondItsBytesTheOldestGoAndOneThatIsTooLargeAloneIsNotTaken) {
  ShadowQueue queue({.bytes_max = 100});
  EXPECT_EQ(queue.Push(Check(1, 10)), 0U);
  EXPECT_EQ(queue.Push(Check(2, 10)), 0U);
  EXPECT_EQ(queue.Push(Check(3, 26)), 1U);
  EXPECT_EQ(queue.size(), 2U);
  EXPECT_EQ(queue.Push(Check(4, 20)), 2U);
  EXPECT_THAT(TakeAll(&queue), ElementsAre(4));
}

TEST(ShadowQueueTest, ChecksExpire) {
  ShadowQueue queue;
  for (const int32_t name : {1, 2, 3}) {
    ShadowCheck check = Check(name);
    check.deadline = kNow + seconds(name == 3 ? 1 : 0);
    queue.Push(std::move(check));
  }
  size_t expired = 0;
  const std::optional<ShadowCheck> taken = queue.Take(kNow, &expired);
  ASSERT_TRUE(taken.has_value());
  EXPECT_EQ(taken->token_ids[0], 3);
  EXPECT_EQ(expired, 2U);
  EXPECT_EQ(queue.bytes(), 0U);
}

TEST(ShadowQueueTest, AnInterruptedCheckWaitsAgainBeforeTheOthersUntilItWasStartedOftenEnough) {
  ShadowQueue queue({.starts_max = 3});
  queue.Push(Check(1));
  queue.Push(Check(2));
  size_t expired = 0;
  for (int start = 1; start <= 3; ++start) {
    std::optional<ShadowCheck> check = queue.Take(kNow, &expired);
    EXPECT_EQ(check->token_ids[0], 1);
    EXPECT_EQ(queue.PutBack(*std::move(check)), start < 3) << start;
  }
  EXPECT_THAT(TakeAll(&queue), ElementsAre(2));
}

TEST(ShadowQueueTest, AnInterruptedCheckGivesWayToNewerOnes) {
  ShadowQueue queue({.checks_max = 1});
  EXPECT_FALSE([&] {
    queue.Push(Check(2));
    return queue.PutBack(Check(1));
  }());
  EXPECT_THAT(TakeAll(&queue), ElementsAre(2));
  ShadowQueue small({.bytes_max = 20});
  small.Push(Check(2));
  EXPECT_FALSE(small.PutBack(Check(1)));
  EXPECT_EQ(small.bytes(), 16U);
}

TEST(ShadowWindowTest, TellsMeansByLinker) {
  ShadowWindow window;
  EXPECT_THAT(window.Figures(), IsEmpty());
  window.Add("legolink:16", true, 0.25);
  window.Add("legolink:16", false, 0.75);
  window.Add("cacheblend:15", true, 0);
  const std::vector<ShadowFigures> figures = window.Figures();
  ASSERT_THAT(figures, SizeIs(2));
  EXPECT_EQ(figures[0].linker, "cacheblend:15");
  EXPECT_EQ(figures[0].checks, 1);
  EXPECT_EQ(figures[0].first_token_agreement, 1);
  EXPECT_EQ(figures[0].mean_kl, 0);
  EXPECT_EQ(figures[1].linker, "legolink:16");
  EXPECT_EQ(figures[1].checks, 2);
  EXPECT_EQ(figures[1].first_token_agreement, 0.5);
  EXPECT_EQ(figures[1].mean_kl, 0.5);
}

TEST(ShadowWindowTest, LooksAtTheLastChecksOnly) {
  ShadowWindow window(3);
  for (int i = 0; i < 10; ++i) window.Add("naive", false, 4);
  for (const double kl : {1.0, 2.0, 3.0}) window.Add("naive", true, kl);
  const std::vector<ShadowFigures> figures = window.Figures();
  EXPECT_EQ(figures[0].checks, 3);
  EXPECT_EQ(figures[0].first_token_agreement, 1);
  EXPECT_EQ(figures[0].mean_kl, 2);
}

TEST(ShadowWindowTest, KeepsTheLinkersThatWereCheckedLast) {
  ShadowWindow window(3, 2);
  window.Add("legolink:1", true, 0);
  window.Add("legolink:2", true, 0);
  window.Add("legolink:1", true, 0);
  window.Add("legolink:3", true, 0);
  const std::vector<ShadowFigures> figures = window.Figures();
  ASSERT_THAT(figures, SizeIs(2));
  EXPECT_EQ(figures[0].linker, "legolink:1");
  EXPECT_EQ(figures[0].checks, 2);
  EXPECT_EQ(figures[1].linker, "legolink:3");
}

std::string Problem(int checks, int disagree, double kl) {
  ShadowWindow window;
  for (int i = 0; i < checks; ++i) window.Add("naive", i >= disagree, kl);
  return window.Figures()[0].problem;
}

TEST(ShadowWindowTest, SaysWhichFiguresAVerdictWouldRefuseOnceThereAreEnough) {
  EXPECT_EQ(Problem(11, 11, 5), "") << "too few to say";
  EXPECT_EQ(Problem(12, 1, 0.1), "") << "11 of 12 and 0.1 are what a verdict allows";
  EXPECT_THAT(Problem(12, 2, 0), AllOf(HasSubstr("83.3 %"), HasSubstr("90.0 %"), Not(HasSubstr("KL"))));
  EXPECT_THAT(Problem(12, 0, 0.2), AllOf(HasSubstr("0.2000 nats"), HasSubstr("0.1000"), Not(HasSubstr("%"))));
  EXPECT_THAT(Problem(12, 12, 0.2), AllOf(HasSubstr("0.0 %"), HasSubstr("0.2000 nats")));
}

}  // namespace
}  // namespace epic
