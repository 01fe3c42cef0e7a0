#include "eval/runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "eval/fake_subject_for_test.h"

namespace epic::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RunnerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = ::testing::TempDir() + "epic_runner_test_" + std::to_string(getpid());
    std::filesystem::remove_all(path_);
    task_.name = "small";
    task_.output_tokens_max = 5;
    task_.examples = {{"one", "Read.", {"a", "b"}, "Which?", {"right one"}}, {"two", "", {"c"}, "And?", {"other"}}};
    hooks_.progress = [this](const RunProgress& progress) {
      seen_.push_back(progress.linker);
      return stop_at_ == seen_.size() ? absl::CancelledError("enough") : absl::OkStatus();
    };
    hooks_.pause = [this](std::chrono::milliseconds pause) { pauses_.push_back(pause.count()); };
  }
  void TearDown() override { std::filesystem::remove_all(path_); }

  std::unique_ptr<RunFolder> OpenFolder() {
    RunIdentity identity;
    identity.task = task_.name;
    auto folder = RunFolder::Open(path_, identity);
    EXPECT_TRUE(folder.ok()) << folder.status();
    return *std::move(folder);
  }
  std::unique_ptr<RunFolder> Held() {
    auto folder = RunFolder::Read(path_);
    EXPECT_TRUE(folder.ok()) << folder.status();
    return *std::move(folder);
  }
  absl::Status Run(const std::vector<std::string>& names) {
    const auto folder = OpenFolder();
    return RunEvaluation(task_, *ParseEvalLinkers(names), subject_, *folder, hooks_);
  }

  Task task_;
  FakeSubject subject_;
  RunHooks hooks_;
  std::vector<std::string> seen_;
  std::vector<int64_t> pauses_;
  size_t stop_at_ = 0;
  std::string path_;
};

TEST_F(RunnerTest, FullRunsFirstAndRowsAreTakenFromAnEarlierLinker) {
  std::vector<std::string> order;
  const auto linkers = ParseEvalLinkers({"random:=legolink:16", "naive", "legolink:16", "full", "prefix", "naive"});
  ASSERT_TRUE(linkers.ok());
  for (const EvalLinker& linker : *linkers) order.push_back(linker.name);
  EXPECT_THAT(order, ElementsAre("full", "prefix", "legolink:16", "random:=legolink:16", "naive"));
}

TEST_F(RunnerTest, UnknownLinkersAreRefusedByName) {
  for (const char* name : {"legolnk:16", "", "naive:=legolink:16", "random:=naive", "random:=", "random:=legolink:0",
                           "random:0", "cacheblend:101"}) {
    const auto linkers = ParseEvalLinkers({"naive", name});
    EXPECT_EQ(linkers.status().code(), absl::StatusCode::kInvalidArgument) << name;
  }
  EXPECT_THAT(std::string(ParseEvalLinkers({"legolnk:16"}).status().message()), HasSubstr("legolink"));
}

TEST_F(RunnerTest, MeasuresEachLinkerAgainstFullsOwnAnswer) {
  ASSERT_TRUE(Run({"naive", "legolink:16"}).ok());
  const auto folder = Held();
  const Outcome* full = folder->Find("one", "full");
  ASSERT_NE(full, nullptr);
  EXPECT_DOUBLE_EQ(full->score, 1);
  EXPECT_TRUE(full->names_gold);
  EXPECT_EQ(full->positions, 3);  // two tokens and the end
  const Outcome* naive = folder->Find("one", "naive");
  ASSERT_NE(naive, nullptr);
  EXPECT_DOUBLE_EQ(naive->score, 0);
  EXPECT_FALSE(naive->names_gold);
  EXPECT_TRUE(naive->first_token_agrees);  // 7 stands first in both
  EXPECT_NEAR(naive->mean_kl, 0.75 * std::log(0.75 / 0.5) + 0.25 * std::log(0.25 / 0.5), 1e-6);
  EXPECT_EQ(naive->positions, 3);
  EXPECT_DOUBLE_EQ(naive->rouge_l_to_full, 0);
  EXPECT_EQ(naive->usage.selected_tokens, 10);
  EXPECT_EQ(naive->timing.ttft_us, 1000);
  const Outcome* legolink = folder->Find("one", "legolink:16");
  EXPECT_DOUBLE_EQ(legolink->score, 1);
  EXPECT_DOUBLE_EQ(legolink->rouge_l_to_full, 1);
  EXPECT_DOUBLE_EQ(folder->Find("two", "full")->score, 0);
  EXPECT_THAT(subject_.registered, ElementsAre("a", "b", "c"));
  EXPECT_THAT(subject_.forgotten, ElementsAre("id of a", "id of b", "id of c"));
}

