// A folder with config.json, tokenizer.json and one safetensors file as a model. Opened through OpenModelFile
// (model_file.h), which states the errors.
#ifndef EPIC_ENGINE_FILES_SAFETENSORS_MODEL_H_
#define EPIC_ENGINE_FILES_SAFETENSORS_MODEL_H_

#include <string>

#include "absl/status/statusor.h"
#include "engine/files/loaded_model.h"
#include "engine/files/model_config.h"

namespace epic {

// `weights_path` is the safetensors file, the other files lie beside it in `folder`.
[[nodiscard]] absl::StatusOr<LoadedModel> LoadSafetensorsModel(const std::string& folder,
                                                               const std::string& weights_path);

// The configuration in a config.json of LlamaForCausalLM, as transformers 4 and 5 write it. Everything in it that
// changes the computation from the plain one is refused by name.
[[nodiscard]] absl::StatusOr<ModelConfig> ConfigFromJsonFile(const std::string& path);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_SAFETENSORS_MODEL_H_
