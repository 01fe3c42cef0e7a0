// Every linker against the independent dense PyTorch linker: logits, chosen rows and M (tests/golden/README.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "tests/engine_harness.h"

namespace epic::testing {
namespace {

constexpr double kErrorRatioMax = 1.5;
// The bars stand for what rounding KV to bf16 costs. Processors that multiply bf16 by bf16 round activations besides;
// the emulated kernels of both such sets exceeded a bar by 11 % at most.

std::vector<PromptSegment> ReadPrompt(const nlohmann::json& entry, Recipe& recipe) {
  std::vector<PromptSegment> prompt;
  for (const auto& segment : entry["segments"]) {
    prompt.push_back({segment["tokens"], segment["kind"] == "chunk", nullptr});
    if (segment.contains("prefix")) recipe = {"behind-context", segment["prefix"]};
    if (segment.contains("context")) prompt.back().context_token_ids = segment["context"].get<std::vector<int32_t>>();
  }
  return prompt;
}

// Of the chosen rows, one in so many may be another one where activations are rounded.
constexpr size_t kBlurredRowsShare = 50;

std::vector<int32_t> ExpandRanges(const nlohmann::json& ranges) {
  std::vector<int32_t> rows;
  for (const auto& range : ranges) {
    for (int32_t row = range[0]; row < range[1].get<int32_t>(); ++row) rows.push_back(row);
  }
  return rows;
}

// CacheBlend's rows may differ where the deviations of two rows are within rounding of each other at the boundary. The
// reference says which those are for rounded keys and values; kernels that round activations, too, blur a few more.
void CheckRows(const std::vector<int32_t>& ours, const nlohmann::json& result) {
  const std::vector<int32_t> expected = ExpandRanges(result["recomputed_rows"]);
  EXPECT_EQ(static_cast<int32_t>(ours.size()), result["recomputed_count"].get<int32_t>());
  std::vector<int32_t> different;
  std::set_symmetric_difference(ours.begin(), ours.end(), expected.begin(), expected.end(),
                                std::back_inserter(different));
  std::set<int32_t> near;
  if (result.contains("cacheblend")) {
    const std::vector<int32_t> rows = result["cacheblend"]["near_rows"];
    near.insert(rows.begin(), rows.end());
  }
  const bool blurred = !near.empty() && SelectCpuKernels()->rounds_activations;
  size_t more = blurred ? ours.size() / kBlurredRowsShare : 0;
  for (const int32_t row : different) {
    if (near.contains(row)) continue;
    EXPECT_GT(more, 0u) << "row " << row << " is chosen by one side only";
    if (more > 0) --more;
  }
}

void CheckLogits(const std::vector<float>& ours, const nlohmann::json& golden, const nlohmann::json& result,
                 bool kv_error_only) {
  std::vector<float> actual, reference;
  const auto take = [&](const nlohmann::json& ids, const nlohmann::json& logits) {
    for (size_t i = 0; i < ids.size(); ++i) {
      actual.push_back(ours.at(ids[i].get<size_t>()));
      reference.push_back(logits[i]);
    }
  };
  take(golden["logit_ids"], result["logits"]);
  if (result.contains("top_ids")) take(result["top_ids"], result["top_logits"]);
  const ErrorSize error = Difference(actual, reference);
  // Where the weights are bf16 already, all that we round is KV, and the bar is what that costs the reference itself.
  const double more = SelectCpuKernels()->rounds_activations ? kRoundedActivationsRatioMax : 1;
  const auto allowed = [&](const char* of_kv, const char* in_all) {
    return more * (kv_error_only ? kErrorRatioMax * result["bf16_kv_error"][of_kv].get<double>()
                                 : result["tolerance"][in_all].get<double>());
  };
  EXPECT_LE(error.rms, allowed("worst_row_rms", "rms"));
  EXPECT_LE(error.centred_rms, allowed("worst_row_centred_rms", "centred_rms"));
  EXPECT_LE(error.max_abs, allowed("max_abs", "max_abs"));
}

void CheckAll(const std::string& path, const std::string& golden_path, bool kv_error_only,
              const std::set<std::string>& linkers) {
  EngineHarness engine(path);
  const nlohmann::json golden = ReadJson(golden_path);
  std::set<std::string> seen;
  for (const auto& entry : golden["cases"]) {
    Recipe special{"plain", {}};
    const std::vector<PromptSegment> prompt = ReadPrompt(entry, special);
    for (const auto& result : entry["results"]) {
      const std::string linker = result["linker"];
      SCOPED_TRACE(entry["name"].get<std::string>() + " " + linker);
      seen.insert(linker);
      Recipe recipe = special;
      if (linker == "legolink:0") recipe = {"sink4", golden["sink_tokens"]};
      const LinkResult ours = engine.Link(prompt, linker, recipe);
      CheckRows(ours.selected, result);
      CheckLogits(ours.logits, golden, result, kv_error_only);
    }
  }
  for (const std::string& linker : linkers) {
    EXPECT_TRUE(seen.contains(linker)) << "the golden file has no result for " << linker;
  }
}

const std::set<std::string> kForEveryFamily = {"full", "naive", "cacheblend:15", "legolink:1", "legolink:16"};
const std::set<std::string> kEvery = {"full",       "naive",      "naive-last",  "cacheblend:15",
                                      "legolink:0", "legolink:1", "legolink:16", "random:30"};

class LinkerGoldenTest : public ::testing::TestWithParam<GoldenModel> {};

TEST_P(LinkerGoldenTest, EqualsTheDenseLinker) {
  CheckAll(GetParam().path, GetParam().linker_golden, true,
           GetParam().name.starts_with("tiny") ? kEvery : kForEveryFamily);
}

INSTANTIATE_TEST_SUITE_P(Models, LinkerGoldenTest, ::testing::ValuesIn(GoldenModels()),
                         [](const auto& param) { return param.param.name; });

TEST(SmolLm2, LinkersEqualTheDenseLinker) {
  if (ModelPathFromEnvironment().empty()) GTEST_SKIP() << "EPIC_MODEL does not name the default model's file";
  CheckAll(ModelPathFromEnvironment(), SourcePath("tests/golden/smollm2/linkers.json"), false, kEvery);
}

TEST(Qwen25Coder, LinkersEqualTheDenseLinker) {
  if (QwenModelPath().empty()) {
    GTEST_SKIP() << "neither EPIC_QWEN_MODEL nor models/ has it: scripts/fetch_model.sh qwen2.5-coder-0.5b";
  }
  CheckAll(QwenModelPath(), SourcePath("tests/golden/qwen2.5-coder/linkers.json"), false,
           {"full", "naive", "legolink:1", "legolink:16"});
}

}  // namespace
}  // namespace epic::testing
