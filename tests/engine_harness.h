// Running the engine's parts by hand, without its scheduler: compile a chunk, link a prompt, read the logits.
// Chunk KV lies in memory that is made read-only once it is sealed, so that a stray write faults.
#ifndef EPIC_TESTS_ENGINE_HARNESS_H_
#define EPIC_TESTS_ENGINE_HARNESS_H_

#include <cstdint>
#include <memory>
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

  ChunkKvPtr Compile(const std::vector<int32_t>& tokens, const Recipe& recipe, int32_t piece_rows = 100);
  // `prompt` as segments; chunks without KV are compiled by `recipe`, fresh spans of naive-last too.
  LinkResult Link(std::vector<PromptSegment> prompt, const std::string& linker, const Recipe& recipe = {"plain", {}},
                  int32_t first_position = 0, int32_t piece_rows = 64);
  // Logits of every row of a prompt that runs in full, [rows][vocab_size].
  std::vector<std::vector<float>> AllLogits(const std::vector<int32_t>& tokens, int32_t piece_rows = 64);

 private:
  std::unique_ptr<ModelFile> file_;
  std::unique_ptr<CpuBackend> backend_;
};

struct ErrorSize {
  double max_abs = 0;
  double rms = 0;
};
ErrorSize Difference(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace epic::testing

#endif  // EPIC_TESTS_ENGINE_HARNESS_H_
