// The configuration in a config.json, as transformers 4 and 5 write it, for every family of model_family.h.
//
// Everything in it that changes the computation from the one that is run is refused by name. Errors as OpenModelFile.
// Pure functions but for reading the file.
#ifndef EPIC_ENGINE_FILES_CONFIG_JSON_H_
#define EPIC_ENGINE_FILES_CONFIG_JSON_H_

#include <string>

#include "absl/status/statusor.h"
#include "engine/files/json_file.h"
#include "engine/files/model_config.h"

namespace epic {

// The member of config.json by which `epic models synth` marks random weights, and what it adds to the model's name, so
// that no table can show such a model as a real one.
inline constexpr const char* kSyntheticWeightsMember = "epic_synthetic_weights";
inline constexpr const char* kSyntheticNameSuffix = " (random weights)";

[[nodiscard]] absl::StatusOr<ModelConfig> ConfigFromJson(const JsonObject& json);
[[nodiscard]] absl::StatusOr<ModelConfig> ConfigFromJsonFile(const std::string& path);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_CONFIG_JSON_H_