TEST_F(RunnerTest, AnotherFirstTokenDisagrees) {
  subject_.shared_probability = 0.4;
  // The list is given likeliest first, as an engine gives it.
  class Sorted : public FakeSubject {
   public:
    absl::StatusOr<TrialResult> Ask(const Trial& trial) override {
      auto result = FakeSubject::Ask(trial);
      for (auto& top : result->top)
        std::sort(top.begin(), top.end(), [](auto a, auto b) { return a.logprob > b.logprob; });
      return result;
    }
  } subject;
  subject.shared_probability = 0.4;
  const auto folder = OpenFolder();
  ASSERT_TRUE(RunEvaluation(task_, *ParseEvalLinkers({"naive"}), subject, *folder, hooks_).ok());
  EXPECT_FALSE(folder->Find("one", "naive")->first_token_agrees);
}

TEST_F(RunnerTest, RequestsAreThoseThatTheHeaderNames) {
  task_.examples.resize(1);
  ASSERT_TRUE(Run({"legolink:0", "prefix"}).ok());
  std::vector<std::string> asked;
  for (const Trial& trial : subject_.trials) {
    asked.push_back(fmt::format("{}{}{}", trial.linker, trial.afresh ? "" : " kept",
                                trial.continuation.empty() ? fmt::format(" {}", trial.output_tokens_max)
                                                           : fmt::format(" scores {}", trial.continuation.size())));
  }
  EXPECT_THAT(asked, ElementsAre("full 5", "prefix kept 5", "prefix kept scores 3", "prefix kept scores 3",
                                 "legolink:0 1", "legolink:0 5", "legolink:0 kept scores 3"));
  EXPECT_THAT(subject_.trials[2].continuation, ElementsAre(7, 8, 0));
  EXPECT_EQ(subject_.trials[0].preface, "Read.");
  EXPECT_EQ(subject_.trials[0].question, "Which?");
  EXPECT_THAT(subject_.trials[0].document_ids, ElementsAre("id of a", "id of b"));
}

TEST_F(RunnerTest, EqualRowsAreThoseOfTheNamedLinker) {
  task_.examples.resize(1);
  ASSERT_TRUE(Run({"random:=legolink:16"}).ok());
  const auto folder = Held();
  const Outcome* random = folder->Find("one", "random:=legolink:16");
  ASSERT_NE(random, nullptr);
  // 32 of 200 chunk tokens: the engine takes the whole part of the share.
  EXPECT_EQ(random->engine_linker, "random:16.25");
  EXPECT_EQ(std::floor(200 * 16.25 / 100), 32);
}

TEST_F(RunnerTest, GoesOnWhereItWasCut) {
  stop_at_ = 3;  // compiling, full, legolink:16
  EXPECT_EQ(Run({"legolink:16", "naive"}).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(Held()->outcomes().size(), 1U);
  const size_t asked_before = subject_.trials.size();
  stop_at_ = 0;
  ASSERT_TRUE(Run({"legolink:16", "naive"}).ok());
  const auto folder = Held();
  EXPECT_EQ(folder->outcomes().size(), 6U);
  // Full's first answer is not asked again.
  EXPECT_NE(subject_.trials[asked_before].linker, "full");
  const size_t asked = subject_.trials.size();
  ASSERT_TRUE(Run({"legolink:16", "naive"}).ok());
  EXPECT_EQ(subject_.trials.size(), asked);
  ASSERT_TRUE(Run({"legolink:16", "naive", "legolink:2"}).ok());
  EXPECT_EQ(Held()->outcomes().size(), 8U);
}

TEST_F(RunnerTest, WhatTheModelCannotTakeIsSkippedAndSaid) {
  subject_.failures["full"] = {absl::InvalidArgumentError("the prompt has 9000 tokens")};
  subject_.refused_documents = {"c"};
  task_.skipped = {{"three", "no answers"}};
  ASSERT_TRUE(Run({"naive"}).ok());
  const auto folder = Held();
  EXPECT_TRUE(folder->outcomes().empty());
  std::vector<std::string> skipped;
  for (const Skip& skip : folder->skipped()) skipped.push_back(skip.id + ": " + skip.reason);
  EXPECT_THAT(skipped,
              ElementsAre("three: no answers", "one: the prompt has 9000 tokens", "two: the text is no document"));
}

TEST_F(RunnerTest, ABusySubjectIsAskedAgainForAWhile) {
  task_.examples.resize(1);
  subject_.failures["full"] = {absl::UnavailableError("gone"), absl::ResourceExhaustedError("busy")};
  ASSERT_TRUE(Run({"naive"}).ok());
  EXPECT_THAT(pauses_, ElementsAre(500, 2000));
  subject_.failures["legolink:2"].assign(kAttemptsMax, absl::UnavailableError("gone for good"));
  EXPECT_EQ(Run({"naive", "legolink:2"}).message(), "gone for good");
  EXPECT_EQ(Held()->outcomes().size(), 2U);
}

TEST_F(RunnerTest, ARefusalOfALinkerThatFullsPromptFitIsAnError) {
  subject_.failures["naive"] = {absl::InvalidArgumentError("no such thing")};
  EXPECT_EQ(Run({"naive"}).message(), "no such thing");
}

}  // namespace
}  // namespace epic::eval
