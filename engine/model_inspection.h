// What a model file is and whether EPIC runs it, found out without loading the weights.
//
// The file is mapped and its headers are read; the pages of the weights are not touched.
#ifndef EPIC_ENGINE_MODEL_INSPECTION_H_
#define EPIC_ENGINE_MODEL_INSPECTION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/files/model_config.h"

namespace epic {

struct StoredType {
  std::string name;  // "Q4_K"
  int64_t tensors = 0;
  int64_t elements = 0;
  int64_t bytes = 0;
};

struct ModelInspection {
  // OK where EPIC runs the model; else why not, in one sentence. What is known of it is below all the same.
  absl::Status runs;
  std::string format;                 // "GGUF" or "safetensors"; empty where it is neither
  std::optional<ModelConfig> config;  // absent where the configuration itself is refused

  // Only where `runs` is OK.
  std::vector<StoredType> types;  // most bytes first
  int64_t parameters = 0;
  int64_t stored_bytes = 0;
  std::string tokenizer;  // "bpe, pre-tokenizer llama-bpe, 128256 tokens"
  bool starts_with_bos = false;

  // Its name, or why a conversation cannot be laid out ("raw prompts still work").
  std::string chat_template;
  bool has_chat_template = false;

  // Where the tensors are known: as the CPU backend keeps them, both forms of a quantised matrix.
  std::optional<uint64_t> weight_memory_bytes;

  // Where the configuration is known.
  std::optional<uint64_t> available_memory_bytes;  // of this machine, now
  uint64_t kv_bytes_per_token = 0;                 // bf16
};

ModelInspection InspectModel(const std::string& path);

}  // namespace epic

#endif  // EPIC_ENGINE_MODEL_INSPECTION_H_
