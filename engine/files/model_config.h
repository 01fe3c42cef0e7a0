// What the engine needs to know of a model beyond its tensors: sizes, what the family adds, rotation.
//
// One description for every file format and family. All files are normalised to one convention at load
// (docs/architecture.md): half-split rotation pairs (dimension i turns with dimension i + head_dim/2), matrices as
// [out, in] rows. Loading, checking and the forward pass follow from what stands here; none of them asks for a family
// by name. Plain data.
#ifndef EPIC_ENGINE_FILES_MODEL_CONFIG_H_
#define EPIC_ENGINE_FILES_MODEL_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace epic {

// How the rotation's frequencies differ from base^(-2i / head_dim); docs/models.md has the formulas. Each kind is
// linear in the position, which is what lets a cached key be used at any place.
struct RotationScaling {
  enum class Kind {
    kNone,
    kLinear,   // every frequency divided by `factor`
    kLlama3,   // slow ones divided by `factor`, fast ones kept, a smooth step between (Llama 3.1)
    kYarn,     // the same idea with a ramp over the dimensions, and a scale on queries and keys (YaRN)
    kFactors,  // each frequency divided by its own entry of `factors` (what GGUF carries for kLlama3)
  } kind = Kind::kNone;
  double factor = 1;
  double original_context = 0;       // kLlama3, kYarn: tokens that the model was first trained for
  double low_frequency_factor = 1;   // kLlama3
  double high_frequency_factor = 4;  // kLlama3
  double beta_fast = 32;             // kYarn: turns within original_context above which a frequency is kept
  double beta_slow = 1;              // kYarn: turns below which it is divided by `factor`
  bool truncate = true;              // kYarn: the ramp's ends are whole dimensions
  double attention_scale = 1;        // kYarn: queries and keys are each multiplied by it
  std::vector<float> factors = {};   // kFactors: head_dim / 2 of them

  bool operator==(const RotationScaling&) const = default;
};

struct ModelConfig {
  std::string name;          // the file's own name for the model, or the file name
  std::string architecture;  // the family's name, see model_family.h
  int32_t layers = 0;
  int32_t width = 0;  // hidden size
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t ffn_width = 0;
  int32_t vocab_size = 0;
  int32_t context_length = 0;
  float rms_epsilon = 0;
  double rope_base = 0;
  RotationScaling rope_scaling;
  bool tied_embeddings = false;
  bool qkv_bias = false;      // q, k and v have a bias ("q_bias", ...)
  bool qk_norm = false;       // each head's q and k pass an RMS norm before the rotation ("q_norm", "k_norm")
  bool is_synthetic = false;  // random weights, made for measurements of speed
};

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_MODEL_CONFIG_H_
