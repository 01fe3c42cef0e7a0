// The families of decoders that EPIC runs, one row each, and those that it is asked for and refuses.
//
// What varies between the families is in this table and nowhere else: how the files name them, how GGUF stores their
// rotation pairs, and which tensors they have beside a plain Llama decoder's. Adding a family is a row here and a
// golden under tests/golden/families. Llama 2 and 3, Yi and SmolLM2 are all "llama"; their differences (sizes,
// rotation, tokenizer) are in the files themselves. Immutable, safe from any thread.
#ifndef EPIC_ENGINE_FILES_MODEL_FAMILY_H_
#define EPIC_ENGINE_FILES_MODEL_FAMILY_H_

#include <span>
#include <string>
#include <string_view>

namespace epic {

struct ModelFamily {
  std::string_view name;  // ModelConfig::architecture
  std::string_view
      gguf_architecture;             // general.architecture and the prefix of its keys; empty: stored as another family
  std::string_view model_type;       // of config.json
  std::string_view hf_architecture;  // the one entry of config.json's "architectures"
  // Whether GGUF stores q and k with adjacent rotation pairs (its converters permute them for "llama" alone).
  bool gguf_pairs_are_adjacent = false;
  bool qkv_bias = false;
  bool qk_norm = false;
  // Whether config.json's sliding_window counts only where use_sliding_window says so.
  bool sliding_window_has_switch = false;
};

std::span<const ModelFamily> ModelFamilies();

// Null where no family has this name.
const ModelFamily* FamilyOfGguf(std::string_view gguf_architecture);
const ModelFamily* FamilyOfModelType(std::string_view model_type);

// Why a model of this architecture (GGUF's or config.json's name for it) is not run, as the rest of a sentence.
std::string ReasonAgainstArchitecture(std::string_view architecture);

// "llama, mistral, qwen2 and qwen3", for messages.
std::string FamilyNames();

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_MODEL_FAMILY_H_
