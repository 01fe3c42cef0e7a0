// What the engine needs to know of a model beyond its tensors: sizes, rotation, special tokens.
//
// One description for every file format. All files are normalised to one convention at load (docs/architecture.md):
// half-split rotation pairs (dimension i turns with dimension i + head_dim/2), matrices as [out, in] rows.
#ifndef EPIC_ENGINE_FILES_MODEL_CONFIG_H_
#define EPIC_ENGINE_FILES_MODEL_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace epic {

struct ModelConfig {
  std::string name;          // the file's own name for the model, or the file name
  std::string architecture;  // "llama"
  int32_t layers = 0;
  int32_t width = 0;  // hidden size
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t ffn_width = 0;
  int32_t vocab_size = 0;
  int32_t context_length = 0;
  float rms_epsilon = 0;
  double rope_base = 0;  // default rotation over all of head_dim; anything else is refused at load
  bool tied_embeddings = false;
};

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_MODEL_CONFIG_H_
