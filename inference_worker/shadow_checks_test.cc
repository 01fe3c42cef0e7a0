#include "inference_worker/shadow_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "inference_worker/worker_harness.h"

namespace epic {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class ShadowChecksTest : public WorkerHarness {
 protected:
  void SetUp() override { StartWorker(Options(1)); }

  static WorkerOptions Options(double share) {
    WorkerOptions options = SmallOptions();
    options.shadow_share = share;
    return options;
  }
  InferJob Asking(const std::string& linker) const {
    InferJob job = Question({1, 2}, "");
    job.linker = linker;
    return job;
  }
  // A request of this linker reaches the engine, which does not run it.
  std::shared_ptr<InferCall> Held(LinkerKind kind, const std::string& linker) {
    engine_.HoldLinker(kind);
    auto call = worker_->Infer(Asking(linker));
    engine_.WaitForHeld(1);
    return call;
  }
};

TEST_F(ShadowChecksTest, DocumentsCompiledAsAWholeHaveFiguresOfTheirOwn) {
  InferJob job = Asking("legolink:16");
  JobChunk& second = job.messages.back().parts[1].chunk;
  second.context_token_ids = ChunkTokens(1);
  second.key =
      SyntheticBlockInfo(engine_.kv_shape(), RecipeBehind(plain_, ChunkTokens(1)), "default", ChunkTokens(2)).key;
  second.document_id = job.messages.back().parts[0].chunk.document_id;
  ASSERT_TRUE(Ask(job).status.ok());
  observer_.WaitForShadowChecks(1);
  ASSERT_TRUE(Ask(Asking("legolink:16")).status.ok());
  observer_.WaitForShadowChecks(2);
  const WorkerStatus status = worker_->Status();
  ASSERT_THAT(status.shadow, SizeIs(2));
  EXPECT_EQ(status.shadow[0].linker, "legolink:16");
  EXPECT_EQ(status.shadow[1].linker, "legolink:16@document");
}

TEST_F(ShadowChecksTest, AnIdleWorkerAsksFullForTheFirstTokenAgain) {
  const Answer answer = Ask(Asking("legolink:16"));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  const auto checks = observer_.WaitForShadowChecks(1);
  EXPECT_EQ(checks[0].linker, LinkerKind::kLegoLink);
  EXPECT_TRUE(checks[0].first_token_agrees);
  EXPECT_EQ(checks[0].kl, 0);
  EXPECT_EQ(engine_.generations(LinkerKind::kFull), 1);
  EXPECT_EQ(engine_.company_max(LinkerKind::kFull), 0U) << "it ran alone";
  EXPECT_EQ(engine_.last_prompt(LinkerKind::kFull), engine_.last_prompt(LinkerKind::kLegoLink));
  EXPECT_THAT(engine_.last_prompt(LinkerKind::kFull), SizeIs(answer.final.stats.prompt_tokens));
  EXPECT_EQ(engine_.last_cache_salt(), std::nullopt) << "no rows of anybody, none for anybody";
  EXPECT_EQ(observer_.requests(absl::StatusCode::kOk), 1) << "a check is no request";

  const WorkerStatus status = worker_->Status();
  ASSERT_THAT(status.shadow, SizeIs(1));
  EXPECT_EQ(status.shadow[0].linker, "legolink:16");
  EXPECT_EQ(status.shadow[0].checks, 1);
  EXPECT_EQ(status.shadow[0].first_token_agreement, 1);
  EXPECT_EQ(status.shadow[0].problem, "");
  EXPECT_EQ(status.shadow_waiting_checks, 0U);
  EXPECT_EQ(status.requests_total, 1U);
}

TEST_F(ShadowChecksTest, TheClientsAnswerIsTheSame) {
  const Answer checked = Ask(Asking("legolink:16"));
  observer_.WaitForShadowChecks(1);
  for (const GeneratedToken& token : checked.tokens) EXPECT_THAT(token.top, IsEmpty());
  StartWorker(Options(0));
  const Answer unchecked = Ask(Asking("legolink:16"));
  EXPECT_EQ(checked.text, unchecked.text);
  EXPECT_EQ(checked.final.stats.prompt_tokens, unchecked.final.stats.prompt_tokens);
}

TEST_F(ShadowChecksTest, ADisagreementCountsWithItsDivergence) {
  engine_.SetFirstTokenCandidates(LinkerKind::kNaive, {{7, std::log(0.75F)}, {8, std::log(0.25F)}});
  engine_.SetFirstTokenCandidates(LinkerKind::kFull, {{8, std::log(0.5F)}, {7, std::log(0.5F)}});
  EXPECT_TRUE(Ask(Asking("naive")).status.ok());
  const auto checks = observer_.WaitForShadowChecks(1);
  EXPECT_EQ(checks[0].linker, LinkerKind::kNaive);
  EXPECT_FALSE(checks[0].first_token_agrees);
  EXPECT_NEAR(checks[0].kl, 0.143841, 1e-6) << "of full from naive, not the other way round";
  const std::vector<ShadowFigures> figures = worker_->Status().shadow;
  ASSERT_THAT(figures, SizeIs(1));
  EXPECT_EQ(figures[0].linker, "naive");
  EXPECT_EQ(figures[0].first_token_agreement, 0);
  EXPECT_NEAR(figures[0].mean_kl, 0.143841, 1e-6);
}

TEST_F(ShadowChecksTest, OnlyAnswersThatAreApproximationsAreChecked) {
  std::vector<InferJob> others;
  others.push_back(Asking("full"));
  others.push_back(Asking("prefix"));
  others.push_back(Asking("legolink:16"));
  others.back().afresh = true;
  others.push_back(Asking("legolink:16"));
  others.back().continuation = {1, 2};
  others.push_back(Question({}));
  for (const InferJob& job : others) EXPECT_TRUE(Ask(job).status.ok());
  // Checks are made in order: were there any of those above, this one would not be the first.
  EXPECT_TRUE(Ask(Asking("cacheblend:15")).status.ok());
  const auto checks = observer_.WaitForShadowChecks(1);
  EXPECT_THAT(checks, SizeIs(1));
  EXPECT_EQ(checks[0].linker, LinkerKind::kCacheBlend);
  EXPECT_EQ(engine_.generations(LinkerKind::kFull), 2) << "the request and the check";
}

TEST_F(ShadowChecksTest, AShareOfNothingKeepsNothing) {
  StartWorker(Options(0));
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(Ask(Asking("legolink:16")).status.ok());
  worker_.reset();
  EXPECT_EQ(engine_.generations(LinkerKind::kFull), 0);
  EXPECT_EQ(observer_.shadow_checks(), 0U);
  EXPECT_THAT(observer_.shadow_losses(), IsEmpty());
}

TEST_F(ShadowChecksTest, WaitsWhileARequestOfTheWorkerRuns) {
  auto other = Held(LinkerKind::kPrefix, "prefix");
  EXPECT_TRUE(Ask(Asking("legolink:16")).status.ok());
  EXPECT_EQ(worker_->Status().shadow_waiting_checks, 1U);
  EXPECT_EQ(engine_.generations(LinkerKind::kFull), 0);
  engine_.Release();
  EXPECT_TRUE(ReadAnswer(other.get()).status.ok());
  observer_.WaitForShadowChecks(1);
  EXPECT_EQ(engine_.company_max(LinkerKind::kFull), 0U) << "it ran alone";
}

// Then the engine has nothing to do, and the request will want it at any moment.
TEST_F(ShadowChecksTest, WaitsWhileARequestsChunksAreBrought) {
  PutAtNode(3);
  faulty_->SetFaults({.hold_locates = true});
  auto loading = worker_->Infer(Question({3}));
  faulty_->WaitForHeldCalls(1);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Ask(Asking("naive")).status.ok());
  EXPECT_EQ(worker_->Status().shadow_waiting_checks, 3U);
  EXPECT_EQ(engine_.generations(LinkerKind::kFull), 0);
  faulty_->SetFaults({});
  EXPECT_TRUE(ReadAnswer(loading.get()).status.ok());
  observer_.WaitForShadowChecks(4);
  EXPECT_EQ(observer_.WaitForShadowInterruptions(0), 0) << "none was begun that a request could have ended";
}

