// The model code against `transformers`: logits and greedy continuations (tests/golden/README.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "tests/engine_harness.h"

namespace epic::testing {
namespace {

// Our error against float32 may be at most this much larger than that of `transformers` in bfloat16.
constexpr double kErrorRatioMax = 1.5;

using Logits = std::vector<std::vector<float>>;

void CheckLogits(const Logits& logits, const nlohmann::json& golden) {
  const std::vector<int32_t> ids = golden["logit_ids"];
  ErrorSum error;
  for (const auto& row : golden["rows"]) {
    const std::vector<float>& actual = logits.at(row["position"].get<size_t>());
    std::vector<float> ours, reference;
    const auto take = [&](const std::vector<int32_t>& at, const std::vector<float>& expected) {
      for (size_t i = 0; i < at.size(); ++i) {
        ours.push_back(actual.at(at[i]));
        reference.push_back(expected[i]);
      }
    };
    take(ids, row["logits"]);
    if (row.contains("top_ids")) take(row["top_ids"], row["top_logits"]);
    error.AddRow(ours, reference);
  }
  const auto check = [&](const char* name, double found) {
    const double allowed = golden["bf16_error"][name];
    ::testing::Test::RecordProperty(name, std::to_string(found));
    EXPECT_LE(found, kErrorRatioMax * allowed) << name << "; transformers in bfloat16 errs by " << allowed;
  };
  check("max_abs", error.size().max_abs);
  check("rms", error.size().rms);
  check("centred_rms", error.size().centred_rms);
}

// `logits` are those of the prompt and of the reference's continuation. Where the reference's lead over the second best
// token is within rounding, another token is right too, and what follows is another text: the comparison ends there.
void CheckGreedy(const Logits& logits, const nlohmann::json& golden) {
  const double tolerance = 2 * kErrorRatioMax * golden["bf16_error"]["max_abs"].get<double>();
  const size_t prompt = golden["tokens"].size();
  int compared = 0;
  for (size_t i = 0; i < golden["greedy_tokens"].size(); ++i) {
    const std::vector<float>& row = logits.at(prompt - 1 + i);
    const int32_t best = static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
    const int32_t expected = golden["greedy_tokens"][i];
    if (golden["greedy_margins"][i].get<double>() < tolerance && best != expected) break;
    EXPECT_EQ(best, expected) << "token " << i;
    ++compared;
  }
  EXPECT_GE(compared, 1);
}

void CheckModel(const std::string& path, const std::string& golden_path) {
  EngineHarness engine(path);
  const nlohmann::json golden = ReadJson(golden_path);
  std::vector<int32_t> tokens = golden["tokens"];
  ASSERT_GE(tokens.size(), 300u);
  tokens.insert(tokens.end(), golden["greedy_tokens"].begin(), golden["greedy_tokens"].end());
  const Logits logits = engine.AllLogits(tokens);
  CheckLogits(logits, golden);
  CheckGreedy(logits, golden);
}

class ModelGoldenTest : public ::testing::TestWithParam<GoldenModel> {};

TEST_P(ModelGoldenTest, LogitsAreThoseOfTransformers) { CheckModel(GetParam().path, GetParam().model_golden); }

INSTANTIATE_TEST_SUITE_P(Models, ModelGoldenTest, ::testing::ValuesIn(GoldenModels()),
                         [](const auto& param) { return param.param.name; });

TEST(TinyTied, LogitsAreThoseOfTransformers) {
  CheckModel(SourcePath("tests/golden/tiny/tiny-tied"), SourcePath("tests/golden/tiny/model-tiny-tied.json"));
}

// The same numbers in two formats are one model: what still differs is the last digit of a frequency.
TEST(Formats, GiveTheSameLogits) {
  const std::vector<GoldenModel> folders = SafetensorsGoldenModels();
  const std::vector<GoldenModel> files = GgufGoldenModels();
  std::set<std::string> names;
  for (size_t m = 0; m < folders.size(); ++m) {
    SCOPED_TRACE(folders[m].name);
    names.insert(folders[m].name);
    const nlohmann::json golden = ReadJson(folders[m].model_golden);
    EngineHarness folder(folders[m].path), file(files[m].path);
    const Logits a = folder.AllLogits(golden["tokens"]), b = file.AllLogits(golden["tokens"]);
    ErrorSum error;
    for (size_t row = 0; row < a.size(); ++row) error.AddRow(a[row], b[row]);
    EXPECT_LE(error.size().max_abs, kErrorRatioMax * golden["bf16_error"]["max_abs"].get<double>());
    EXPECT_LE(error.size().rms, golden["bf16_error"]["rms"].get<double>() / 4);
  }
  for (const char* name : {"tiny", "llama3", "mistral", "qwen2", "qwen3"}) EXPECT_TRUE(names.contains(name)) << name;
}

TEST(SmolLm2, LogitsAreThoseOfTransformers) {
  if (ModelPathFromEnvironment().empty()) GTEST_SKIP() << "EPIC_MODEL does not name the default model's file";
  CheckModel(ModelPathFromEnvironment(), SourcePath("tests/golden/smollm2/model.json"));
}

TEST(Qwen25Coder, LogitsAreThoseOfTransformers) {
  if (QwenModelPath().empty()) {
    GTEST_SKIP() << "neither EPIC_QWEN_MODEL nor models/ has it: scripts/fetch_model.sh qwen2.5-coder-0.5b";
  }
  CheckModel(QwenModelPath(), SourcePath("tests/golden/qwen2.5-coder/model.json"));
}

}  // namespace
}  // namespace epic::testing
