#include "eval/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace epic::eval {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class RunFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = ::testing::TempDir() + "epic_run_folder_test_" + std::to_string(getpid());
    std::filesystem::remove_all(path_);
    identity_.task = "needle";
    identity_.prompt_template = "Read {documents}\n";
    identity_.output_tokens_max = 32;
    identity_.seed = 18446744073709551615ULL;
    identity_.model = "tiny";
  }
  void TearDown() override { std::filesystem::remove_all(path_); }

  std::string Content(const std::string& name) const {
    std::ifstream file(path_ + "/" + name);
    std::ostringstream content;
    content << file.rdbuf();
    return content.str();
  }
  void Write(const std::string& name, const std::string& content) const {
    std::filesystem::create_directories(path_);
    std::ofstream(path_ + "/" + name) << content;
  }
  static Outcome NewOutcome(const std::string& example, const std::string& linker) {
    Outcome outcome;
    outcome.example = example;
    outcome.linker = linker;
    outcome.engine_linker = linker;
    outcome.answer = "forty \"two\"\n";
    outcome.token_ids = {4, 2};
    outcome.stopped = true;
    outcome.score = 0.25;
    outcome.names_gold = true;
    outcome.mean_kl = 0.125;
    outcome.positions = 3;
    outcome.usage.prompt_tokens = 100;
    outcome.timing.ttft_us = 12345678901;
    return outcome;
  }
  std::string Refusal() const {
    const auto folder = RunFolder::Open(path_, identity_);
    EXPECT_FALSE(folder.ok());
    return std::string(folder.status().message());
  }

  std::string path_;
  RunIdentity identity_;
};

TEST_F(RunFolderTest, WhatWasAddedIsThereAgain) {
  {
    const auto folder = *RunFolder::Open(path_, identity_);
    ASSERT_TRUE(folder->Add(NewOutcome("a", "full")).ok());
    ASSERT_TRUE(folder->Add(NewOutcome("a", "naive")).ok());
    ASSERT_TRUE(folder->Add(Skip{"b", "too long"}).ok());
  }
  for (const bool to_write : {true, false}) {
    const auto folder = to_write ? *RunFolder::Open(path_, identity_) : *RunFolder::Read(path_);
    EXPECT_EQ(folder->identity(), identity_);
    ASSERT_EQ(folder->outcomes().size(), 2U);
    const Outcome* naive = folder->Find("a", "naive");
    ASSERT_NE(naive, nullptr);
    EXPECT_EQ(ToJson(*naive), ToJson(NewOutcome("a", "naive")));
    EXPECT_EQ(folder->Find("a", "legolink:16"), nullptr);
    EXPECT_TRUE(folder->IsSkipped("b"));
    ASSERT_EQ(folder->skipped().size(), 1U);
    EXPECT_EQ(folder->skipped()[0].reason, "too long");
  }
}

TEST_F(RunFolderTest, AHalfWrittenLastLineIsDropped) {
  ASSERT_TRUE((*RunFolder::Open(path_, identity_))->Add(NewOutcome("a", "full")).ok());
  const std::string whole = Content("outcomes.jsonl");
  Write("outcomes.jsonl", whole + whole.substr(0, whole.size() / 2));
  const auto folder = *RunFolder::Open(path_, identity_);
  EXPECT_EQ(folder->outcomes().size(), 1U);
  ASSERT_TRUE(folder->Add(NewOutcome("a", "naive")).ok());
  EXPECT_EQ((*RunFolder::Read(path_))->outcomes().size(), 2U);
}

TEST_F(RunFolderTest, ADamagedLineIsAnErrorThatNamesIt) {
  ASSERT_TRUE((*RunFolder::Open(path_, identity_))->Add(NewOutcome("a", "full")).ok());
  const std::string whole = Content("outcomes.jsonl");
  for (const std::string& bad : {std::string("{\"example\":\"a\"}\n"), std::string("nonsense\n"), std::string("[1]\n"),
                                 std::string("{\"example\":3,\"skipped\":\"x\"}\n")}) {
    Write("outcomes.jsonl", whole + bad + whole);
    EXPECT_THAT(Refusal(), AllOf(HasSubstr("damaged"), HasSubstr("line 2"))) << bad;
  }
  std::string other_type = whole;
  other_type.replace(other_type.find("0.25"), 4, "\"x\"");
  Write("outcomes.jsonl", other_type);
  EXPECT_THAT(Refusal(), HasSubstr("score"));
}

TEST_F(RunFolderTest, AnotherRunIsRefusedByWhatDiffers) {
  ASSERT_TRUE(RunFolder::Open(path_, identity_).ok());
  identity_.seed = 2;
  EXPECT_THAT(Refusal(), HasSubstr("its seed is 18446744073709551615, this run's is 2"));
  identity_.seed = 18446744073709551615ULL;
  identity_.fingerprint = "other";
  EXPECT_THAT(Refusal(), HasSubstr("fingerprint"));
}

TEST_F(RunFolderTest, AFolderOfSomethingElseIsLeftAlone) {
  Write("thesis.txt", "words");
  EXPECT_THAT(Refusal(), HasSubstr("run.json"));
  EXPECT_FALSE(std::filesystem::exists(path_ + "/outcomes.jsonl"));
  Write("run.json", "{\"format\": \"epic-eval-0\"}");
  EXPECT_THAT(Refusal(), HasSubstr("epic-eval-1"));
  Write("run.json", "{\"format\": 3}");
  EXPECT_THAT(Refusal(), HasSubstr("epic-eval-1"));
  EXPECT_EQ(RunFolder::Read(path_ + "/none").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(RunFolderTest, OneWriterAtATime) {
  const auto first = *RunFolder::Open(path_, identity_);
  EXPECT_THAT(Refusal(), HasSubstr("another process"));
  EXPECT_TRUE(RunFolder::Read(path_).ok());
}

TEST_F(RunFolderTest, AnAnswerThatEndsWithinACharacterIsWrittenAllTheSame) {
  Outcome outcome = NewOutcome("a", "full");
  outcome.answer = "caf\xC3";
  {
    const auto folder = *RunFolder::Open(path_, identity_);
    ASSERT_TRUE(folder->Add(outcome).ok());
  }
  EXPECT_EQ((*RunFolder::Read(path_))->outcomes()[0].answer, "caf\xEF\xBF\xBD");
}

}  // namespace
}  // namespace epic::eval