// A cache node may share the engine: its work goes first as well.
TEST_F(ShadowChecksTest, WaitsWhileTheEngineWorksForOthers) {
  engine_.HoldLinker(LinkerKind::kPrefix);
  GenerationRequest foreign;
  foreign.prompt.resize(1);
  foreign.prompt[0].token_ids = {1};
  foreign.linker.kind = LinkerKind::kPrefix;
  foreign.on_done = [](const absl::Status&, FinishReason, const GenerationStats&) {};
  ASSERT_TRUE(engine_.Generate(std::move(foreign)).ok());
  EXPECT_TRUE(Ask(Asking("legolink:16")).status.ok());
  EXPECT_EQ(worker_->Status().shadow_waiting_checks, 1U);
  engine_.Release();
  observer_.WaitForShadowChecks(1);
  EXPECT_EQ(engine_.company_max(LinkerKind::kFull), 0U) << "it ran alone";
}

TEST_F(ShadowChecksTest, ARequestThatArrivesEndsTheCheckWhichWaitsAgain) {
  engine_.HoldLinker(LinkerKind::kFull);
  EXPECT_TRUE(Ask(Asking("legolink:16")).status.ok());
  engine_.WaitForHeld(1);
  const WorkerStatus during = worker_->Status();
  EXPECT_EQ(during.engine.running_requests, 0) << "routers need not know of it";
  EXPECT_EQ(during.engine.queued_tokens, 0);
  EXPECT_EQ(during.shadow_waiting_checks, 0U);

  EXPECT_TRUE(Ask(Asking("prefix")).status.ok());
  EXPECT_EQ(observer_.WaitForShadowInterruptions(1), 1);
  engine_.Release();
  observer_.WaitForShadowChecks(1);
  EXPECT_EQ(engine_.generations(LinkerKind::kFull), 2);
  EXPECT_THAT(observer_.shadow_losses(), IsEmpty());
}

