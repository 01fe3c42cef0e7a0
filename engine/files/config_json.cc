#include "engine/files/config_json.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <limits>
#include <utility>

#include "core/status_macros.h"
#include "engine/files/file_error.h"
#include "engine/files/loaded_model.h"
#include "engine/files/model_family.h"
#include "engine/files/rotation.h"

namespace epic {

namespace {

// Members of config.json that make the computation another one, and what they ask for. A member that is null, false, 0,
// or empty asks for nothing.
struct ForeignMember {
  const char* key;
  const char* reason;
};
constexpr ForeignMember kForeignMembers[] = {
    {"attention_bias", "a bias on the output of attention is not computed"},
    {"mlp_bias", "a bias on the feed-forward layers is not computed"},
    {"use_qk_norm", "norms on queries and keys are computed for the family qwen3 alone"},
    {"num_local_experts", "mixtures of experts are not computed"},
    {"num_experts", "mixtures of experts are not computed"},
    {"n_routed_experts", "mixtures of experts are not computed"},
    {"logit_scale", "scaled logits are not computed"},
    {"logits_scaling", "scaled logits are not computed"},
    {"embedding_multiplier", "scaled embeddings are not computed"},
    {"residual_multiplier", "scaled residuals are not computed"},
    {"attention_multiplier", "an attention scale other than 1/sqrt(head size) is not computed"},
    {"query_pre_attn_scalar", "an attention scale other than 1/sqrt(head size) is not computed"},
    {"final_logit_softcapping", "logit capping is not computed"},
    {"attn_logit_softcapping", "logit capping is not computed"},
    {"clip_qkv", "clamped activations are not computed"},
    {"no_rope_layers", "layers without rotation are not computed"},
    {"no_rope_layer_interval", "layers without rotation are not computed"},
    {"quantization_config", "only plain F32, F16 and BF16 weights are run"},
};

bool AsksForNothing(const nlohmann::json* member) {
  if (member == nullptr) return true;
  if (member->is_boolean()) return !member->get<bool>();
  if (member->is_number()) return member->get<double>() == 0;
  return (member->is_array() || member->is_object()) && member->empty();
}

absl::Status RefuseForeignMembers(const JsonObject& config, const ModelFamily& family) {
  for (const ForeignMember& foreign : kForeignMembers) {
    const nlohmann::json* member = config.Find(foreign.key);
    if (!AsksForNothing(member)) {
      return NotRunHere(config.path(), "{} is {}: {}", foreign.key, JsonText(*member), foreign.reason);
    }
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> use_window, config.Bool("use_sliding_window"));
  const nlohmann::json* window = config.Find("sliding_window");
  if (use_window.value_or(!family.sliding_window_has_switch) && !AsksForNothing(window)) {
    return NotRunHere(config.path(), "sliding_window is {}: sliding-window attention is not computed",
                      JsonText(*window));
  }
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json* layer_types, config.Array("layer_types"));
  for (size_t i = 0; layer_types != nullptr && i < layer_types->size(); ++i) {
    if ((*layer_types)[i] != "full_attention") {
      return NotRunHere(config.path(), "layer_types[{}] is {}; \"full_attention\" is run", i,
                        JsonText((*layer_types)[i]));
    }
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> activation, config.String("hidden_act"));
  if (activation.value_or("silu") != "silu") {
    return NotRunHere(config.path(), "hidden_act is {}; \"silu\" is run", Quoted(*activation));
  }
  return absl::OkStatus();
}

// Which of the known families config.json describes, by both of its names for it.
absl::StatusOr<const ModelFamily*> FamilyFromJson(const JsonObject& config) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> model_type, config.String("model_type"));
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json* architectures, config.Array("architectures"));
  if (!model_type.has_value() && architectures == nullptr) {
    return BrokenFile(config.path(), "neither model_type nor architectures is there");
  }
  // Files older than model_type are Llama's.
  const std::string type = model_type.value_or("llama");
  const ModelFamily* family = FamilyOfModelType(type);
  if (family == nullptr) {
    return NotRunHere(config.path(), "the architecture is {}: {}", Quoted(type), ReasonAgainstArchitecture(type));
  }
  if (architectures == nullptr) return family;
  if (architectures->size() != 1 || architectures->front() != family->hf_architecture) {
    const std::string seen = architectures->size() == 1 ? JsonText(architectures->front()) : JsonText(*architectures);
    return NotRunHere(config.path(), "architectures is {}; [\"{}\"] is run for model_type {}", seen,
                      family->hf_architecture, Quoted(type));
  }
  return family;
}

// Members of a description of the rotation that are understood; any other might ask for something else.
constexpr const char* kRotationMembers[] = {"rope_type",
                                            "type",
                                            "rope_theta",
                                            "factor",
                                            "original_max_position_embeddings",
                                            "low_freq_factor",
                                            "high_freq_factor",
                                            "attention_factor",
                                            "beta_fast",
                                            "beta_slow",
                                            "mscale",
                                            "mscale_all_dim",
                                            "truncate",
                                            "partial_rotary_factor",
                                            "finetuned"};

