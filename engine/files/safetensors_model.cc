#include "engine/files/safetensors_model.h"

#include <cstring>
#include <filesystem>
#include <limits>
#include <utility>

#include "core/status_macros.h"
#include "engine/files/file_error.h"
#include "engine/files/json_file.h"
#include "engine/files/safetensors.h"
#include "engine/files/tokenizer_json.h"

namespace epic {

namespace {

// Members of config.json that make the computation another one, and what they ask for. A member that is null, false, 0,
// or empty asks for nothing.
struct ForeignMember {
  const char* key;
  const char* reason;
};
constexpr ForeignMember kForeignMembers[] = {
    {"attention_bias", "a bias on attention is not computed"},
    {"mlp_bias", "a bias on the feed-forward layers is not computed"},
    {"use_qk_norm", "norms on queries and keys are not computed"},
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

absl::Status RefuseForeignMembers(const JsonObject& config) {
  for (const ForeignMember& foreign : kForeignMembers) {
    const nlohmann::json* member = config.Find(foreign.key);
    if (!AsksForNothing(member)) {
      return NotRunHere(config.path(), "{} is {}: {}", foreign.key, JsonText(*member), foreign.reason);
    }
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> use_window, config.Bool("use_sliding_window"));
  const nlohmann::json* window = config.Find("sliding_window");
  if (use_window.value_or(window != nullptr) && !AsksForNothing(window)) {
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

absl::Status CheckArchitecture(const JsonObject& config) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> model_type, config.String("model_type"));
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json* architectures, config.Array("architectures"));
  if (!model_type.has_value() && architectures == nullptr) {
    return BrokenFile(config.path(), "neither model_type nor architectures is there");
  }
  if (model_type.value_or("llama") != "llama") {
    return NotRunHere(config.path(), "the architecture is {}; \"llama\" is run", Quoted(*model_type));
  }
  if (architectures != nullptr && (architectures->size() != 1 || architectures->front() != "LlamaForCausalLM")) {
    return NotRunHere(config.path(), "architectures is {}; [\"LlamaForCausalLM\"] is run",
                      architectures->size() == 1 ? JsonText(architectures->front()) : JsonText(*architectures));
  }
  return absl::OkStatus();
}

// A description of the rotation, under whichever of its two names: it must ask for the plain one.
absl::Status CheckRotation(const JsonObject& rotation, std::string_view member) {
  for (const char* key : {"rope_type", "type"}) {
    EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> type, rotation.String(key));
    if (type.value_or("default") != "default") {
      return NotRunHere(rotation.path(), "{}.{} is {}; rope scaling is not computed, only \"default\" is run", member,
                        key, Quoted(*type));
    }
  }
  for (const char* key : {"factor", "partial_rotary_factor"}) {
    EPIC_ASSIGN_OR_RETURN(const std::optional<double> factor, rotation.Number(key));
    if (factor.value_or(1) != 1) {
      return NotRunHere(rotation.path(), "{}.{} is {}; neither rope scaling nor partial rotation is computed", member,
                        key, *factor);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<double> RotationBase(const JsonObject& config) {
  EPIC_ASSIGN_OR_RETURN(std::optional<double> base, config.Number("rope_theta"));
  for (const char* member : {"rope_scaling", "rope_parameters"}) {
    EPIC_ASSIGN_OR_RETURN(const std::optional<JsonObject> rotation, config.Object(member));
    if (!rotation.has_value()) continue;
    EPIC_RETURN_IF_ERROR(CheckRotation(*rotation, member));
    EPIC_ASSIGN_OR_RETURN(const std::optional<double> inner_base, rotation->Number("rope_theta"));
    if (!inner_base.has_value()) continue;
    if (base.has_value() && *base != *inner_base) {
      return BrokenFile(config.path(), "rope_theta is {}, but {}.rope_theta is {}", *base, member, *inner_base);
    }
    base = inner_base;
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> partial, config.Number("partial_rotary_factor"));
  if (partial.value_or(1) != 1) {
    return NotRunHere(config.path(), "partial_rotary_factor is {}; partial rotation is not computed", *partial);
  }
  return base.value_or(10000.0);
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

absl::StatusOr<ModelConfig> ConfigFromJson(const JsonObject& json) {
  EPIC_RETURN_IF_ERROR(CheckArchitecture(json));
  EPIC_RETURN_IF_ERROR(RefuseForeignMembers(json));
  ModelConfig config;
  config.architecture = "llama";
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
  EPIC_ASSIGN_OR_RETURN(config.rope_base, RotationBase(json));
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> tied, json.Bool("tie_word_embeddings"));
  config.tied_embeddings = tied.value_or(false);
  EPIC_RETURN_IF_ERROR(CheckModelConfig(config, json.path()));
  return config;
}

// A token id of config.json: a number, or the first of several.
absl::StatusOr<std::optional<int32_t>> SequenceToken(const JsonObject& config, std::string_view key) {
  const nlohmann::json* member = config.Find(key);
  if (member == nullptr) return std::nullopt;
  const nlohmann::json& id = member->is_array() && !member->empty() ? member->front() : *member;
  if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(kVocabularyMax)) {
    return BrokenFile(config.path(), "{} is {}, expected a token id", key, JsonText(id));
  }
  return id.get<int32_t>();
}

// Stored tensors without those that repeat what is known otherwise: the table of rotation frequencies that old files
// carry, and an output matrix equal to the embedding that it is tied to.
absl::StatusOr<std::map<std::string, StoredTensor>> TensorsOf(const SafetensorsFile& file, const ModelConfig& config,
                                                              std::map<std::string, TensorView>& views,
                                                              const std::string& path) {
  std::map<std::string, StoredTensor> stored;
  for (const SafetensorsTensor& tensor : file.tensors) {
    if (tensor.name.ends_with("rotary_emb.inv_freq")) continue;
    StoredTensor& entry = stored[tensor.name];
    entry.stored_type = tensor.dtype;
    entry.shape = &tensor.shape;
    if (!tensor.type.has_value()) continue;
    entry.view =
        &views
             .emplace(
                 tensor.name,
                 TensorView{.name = tensor.name, .type = *tensor.type, .shape = tensor.shape, .bytes = tensor.bytes})
             .first->second;
  }
  const auto output = stored.find("lm_head.weight");
  const auto embedding = stored.find("model.embed_tokens.weight");
  if (!config.tied_embeddings || output == stored.end() || embedding == stored.end()) return stored;
  const TensorView* a = output->second.view;
  const TensorView* b = embedding->second.view;
  if (a == nullptr || b == nullptr || a->type != b->type || a->bytes.size() != b->bytes.size() ||
      std::memcmp(a->bytes.data(), b->bytes.data(), a->bytes.size()) != 0) {
    return NotRunHere(path, "config.json ties the output to the embedding, but \"lm_head.weight\" is another matrix");
  }
  stored.erase(output);
  return stored;
}

}  // namespace

absl::StatusOr<ModelConfig> ConfigFromJsonFile(const std::string& path) {
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json document, ReadJsonFile(path));
  return ConfigFromJson(JsonObject(document, path));
}

absl::StatusOr<LoadedModel> LoadSafetensorsModel(const std::string& folder, const std::string& weights_path) {
  const std::string config_path = folder + "/config.json";
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json document, ReadJsonFile(config_path));
  const JsonObject json(document, config_path);
  EPIC_ASSIGN_OR_RETURN(ModelConfig config, ConfigFromJson(json));
  SequenceTokens sequence_tokens;
  EPIC_ASSIGN_OR_RETURN(sequence_tokens.bos_id, SequenceToken(json, "bos_token_id"));
  EPIC_ASSIGN_OR_RETURN(sequence_tokens.eos_id, SequenceToken(json, "eos_token_id"));
  EPIC_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(weights_path));
  EPIC_ASSIGN_OR_RETURN(const SafetensorsFile file, ParseSafetensors(mapped.bytes(), weights_path));
  LoadedModel model{.weights = std::move(mapped),
                    .config = std::move(config),
                    .tokenizer = {},
                    .rotation_pairs_are_adjacent = false,
                    .tensor_names = {},
                    .tensors = {}};
  std::map<std::string, TensorView> views;
  EPIC_ASSIGN_OR_RETURN(const auto stored, TensorsOf(file, model.config, views, weights_path));
  EPIC_RETURN_IF_ERROR(PlaceCanonicalTensors(TensorNaming::kSafetensors, stored, weights_path, model));

  // Last, because only now the embedding's rows, which bound the ids, are known to be there.
  EPIC_ASSIGN_OR_RETURN(model.tokenizer, TokenizerFromFolder(folder, model.config.vocab_size, sequence_tokens));
  EPIC_RETURN_IF_ERROR(CheckAndPadTokenizer(model.config, folder + "/tokenizer.json", model.tokenizer));
  return model;
}

}  // namespace epic
