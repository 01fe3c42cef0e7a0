// A folder with config.json, tokenizer.json and safetensors weights as a model. Opened through OpenModelFile
// (model_file.h), which states the errors.
#ifndef EPIC_ENGINE_FILES_SAFETENSORS_MODEL_H_
#define EPIC_ENGINE_FILES_SAFETENSORS_MODEL_H_

#include <string>

#include "absl/status/statusor.h"
#include "engine/files/loaded_model.h"

namespace epic {

// `weights_path` is the safetensors file, or the index of several (safetensors_shards.h); the other files lie in
// `folder`.
[[nodiscard]] absl::StatusOr<LoadedModel> LoadSafetensorsModel(const std::string& folder,
                                                               const std::string& weights_path);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_SAFETENSORS_MODEL_H_