absl::Status RefuseRotationType(const JsonObject& rotation, std::string_view member, const std::string& type) {
  if (type == "dynamic") {
    return NotRunHere(rotation.path(),
                      "{}.rope_type is \"dynamic\": frequencies that change with the length (dynamic NTK) cannot be "
                      "linked",
                      member);
  }
  if (type == "longrope" || type == "su") {
    return NotRunHere(rotation.path(),
                      "{}.rope_type is {}: rotation factors that switch with the length (LongRoPE) are not computed",
                      member, Quoted(type));
  }
  return NotRunHere(rotation.path(), "{}.rope_type is {}; \"default\", \"linear\", \"llama3\" and \"yarn\" are run",
                    member, Quoted(type));
}

// A number that the kind of scaling cannot do without.
absl::StatusOr<double> RequiredNumber(const JsonObject& rotation, std::string_view key) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> value, rotation.Number(key));
  if (!value.has_value()) return BrokenFile(rotation.path(), "{} is missing", rotation.PlaceOf(key));
  return *value;
}

absl::Status ReadYarn(const JsonObject& rotation, RotationScaling& scaling) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> fast, rotation.Number("beta_fast"));
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> slow, rotation.Number("beta_slow"));
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> truncate, rotation.Bool("truncate"));
  scaling.beta_fast = fast.value_or(scaling.beta_fast);
  scaling.beta_slow = slow.value_or(scaling.beta_slow);
  scaling.truncate = truncate.value_or(true);
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> attention, rotation.Number("attention_factor"));
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> scale, rotation.Number("mscale"));
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> scale_of_all, rotation.Number("mscale_all_dim"));
  if (attention.has_value()) {
    scaling.attention_scale = *attention;
  } else if (scale.value_or(0) != 0 && scale_of_all.value_or(0) != 0) {
    scaling.attention_scale =
        YarnAttentionScale(scaling.factor, *scale) / YarnAttentionScale(scaling.factor, *scale_of_all);
  } else {
    scaling.attention_scale = YarnAttentionScale(scaling.factor);
  }
  return absl::OkStatus();
}

// One description of the rotation, found under `member`.
absl::Status ReadScaling(const JsonObject& json, const JsonObject& rotation, std::string_view member,
                         ModelConfig& config) {
  for (const auto& [key, value] : rotation.value().items()) {
    if (std::find(std::begin(kRotationMembers), std::end(kRotationMembers), key) == std::end(kRotationMembers)) {
      return NotRunHere(rotation.path(), "{}.{} is not known and may change the rotation", member, Quoted(key));
    }
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> partial, rotation.Number("partial_rotary_factor"));
  if (partial.value_or(1) != 1) {
    return NotRunHere(rotation.path(), "{}.partial_rotary_factor is {}; partial rotation is not computed", member,
                      *partial);
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> new_type, rotation.String("rope_type"));
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> old_type, rotation.String("type"));
  const std::string type = new_type.has_value() ? *new_type : old_type.value_or("default");
  if (type == "default") return absl::OkStatus();

  RotationScaling& scaling = config.rope_scaling;
  EPIC_ASSIGN_OR_RETURN(std::optional<double> original, rotation.Number("original_max_position_embeddings"));
  if (!original.has_value()) {
    EPIC_ASSIGN_OR_RETURN(original, json.Number("original_max_position_embeddings"));
  }
  scaling.original_context = original.value_or(config.context_length);
  if (type == "linear") {
    scaling.kind = RotationScaling::Kind::kLinear;
    EPIC_ASSIGN_OR_RETURN(scaling.factor, RequiredNumber(rotation, "factor"));
    return absl::OkStatus();
  }
  if (type == "llama3") {
    scaling.kind = RotationScaling::Kind::kLlama3;
    EPIC_ASSIGN_OR_RETURN(scaling.factor, RequiredNumber(rotation, "factor"));
    EPIC_ASSIGN_OR_RETURN(scaling.low_frequency_factor, RequiredNumber(rotation, "low_freq_factor"));
    EPIC_ASSIGN_OR_RETURN(scaling.high_frequency_factor, RequiredNumber(rotation, "high_freq_factor"));
    return absl::OkStatus();
  }
  if (type == "yarn") {
    scaling.kind = RotationScaling::Kind::kYarn;
    EPIC_ASSIGN_OR_RETURN(const std::optional<double> factor, rotation.Number("factor"));
    scaling.factor = factor.value_or(config.context_length / scaling.original_context);
    return ReadYarn(rotation, scaling);
  }
  return RefuseRotationType(rotation, member, type);
}

