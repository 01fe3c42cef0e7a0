// What the readers of the formats hand to OpenModelFile, and the checks that all formats share.
//
// Each reader (gguf_model.h, safetensors_model.h) finds out the configuration and the tokenizer in its own way and then
// calls PlaceCanonicalTensors, which knows what tensors a decoder has, by every format's names.
#ifndef EPIC_ENGINE_FILES_LOADED_MODEL_H_
#define EPIC_ENGINE_FILES_LOADED_MODEL_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/files/mapped_file.h"
#include "engine/files/model_config.h"
#include "engine/files/model_file.h"
#include "engine/text/tokenizer_spec.h"

namespace epic {

struct LoadedModel {
  std::vector<MappedFile> weights;  // the tensors view their bytes
  ModelConfig config;
  TokenizerSpec tokenizer;
  bool rotation_pairs_are_adjacent = false;
  std::vector<std::string> tensor_names;      // canonical, in the order of the computation
  std::map<std::string, TensorView> tensors;  // by canonical name
};

// One tensor as a file's own table has it.
struct StoredTensor {
  std::string stored_type;           // the file's name for the type, for the refusal
  const TensorView* view = nullptr;  // null where DequantizeRows has no such type
  const std::vector<int64_t>* shape = nullptr;
};

enum class TensorNaming { kGguf, kSafetensors };

struct ExpectedTensor {
  std::string canonical;
  std::string stored;  // the file's own name for it
  std::vector<int64_t> shape;
};

// Every tensor that a model of this configuration has, in the order of the computation.
std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config, TensorNaming naming);

// Sizes within what the engine runs: INVALID_ARGUMENT where they contradict each other or exceed a limit, UNIMPLEMENTED
// where they make sense but not to us. `path` is for messages.
absl::Status CheckModelConfig(const ModelConfig& config, const std::string& path);

// Fills model.tensor_names and model.tensors from `stored` (by the file's own names), checking that every tensor of
// model.config is there, of a known type and of the right shape, and that there is none besides: a tensor that we would
// leave out of the computation (a bias, rotation factors, an expert) makes it a different model.
// REQUIRES: CheckModelConfig(model.config).ok().
absl::Status PlaceCanonicalTensors(TensorNaming naming, const std::map<std::string, StoredTensor>& stored,
                                   const std::string& path, LoadedModel& model);

// Checks what holds of every tokenizer (ids in range, at most config.vocab_size tokens, merges of two parts) and fills
// the ids up to config.vocab_size with unused tokens.
absl::Status CheckAndPadTokenizer(const ModelConfig& config, const std::string& path, TokenizerSpec& tokenizer);

// The text of the token that stands for an id which the tokenizer leaves free.
std::string UnusedTokenText(size_t id);

inline constexpr int32_t kVocabularyMax = 1 << 22;

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_LOADED_MODEL_H_