TEST_F(ShadowChecksTest, ACheckThatIsInterruptedEachTimeIsGivenUp) {
  engine_.HoldLinker(LinkerKind::kFull);
  EXPECT_TRUE(Ask(Asking("legolink:16")).status.ok());
  for (int start = 1; start <= kShadowStartsMax; ++start) {
    engine_.WaitForHeld(1);
    EXPECT_TRUE(Ask(Asking("prefix")).status.ok());
    observer_.WaitForShadowInterruptions(start);
  }
  EXPECT_EQ(observer_.WaitForShadowLosses(ShadowLoss::kInterrupted, 1), 1);
  engine_.Release();
  EXPECT_TRUE(Ask(Asking("naive")).status.ok());
  const auto checks = observer_.WaitForShadowChecks(1);
  EXPECT_EQ(checks[0].linker, LinkerKind::kNaive);
  EXPECT_EQ(engine_.generations(LinkerKind::kFull), kShadowStartsMax + 1);
}

TEST_F(ShadowChecksTest, TheQueueHasALimitAndTheNewestStay) {
  auto other = Held(LinkerKind::kPrefix, "prefix");
  EXPECT_TRUE(Ask(Asking("naive")).status.ok());
  for (size_t i = 0; i < kShadowQueueMax; ++i) EXPECT_TRUE(Ask(Asking("legolink:16")).status.ok());
  EXPECT_EQ(observer_.WaitForShadowLosses(ShadowLoss::kQueueFull, 1), 1);
  EXPECT_EQ(worker_->Status().shadow_waiting_checks, kShadowQueueMax);
  engine_.Release();
  EXPECT_TRUE(ReadAnswer(other.get()).status.ok());
  for (const auto& check : observer_.WaitForShadowChecks(kShadowQueueMax)) {
    EXPECT_EQ(check.linker, LinkerKind::kLegoLink) << "the oldest was dropped";
  }
}

TEST_F(ShadowChecksTest, WhatTheEngineRefusesIsCountedAndNotTriedAgain) {
  engine_.SetGenerateError(LinkerKind::kFull, absl::ResourceExhaustedError("larger than the KV budget"));
  EXPECT_TRUE(Ask(Asking("legolink:16")).status.ok());
  EXPECT_EQ(observer_.WaitForShadowLosses(ShadowLoss::kFailed, 1), 1);
  engine_.SetGenerateError(LinkerKind::kFull, absl::OkStatus());
  EXPECT_TRUE(Ask(Asking("naive")).status.ok());
  EXPECT_EQ(observer_.WaitForShadowChecks(1)[0].linker, LinkerKind::kNaive);
}

TEST_F(ShadowChecksTest, ARequestThatEndsBeforeItsFirstTokenIsNotChecked) {
  auto call = Held(LinkerKind::kLegoLink, "legolink:16");
  call->Cancel();
  EXPECT_TRUE(absl::IsCancelled(ReadAnswer(call.get()).status));
  engine_.Release();
  EXPECT_TRUE(Ask(Asking("naive")).status.ok());
  EXPECT_EQ(observer_.WaitForShadowChecks(1)[0].linker, LinkerKind::kNaive);
}

TEST_F(ShadowChecksTest, DestructionEndsACheckThatRunsAndDropsWhatWaits) {
  engine_.HoldLinker(LinkerKind::kFull);
  EXPECT_TRUE(Ask(Asking("legolink:16")).status.ok());
  engine_.WaitForHeld(1);
  worker_.reset();  // would wait for ever for a check that nobody ends
  EXPECT_EQ(observer_.shadow_checks(), 0U);

  StartWorker(Options(1));
  auto other = Held(LinkerKind::kPrefix, "prefix");
  EXPECT_TRUE(Ask(Asking("legolink:16")).status.ok());
  EXPECT_EQ(worker_->Status().shadow_waiting_checks, 1U);
  worker_.reset();
  EXPECT_TRUE(absl::IsCancelled(ReadAnswer(other.get()).status));
  EXPECT_EQ(observer_.shadow_checks(), 0U);
}

TEST_F(ShadowChecksTest, RefusedRequestsDoNotHoldChecksBack) {
  EXPECT_TRUE(absl::IsInvalidArgument(Ask(Asking("legolonk")).status));
  EXPECT_TRUE(Ask(Asking("legolink:16")).status.ok());
  observer_.WaitForShadowChecks(1);
  WorkerOptions options = Options(1);
  options.requests_max = 1;
  StartWorker(options);
  auto only = Held(LinkerKind::kPrefix, "prefix");
  EXPECT_TRUE(absl::IsResourceExhausted(Ask(Asking("legolink:16")).status));
  engine_.Release();
  EXPECT_TRUE(ReadAnswer(only.get()).status.ok());
  Answer answer = Ask(Asking("naive"));
  while (absl::IsResourceExhausted(answer.status)) answer = Ask(Asking("naive"));  // its place is free a moment later
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(observer_.WaitForShadowChecks(2)[1].linker, LinkerKind::kNaive);
}

}  // namespace
}  // namespace epic
