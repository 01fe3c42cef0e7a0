#include "engine/files/rotation.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/files/file_error.h"

namespace epic {

namespace {

using Kind = RotationScaling::Kind;

// Wavelengths beyond original_context / low_frequency_factor are stretched, those within original_context /
// high_frequency_factor kept; between them the share that is kept rises linearly in the number of turns.
double Llama3Frequency(double frequency, const RotationScaling& scaling) {
  const double turns = scaling.original_context * frequency / (2 * std::numbers::pi);
  const double kept = std::clamp(
      (turns - scaling.low_frequency_factor) / (scaling.high_frequency_factor - scaling.low_frequency_factor), 0.0,
      1.0);
  return kept * frequency + (1 - kept) * frequency / scaling.factor;
}

// The dimension pair that makes `turns` turns within the original context, as a real number.
double DimensionOfTurns(double turns, const ModelConfig& config) {
  return config.head_dim * std::log(config.rope_scaling.original_context / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(config.rope_base));
}

void ScaleByYarn(const ModelConfig& config, std::vector<double>& frequencies) {
  const RotationScaling& scaling = config.rope_scaling;
  double first = DimensionOfTurns(scaling.beta_fast, config);
  double last = DimensionOfTurns(scaling.beta_slow, config);
  if (scaling.truncate) {
    first = std::floor(first);
    last = std::ceil(last);
  }
  first = std::max(first, 0.0);
  last = std::min(last, config.head_dim - 1.0);
  if (first == last) last += 0.001;  // as the reference does: a step instead of a ramp
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double stretched = std::clamp((static_cast<double>(i) - first) / (last - first), 0.0, 1.0);
    frequencies[i] = stretched * frequencies[i] / scaling.factor + (1 - stretched) * frequencies[i];
  }
}

bool IsPositive(double value) { return std::isfinite(value) && value > 0; }

}  // namespace

std::vector<double> RotationFrequencies(const ModelConfig& config) {
  const RotationScaling& scaling = config.rope_scaling;
  std::vector<double> frequencies(config.head_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = std::pow(config.rope_base, -2.0 * static_cast<double>(i) / config.head_dim);
  }
  switch (scaling.kind) {
    case Kind::kNone:
      break;
    case Kind::kLinear:
      for (double& frequency : frequencies) frequency /= scaling.factor;
      break;
    case Kind::kLlama3:
      for (double& frequency : frequencies) frequency = Llama3Frequency(frequency, scaling);
      break;
    case Kind::kYarn:
      ScaleByYarn(config, frequencies);
      break;
    case Kind::kFactors:
      for (size_t i = 0; i < frequencies.size(); ++i) frequencies[i] /= scaling.factors[i];
      break;
  }
  return frequencies;
}

absl::Status CheckRotation(const ModelConfig& config, const std::string& path) {
  if (!std::isfinite(config.rope_base) || config.rope_base <= 1) {
    return BrokenFile(path, "the rotation base is {}, expected a finite number above 1", config.rope_base);
  }
  const RotationScaling& scaling = config.rope_scaling;
  if (!std::isfinite(scaling.factor) || scaling.factor < 1) {
    return BrokenFile(path, "the factor of the rope scaling is {}, expected a finite number of at least 1",
                      scaling.factor);
  }
  if (scaling.kind == Kind::kLlama3 || scaling.kind == Kind::kYarn) {
    if (!std::isfinite(scaling.original_context) || scaling.original_context < 1) {
      return BrokenFile(path, "the original context of the rope scaling is {}, expected at least 1 token",
                        scaling.original_context);
    }
  }
  if (scaling.kind == Kind::kLlama3 &&
      !(IsPositive(scaling.low_frequency_factor) && IsPositive(scaling.high_frequency_factor) &&
        scaling.high_frequency_factor > scaling.low_frequency_factor)) {
    return BrokenFile(path, "the rope scaling has low_freq_factor {} and high_freq_factor {}, expected 0 < low < high",
                      scaling.low_frequency_factor, scaling.high_frequency_factor);
  }
  if (scaling.kind == Kind::kYarn) {
    if (!(IsPositive(scaling.beta_slow) && IsPositive(scaling.beta_fast) && scaling.beta_fast >= scaling.beta_slow)) {
      return BrokenFile(path, "the rope scaling has beta_slow {} and beta_fast {}, expected 0 < slow <= fast",
                        scaling.beta_slow, scaling.beta_fast);
    }
    if (!IsPositive(scaling.attention_scale)) {
      return BrokenFile(path, "the attention factor of the rope scaling is {}, expected more than 0",
                        scaling.attention_scale);
    }
  }
  if (scaling.kind == Kind::kFactors) {
    if (scaling.factors.size() != static_cast<size_t>(config.head_dim / 2)) {
      return BrokenFile(path, "there are {} rotation factors, expected {}, half the head size", scaling.factors.size(),
                        config.head_dim / 2);
    }
    for (const float factor : scaling.factors) {
      if (!IsPositive(factor)) return BrokenFile(path, "a rotation factor is {}, expected more than 0", factor);
    }
  }
  return absl::OkStatus();
}

double YarnAttentionScale(double factor, double multiplier) {
  return factor <= 1 ? 1.0 : 0.1 * multiplier * std::log(factor) + 1.0;
}

std::string RotationScalingText(const RotationScaling& scaling) {
  switch (scaling.kind) {
    case Kind::kNone:
      return "none";
    case Kind::kLinear:
      return fmt::format("linear, factor {}", scaling.factor);
    case Kind::kLlama3:
      return fmt::format("llama3, factor {} over {} tokens", scaling.factor, scaling.original_context);
    case Kind::kYarn:
      return fmt::format("yarn, factor {} over {} tokens, attention scale {:.4g}", scaling.factor,
                         scaling.original_context, scaling.attention_scale);
    case Kind::kFactors: {
      const auto [low, high] = std::minmax_element(scaling.factors.begin(), scaling.factors.end());
      return fmt::format("a factor for each frequency, {} to {}", *low, *high);
    }
  }
  return "";
}

}  // namespace epic
