// Models of the true shapes of published ones with random weights: for measurements of speed and memory where the
// weights themselves are not at hand. Their answers mean nothing, and every table names them as random.
//
// A synthetic model is a folder as any other safetensors model: config.json (marked with kSyntheticWeightsMember),
// tokenizer.json (one token a byte, ChatML), model.safetensors (BF16). Equal shape, layers and seed give equal bytes.
#ifndef EPIC_ENGINE_FILES_SYNTHETIC_MODEL_H_
#define EPIC_ENGINE_FILES_SYNTHETIC_MODEL_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace epic {

// "llama-3.1-8b", "mistral-7b", "yi-coder-9b", "qwen2.5-0.5b", "smollm2-135m".
std::span<const std::string_view> SyntheticShapeNames();

struct SyntheticModelOptions {
  std::string shape;
  int32_t layers = 0;  // 0: as many as the published model has
  uint64_t seed = 1;
  std::string folder;  // is made; must be empty where it exists
  // Called now and then with bytes written and to be written.
  std::function<void(uint64_t, uint64_t)> on_progress;
};

// Bytes of the weights file. INVALID_ARGUMENT for an unknown shape (naming the nearest) or more layers than it has.
[[nodiscard]] absl::StatusOr<uint64_t> SyntheticModelBytes(const SyntheticModelOptions& options);

// Besides those: ALREADY_EXISTS where the folder holds something, RESOURCE_EXHAUSTED where the disk has no room for it,
// with both numbers, and the system's error. config.json is written last, so that an unfinished folder is no model.
[[nodiscard]] absl::Status WriteSyntheticModel(const SyntheticModelOptions& options);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_SYNTHETIC_MODEL_H_
