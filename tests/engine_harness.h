// Running the engine's parts by hand, without its scheduler: compile a chunk, link a prompt, read the logits.
// Chunk KV lies in memory that is made read-only once it is sealed, so that a stray write faults.
#ifndef EPIC_TESTS_ENGINE_HARNESS_H_
#define EPIC_TESTS_ENGINE_HARNESS_H_

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "engine/cpu/cpu_backend.h"
#include "engine/files/model_file.h"
#include "engine/link_job.h"
#include "engine/prompt.h"
#include "nlohmann/json.hpp"

namespace epic::testing {

// A file of the source tree, by its path from the root.
std::string SourcePath(const std::string& path);
nlohmann::json ReadJson(const std::string& path);
// The default model's file from the environment (EPIC_MODEL), or empty.
std::string ModelPathFromEnvironment();
// Qwen2.5-Coder-0.5B-Instruct: from the environment (EPIC_QWEN_MODEL), else where scripts/fetch_model.sh puts it in the
// source tree, else empty.
std::string QwenModelPath();

// How much further from the reference results may be where the processor's kernels round activations to bf16
// (CpuKernels::rounds_activations), measured with room to spare.
inline constexpr double kRoundedActivationsRatioMax = 1.5;

// A tiny model of the source tree with golden outputs (tests/golden/README.md).
struct GoldenModel {
  std::string name;           // letters and digits, for the names of tests
  std::string path;           // a GGUF file or a safetensors folder
  std::string model_golden;   // path of the logits
  std::string linker_golden;  // path of the linkers' logits, or empty
};
// `tiny` and every folder of tests/golden/families, in one format or in both.
std::vector<GoldenModel> SafetensorsGoldenModels();
std::vector<GoldenModel> GgufGoldenModels();
std::vector<GoldenModel> GoldenModels();
void PrintTo(const GoldenModel& model, std::ostream* out);

struct LinkResult {
  std::vector<float> logits;       // at the prompt's last position
  std::vector<int32_t> selected;   // rows that ran through all layers
  std::vector<double> deviations;  // CacheBlend
  double recomputed_rows = 0;
};

class EngineHarness {
 public:
  // Fails the test (and aborts) where the model cannot be opened.
  explicit EngineHarness(const std::string& model_path, int threads = 2);

  const ModelConfig& config() const { return backend_->config(); }
  Backend& backend() { return *backend_; }
  const ModelFile& file() const { return *file_; }

  ChunkKvPtr Compile(const std::vector<int32_t>& tokens, const Recipe& recipe, int32_t piece_rows = 100,
                     std::vector<ChunkKvPtr> context = {});
  // `prompt` as segments; chunks without KV are compiled by `recipe`, fresh spans of naive-last too.
  LinkResult Link(std::vector<PromptSegment> prompt, const std::string& linker, const Recipe& recipe = {"plain", {}},
                  int32_t first_position = 0, int32_t piece_rows = 64);
  // Logits of every row of a prompt that runs in full, [rows][vocab_size].
  std::vector<std::vector<float>> AllLogits(const std::vector<int32_t>& tokens, int32_t piece_rows = 64);

 private:
  std::unique_ptr<ModelFile> file_;
  std::unique_ptr<CpuBackend> backend_;
};

// Largest and root-mean-square difference. `centred_rms`: after the mean difference of each row was taken off, because
// rounding moves all logits of a trained model together, which hides mistakes and which no softmax sees.
struct ErrorSize {
  double max_abs = 0;
  double rms = 0;
  double centred_rms = 0;
};
class ErrorSum {
 public:
  void AddRow(const std::vector<float>& a, const std::vector<float>& b);
  ErrorSize size() const;

 private:
  double max_abs_ = 0;
  double squares_ = 0;
  double centred_squares_ = 0;
  size_t count_ = 0;
};
// Of one row.
ErrorSize Difference(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace epic::testing

#endif  // EPIC_TESTS_ENGINE_HARNESS_H_
