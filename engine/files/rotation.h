// The rotation of queries and keys, as angles per token of position.
//
// Everything is computed in double from what the file says, so that a long context loses nothing to float. Sources: Su
// et al. 2021 (the rotation itself), Chen et al. 2023 (linear), Peng et al. 2023 (YaRN §3.2-3.4), the model card of
// Llama 3.1 (its step between wavelengths). Pure functions.
#ifndef EPIC_ENGINE_FILES_ROTATION_H_
#define EPIC_ENGINE_FILES_ROTATION_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/files/model_config.h"

namespace epic {

// head_dim / 2 angles: dimension i turns with dimension i + head_dim / 2 by position * frequency[i].
// REQUIRES: CheckRotation(config).ok().
std::vector<double> RotationFrequencies(const ModelConfig& config);

// INVALID_ARGUMENT where the numbers of config.rope_base or config.rope_scaling make no rotation. `path` is for
// messages.
absl::Status CheckRotation(const ModelConfig& config, const std::string& path);

// 0.1 ln(factor) + 1: YaRN's scale of queries and keys for an extension by `factor`, times `multiplier` of the
// logarithm.
double YarnAttentionScale(double factor, double multiplier = 1);

// "llama3, factor 8 over 8192 tokens", for people; "none" where the rotation is plain.
std::string RotationScalingText(const RotationScaling& scaling);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_ROTATION_H_