// REQUIRES: config.context_length and config.head_dim are read.
absl::Status ReadRotation(const JsonObject& json, ModelConfig& config) {
  EPIC_ASSIGN_OR_RETURN(std::optional<double> base, json.Number("rope_theta"));
  for (const char* member : {"rope_scaling", "rope_parameters"}) {
    EPIC_ASSIGN_OR_RETURN(const std::optional<JsonObject> rotation, json.Object(member));
    if (!rotation.has_value()) continue;
    const RotationScaling before = std::exchange(config.rope_scaling, {});
    EPIC_RETURN_IF_ERROR(ReadScaling(json, *rotation, member, config));
    if (before.kind != RotationScaling::Kind::kNone && before != config.rope_scaling) {
      return BrokenFile(json.path(), "rope_scaling and rope_parameters describe different rotations");
    }
    EPIC_ASSIGN_OR_RETURN(const std::optional<double> inner_base, rotation->Number("rope_theta"));
    if (!inner_base.has_value()) continue;
    if (base.has_value() && *base != *inner_base) {
      return BrokenFile(json.path(), "rope_theta is {}, but {}.rope_theta is {}", *base, member, *inner_base);
    }
    base = inner_base;
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> partial, json.Number("partial_rotary_factor"));
  if (partial.value_or(1) != 1) {
    return NotRunHere(json.path(), "partial_rotary_factor is {}; partial rotation is not computed", *partial);
  }
  config.rope_base = base.value_or(10000.0);
  return absl::OkStatus();
}

absl::StatusOr<int32_t> Size(const JsonObject& config, std::string_view key, std::optional<int32_t> absent) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<int64_t> value, config.Integer(key));
  if (!value.has_value()) {
    if (!absent.has_value()) return BrokenFile(config.path(), "{} is missing", key);
    return *absent;
  }
  if (*value < 1 || *value > std::numeric_limits<int32_t>::max()) {
    return BrokenFile(config.path(), "{} is {}, expected 1 to {}", key, *value, std::numeric_limits<int32_t>::max());
  }
  return static_cast<int32_t>(*value);
}

// The folder's own name, whichever way the path to it is written.
std::string FolderName(const std::string& folder) {
  std::error_code error;
  const std::filesystem::path resolved = std::filesystem::canonical(folder, error);
  return error || !resolved.has_filename() ? folder : resolved.filename().string();
}

}  // namespace

absl::StatusOr<ModelConfig> ConfigFromJson(const JsonObject& json) {
  EPIC_ASSIGN_OR_RETURN(const ModelFamily* family, FamilyFromJson(json));
  EPIC_RETURN_IF_ERROR(RefuseForeignMembers(json, *family));
  ModelConfig config;
  config.architecture = family->name;
  config.qkv_bias = family->qkv_bias;
  config.qk_norm = family->qk_norm;
  config.name = FolderName(std::filesystem::path(json.path()).parent_path().string());
  EPIC_ASSIGN_OR_RETURN(config.layers, Size(json, "num_hidden_layers", std::nullopt));
  EPIC_ASSIGN_OR_RETURN(config.width, Size(json, "hidden_size", std::nullopt));
  EPIC_ASSIGN_OR_RETURN(config.heads, Size(json, "num_attention_heads", std::nullopt));
  EPIC_ASSIGN_OR_RETURN(config.kv_heads, Size(json, "num_key_value_heads", config.heads));
  EPIC_ASSIGN_OR_RETURN(config.ffn_width, Size(json, "intermediate_size", std::nullopt));
  EPIC_ASSIGN_OR_RETURN(config.vocab_size, Size(json, "vocab_size", std::nullopt));
  EPIC_ASSIGN_OR_RETURN(config.context_length, Size(json, "max_position_embeddings", std::nullopt));
  if (json.Find("head_dim") == nullptr && config.width % config.heads != 0) {
    return BrokenFile(json.path(), "hidden_size {} cannot be shared evenly by {} heads, and head_dim is missing",
                      config.width, config.heads);
  }
  EPIC_ASSIGN_OR_RETURN(config.head_dim, Size(json, "head_dim", config.width / config.heads));
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> epsilon, json.Number("rms_norm_eps"));
  if (!epsilon.has_value()) return BrokenFile(json.path(), "rms_norm_eps is missing");
  config.rms_epsilon = static_cast<float>(*epsilon);
  EPIC_RETURN_IF_ERROR(ReadRotation(json, config));
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> tied, json.Bool("tie_word_embeddings"));
  config.tied_embeddings = tied.value_or(false);
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> synthetic, json.Bool(kSyntheticWeightsMember));
  config.is_synthetic = synthetic.value_or(false);
  if (config.is_synthetic) config.name += kSyntheticNameSuffix;
  EPIC_RETURN_IF_ERROR(CheckModelConfig(config, json.path()));
  return config;
}

absl::StatusOr<ModelConfig> ConfigFromJsonFile(const std::string& path) {
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json document, ReadJsonFile(path));
  return ConfigFromJson(JsonObject(document, path));
}

}  // namespace epic
