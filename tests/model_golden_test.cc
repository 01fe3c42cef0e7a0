// The model code against `transformers`: logits and greedy continuations (tests/golden/README.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/engine_harness.h"

namespace epic::testing {
namespace {

// Our error against float32 may be at most this much larger than that of `transformers` in bfloat16.
constexpr double kErrorRatioMax = 1.5;

void CheckLogits(EngineHarness& engine, const nlohmann::json& golden) {
  const std::vector<int32_t> tokens = golden["tokens"];
  ASSERT_GE(tokens.size(), 300u);
  const auto logits = engine.AllLogits(tokens);
  const std::vector<int32_t> ids = golden["logit_ids"];
  std::vector<float> ours, reference;
  for (const auto& row : golden["rows"]) {
    const std::vector<float>& actual = logits.at(row["position"].get<size_t>());
    const auto take = [&](const std::vector<int32_t>& at, const std::vector<float>& expected) {
      for (size_t i = 0; i < at.size(); ++i) {
        ours.push_back(actual.at(at[i]));
        reference.push_back(expected[i]);
      }
    };
    take(ids, row["logits"]);
    if (row.contains("top_ids")) take(row["top_ids"], row["top_logits"]);
  }
  const ErrorSize error = Difference(ours, reference);
  const double rms = golden["bf16_error"]["rms"];
  const double max_abs = golden["bf16_error"]["max_abs"];
  ::testing::Test::RecordProperty("rms_error", std::to_string(error.rms));
  EXPECT_LE(error.rms, kErrorRatioMax * rms) << "transformers in bfloat16 errs by " << rms;
  EXPECT_LE(error.max_abs, kErrorRatioMax * max_abs) << "transformers in bfloat16 errs by " << max_abs;
}

// Where the reference's lead over the second best token is within rounding, another token is right too, and what
// follows is another text: the comparison ends there.
void CheckGreedy(EngineHarness& engine, const nlohmann::json& golden) {
  std::vector<int32_t> tokens = golden["tokens"];
  const double tolerance = 2 * kErrorRatioMax * golden["bf16_error"]["max_abs"].get<double>();
  int compared = 0;
  for (size_t i = 0; i < golden["greedy_tokens"].size(); ++i) {
    const std::vector<float> logits = engine.AllLogits(tokens).back();
    const int32_t best = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    const int32_t expected = golden["greedy_tokens"][i];
    if (golden["greedy_margins"][i].get<double>() < tolerance && best != expected) break;
    EXPECT_EQ(best, expected) << "token " << i;
    tokens.push_back(expected);
    ++compared;
  }
  EXPECT_GE(compared, 1);
}

class TinyModel : public ::testing::TestWithParam<std::pair<std::string, std::string>> {};

TEST_P(TinyModel, LogitsAreThoseOfTransformers) {
  EngineHarness engine(SourcePath("tests/golden/tiny/" + GetParam().first));
  const nlohmann::json golden = ReadJson(SourcePath("tests/golden/tiny/" + GetParam().second));
  CheckLogits(engine, golden);
  CheckGreedy(engine, golden);
}

INSTANTIATE_TEST_SUITE_P(Formats, TinyModel,
                         ::testing::Values(std::pair("tiny", "model-tiny.json"),
                                           std::pair("tiny.gguf", "model-tiny.json"),
                                           std::pair("tiny-tied", "model-tiny-tied.json")),
                         [](const auto& param) {
                           std::string name = param.param.first;
                           std::erase_if(name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
                           return name;
                         });

TEST(SmolLm2, LogitsAreThoseOfTransformers) {
  if (ModelPathFromEnvironment().empty()) GTEST_SKIP() << "EPIC_MODEL does not name the default model's file";
  EngineHarness engine(ModelPathFromEnvironment());
  const nlohmann::json golden = ReadJson(SourcePath("tests/golden/smollm2/model.json"));
  CheckLogits(engine, golden);
  CheckGreedy(engine, golden);
}

}  // namespace
}  // namespace epic::testing
