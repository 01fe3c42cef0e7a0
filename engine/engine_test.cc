// The engine through its public interface, on the tiny model: requests, compile jobs, batches, limits, cancellation.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/utf8.h"
#include "engine/engine_fixture_for_test.h"
#include "engine/files/tiny_model_for_test.h"
#include "fmt/format.h"

namespace epic {
namespace {

using ::testing::HasSubstr;

TEST_F(EngineTest, EveryLinkerAnswersAndCountsItsWork) {
  for (const char* linker : kAllLinkers) {
    const Outcome outcome = Run(Request(linker));
    ASSERT_TRUE(outcome.status.ok()) << linker << outcome.status;
    EXPECT_EQ(outcome.ids.size(), 12u);
    EXPECT_EQ(outcome.reason, FinishReason::kLength);
    EXPECT_EQ(outcome.stats.prompt_tokens, 210);
    EXPECT_EQ(outcome.stats.cached_tokens, 183);
    EXPECT_EQ(outcome.stats.completion_tokens, 12);
  }
  const auto selected = [&](const char* linker) {
    GenerationRequest request = Request(linker);
    request.reuses_rows = false;
    return Run(std::move(request)).stats.selected_tokens;
  };
  EXPECT_EQ(selected("legolink:16"), 27 + 3 * 16);
  EXPECT_EQ(selected("naive"), 27);
  EXPECT_EQ(selected("naive-last"), 1);
  EXPECT_EQ(selected("cacheblend:15"), 27 + 27);
  EXPECT_EQ(selected("random:15"), 27 + 27);
}

TEST_F(EngineTest, ARequestsTokensAreTheSameAloneAndInAnyBatch) {
  std::vector<GenerationRequest> requests;
  std::vector<Outcome> alone;
  for (int variant = 0; variant < 2; ++variant) {
    for (const char* linker : kAllLinkers) requests.push_back(Request(linker, variant, 8 + variant));
  }
  requests[3].sampling = {0.8f, 0.9f, 40, 11};
  for (const GenerationRequest& request : requests) alone.push_back(Run(request));
  for (int round = 0; round < 3; ++round) {
    std::vector<Collector> collectors(requests.size());
    std::vector<std::shared_ptr<Engine::Handle>> handles;
    for (size_t i = 0; i < requests.size(); ++i) {
      GenerationRequest request = requests[(i + round) % requests.size()];
      collectors[i].Attach(request);
      handles.push_back(*engine_->Generate(std::move(request)));
    }
    for (size_t i = 0; i < requests.size(); ++i) {
      const Outcome together = collectors[i].Wait();
      const Outcome& expected = alone[(i + round) % requests.size()];
      ASSERT_TRUE(together.status.ok());
      EXPECT_EQ(together.ids, expected.ids);
      EXPECT_EQ(together.logprobs, expected.logprobs);  // to the last bit
    }
  }
}

TEST_F(EngineTest, AContinuationIsScored) {
  GenerationRequest request = Request("full");
  const Outcome generated = Run(request);
  request.continuation = generated.ids;
  request.top_logprobs = engine_->config().vocab_size;
  std::vector<std::vector<std::pair<int32_t, float>>> tops;
  Collector collector;
  collector.Attach(request);
  auto on_token = request.on_token;
  request.on_token = [&](const GeneratedToken& token) {
    tops.push_back(token.top);
    on_token(token);
  };
  auto handle = engine_->Generate(std::move(request));
  const Outcome scored = collector.Wait();
  EXPECT_EQ(scored.reason, FinishReason::kScored);
  EXPECT_EQ(scored.ids, generated.ids);
  EXPECT_EQ(scored.logprobs, generated.logprobs);
  for (const auto& top : tops) {
    ASSERT_EQ(top.size(), static_cast<size_t>(engine_->config().vocab_size));
    double total = 0;
    for (const auto& [id, logprob] : top) total += std::exp(logprob);
    EXPECT_NEAR(total, 1, 1e-4);
  }
}

TEST_F(EngineTest, CandidatesOfTheFirstTokenAreToldOnceWhateverTheClientAskedFor) {
  GenerationRequest request = Request("full");
  const Outcome plain = Run(request);
  request.first_token_candidates = 5;
  std::vector<std::pair<int32_t, float>> told;
  int times = 0;
  request.on_first_token_candidates = [&](std::vector<std::pair<int32_t, float>> candidates) {
    told = std::move(candidates);
    ++times;
  };
  EXPECT_EQ(Run(std::move(request)).ids, plain.ids);
  EXPECT_EQ(times, 1);
  ASSERT_EQ(told.size(), 5u);
  EXPECT_EQ(told[0].first, plain.ids[0]);  // greedy
  EXPECT_EQ(told[0].second, plain.logprobs[0]);
  for (size_t i = 1; i < told.size(); ++i) EXPECT_LE(told[i].second, told[i - 1].second);
}

// A token may be a part of a character; what is shown goes through messages that carry text only.
TEST_F(EngineTest, TheTextOfAScoredContinuationIsWholeCharacters) {
  const std::vector<int32_t> ids = engine_->tokenizer().EncodeText("caf\u00e9 \U0001F642")->ids;
  int parts = 0;
  for (const int32_t id : ids) {
    if (FindInvalidUtf8(engine_->tokenizer().DecodeToken(id)).has_value()) ++parts;
  }
  ASSERT_GE(parts, 2);
  GenerationRequest request = Request("full");
  request.continuation = ids;
  Collector collector;
  collector.Attach(request);
  std::vector<std::string> texts;
  request.on_token = [&, on_token = request.on_token](const GeneratedToken& token) {
    texts.push_back(token.text);
    on_token(token);
  };
  auto handle = engine_->Generate(std::move(request));
  const Outcome scored = collector.Wait();
  EXPECT_EQ(scored.reason, FinishReason::kScored);
  std::string all;
  for (const std::string& text : texts) {
    EXPECT_FALSE(FindInvalidUtf8(text).has_value());
    all += text;
  }
  EXPECT_EQ(all, "caf\u00e9 \U0001F642");
}

TEST_F(EngineTest, StopStringsEndTheAnswerAndAreNotShown) {
  const Outcome plain = Run(Request("full", 0, 30));
  ASSERT_GT(plain.text.size(), 8u);
  const std::string stop = plain.text.substr(5, 3);
  GenerationRequest request = Request("full", 0, 30);
  request.stop_strings = {stop};
  const Outcome stopped = Run(std::move(request));
  EXPECT_EQ(stopped.reason, FinishReason::kStop);
  EXPECT_EQ(stopped.text, plain.text.substr(0, plain.text.find(stop)));
}

// The tiny model with a vocabulary of SentencePiece's kind, whose decoder strips a space at the start of a text.
std::string WriteModelWithSpaces(const std::string& path) {
  const TinyModel tiny = MakeTinyModel();
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> kinds = {2, 3, 3};  // unknown, control, control
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(fmt::format("<0x{:02X}>", byte));
    kinds.push_back(6);
  }
  while (tokens.size() < static_cast<size_t>(tiny.config.vocab_size)) {
    tokens.push_back(tokens.size() == 259 ? "\u2581" : fmt::format("\u2581{}", tokens.size()));
    kinds.push_back(1);
  }
  const uint32_t float_type = 6;
  const uint64_t count = tokens.size();
  std::string scores(reinterpret_cast<const char*>(&float_type), sizeof(float_type));
  scores.append(reinterpret_cast<const char*>(&count), sizeof(count));
  scores.resize(scores.size() + count * sizeof(float), '\0');
  GgufBuilder builder = tiny.Gguf();
  builder.SetString("tokenizer.ggml.model", "llama");
  builder.SetString("tokenizer.ggml.pre", "default");
  builder.SetStrings("tokenizer.ggml.tokens", tokens);
  builder.SetInt32s("tokenizer.ggml.token_type", kinds);
  builder.Set("tokenizer.ggml.scores", GgufValueType::kArray, scores);
  builder.Remove("tokenizer.ggml.merges");
  std::ofstream(path, std::ios::binary) << builder.Build();
  return path;
}

TEST_F(EngineTest, ASpaceAtTheStartIsTextOnlyWhereTheAnswerGoesOnWithOne) {
  EngineOptions options;
  options.threads = 1;
  options.model_path = WriteModelWithSpaces(::testing::TempDir() + "epic_engine_test_spaces.gguf");
  auto engine = Engine::Create(options);
  std::remove(options.model_path.c_str());
  ASSERT_TRUE(engine.ok()) << engine.status();
  engine_ = *std::move(engine);
  const auto request = [&](uint64_t seed, bool continues_text) {
    GenerationRequest made;
    made.prompt.push_back({{1, 70, 80, 90}, false, nullptr});
    made.linker = *Linker::Parse("full");
    made.max_output_tokens = 1;
    made.ignore_end_of_turn = true;
    made.sampling.temperature = 1;
    made.sampling.seed = seed;
    made.continues_text = continues_text;
    return made;
  };
  for (uint64_t seed = 1; seed < 5000; ++seed) {
    const Outcome answer = Run(request(seed, false));
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    if (answer.ids.at(0) < 260) continue;  // not one of the tokens that begin with a space
    const std::string word = std::to_string(answer.ids[0]);
    EXPECT_EQ(answer.text, word);
    const Outcome continued = Run(request(seed, true));
    EXPECT_EQ(continued.ids, answer.ids);
    EXPECT_EQ(continued.text, " " + word);
    return;
  }
  FAIL() << "no seed gave a token that begins with a space";
}

TEST_F(EngineTest, CancellationAtEveryStageEndsOnceAndFreesEverything) {
  for (const char* linker : kAllLinkers) {
    for (const size_t after_tokens : {0u, 1u, 3u}) {
      GenerationRequest request = Request(linker, 0, 400);
      Collector collector;
      collector.Attach(request);
      auto handle = *engine_->Generate(std::move(request));
      collector.WaitForTokens(after_tokens);
      handle->Cancel();
      EXPECT_EQ(collector.Wait().status.code(), absl::StatusCode::kCancelled) << linker;
      handle->Cancel();
      EXPECT_EQ(collector.done_count(), 1);
    }
  }
  EXPECT_TRUE(Run(Request("full")).status.ok());  // the loop has gone round: what was freed is counted
  EXPECT_LE(engine_->Load().running_requests, 1);
}

TEST_F(EngineTest, ADeadlineEndsARequestThatRuns) {
  GenerationRequest request = Request("full", 0, 7000);
  request.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
  EXPECT_EQ(Run(std::move(request)).status.code(), absl::StatusCode::kDeadlineExceeded);
  GenerationRequest late = Request("full");
  late.deadline = std::chrono::steady_clock::now() - std::chrono::seconds(1);
  EXPECT_EQ(Run(std::move(late)).status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(EngineTest, RequestsBeyondTheBudgetWaitTheirTurn) {
  EngineOptions options;
  options.private_kv_bytes = 1 << 20;  // a page is 64 KiB here: four requests of four pages
  options.running_requests_max = 8;
  Start(options);
  std::vector<Collector> collectors(24);
  std::vector<std::shared_ptr<Engine::Handle>> handles;
  for (Collector& collector : collectors) {
    GenerationRequest request = Request("full", 0, 10);
    collector.Attach(request);
    auto handle = engine_->Generate(std::move(request));
    ASSERT_TRUE(handle.ok()) << handle.status();
    handles.push_back(*handle);
    EXPECT_LE(engine_->Load().private_kv_used_bytes, options.private_kv_bytes);
  }
  const std::vector<int32_t> expected = collectors[0].Wait().ids;
  for (Collector& collector : collectors) EXPECT_EQ(collector.Wait().ids, expected);
}

TEST_F(EngineTest, WhatCanNeverRunIsRefusedAtOnce) {
  const auto refusal = [&](const std::function<void(GenerationRequest&)>& change) {
    GenerationRequest request = Request("legolink:16");
    change(request);
    return Run(std::move(request)).status;
  };
  absl::Status status = refusal([](GenerationRequest& r) { r.prompt.clear(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  status = refusal([](GenerationRequest& r) { r.prompt.push_back({std::vector<int32_t>(9000, 4), false, nullptr}); });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("context is 8192"));
  status = refusal([](GenerationRequest& r) { r.prompt[0].token_ids[0] = 320; });
  EXPECT_THAT(std::string(status.message()), HasSubstr("vocabulary"));
  status = refusal([](GenerationRequest& r) { r.prompt[1].token_ids[3] ^= 1; });
  EXPECT_THAT(std::string(status.message()), HasSubstr("other tokens"));
  status = refusal([](GenerationRequest& r) { r.prompt[1].chunk = nullptr; });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  status = refusal([&](GenerationRequest& r) { r.linker = *Linker::Parse("legolink:0"); });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("sink4"));
  status = refusal([](GenerationRequest& r) { r.max_output_tokens = 0; });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  status = refusal([](GenerationRequest& r) { r.sampling.temperature = -1; });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EngineOptions options;
  options.private_kv_bytes = 1 << 20;
  Start(options);
  GenerationRequest large = Request("full", 0, 7000);
  status = Run(std::move(large)).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("private-kv-bytes"));
}

TEST_F(EngineTest, OptionsNameEveryProblem) {
  EngineOptions options;
  options.threads = 100000;
  options.piece_tokens = 0;
  const absl::Status status = options.Validate();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("threads"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("piece_tokens"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("model_path"));
  const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
  for (const int32_t threads : {-1, static_cast<int32_t>(cores) + 1}) {
    options.threads = threads;
    EXPECT_THAT(std::string(options.Validate().message()),
                HasSubstr(fmt::format("threads is {}, it must be from 0 to {}", threads, cores)));
  }
}

TEST_F(EngineTest, ShuttingDownEndsWhatRuns) {
  std::vector<Collector> collectors(4);
  std::vector<std::shared_ptr<Engine::Handle>> handles;
  for (Collector& collector : collectors) {
    GenerationRequest request = Request("legolink:16", 0, 5000);
    collector.Attach(request);
    handles.push_back(*engine_->Generate(std::move(request)));
  }
  collectors[0].WaitForTokens(1);
  engine_.reset();
  for (Collector& collector : collectors) EXPECT_EQ(collector.Wait().status.code(), absl::StatusCode::kCancelled);
}

TEST_F(EngineTest, CompilingTheSameChunkTwiceGivesTheSameEdition) {
  const std::vector<int32_t> tokens = Tokens(77, 5);
  EXPECT_EQ(Compile(tokens)->view().edition(), Compile(tokens)->view().edition());
  EXPECT_NE(Compile(tokens)->view().edition(), Compile(tokens, "sink4")->view().edition());
  EXPECT_GE(engine_->Load().compiled_chunks_total, 3u);  // the last one is counted when its step ends
}

}  // namespace
}  // namespace epic
