#include "engine/files/gguf_model.h"

#include <cmath>
#include <filesystem>
#include <limits>
#include <utility>

#include "core/status_macros.h"
#include "engine/files/file_error.h"
#include "engine/files/gguf_parts.h"
#include "engine/files/model_family.h"
#include "engine/files/rotation.h"
#include "engine/files/tensor_layout.h"

namespace epic {

namespace {

constexpr const char* kRotationFactors = "rope_freqs.weight";

// Keys of the architecture that change the computation, by a part of their name, and the value at which they do not
// (besides 0, false and the empty string). What the list does not touch describes the file or its training, and is
// passed over.
struct ForeignKey {
  std::string_view part;
  std::string_view reason;
  double neutral = 0;
};
constexpr ForeignKey kForeignKeys[] = {
    {"rope.scaling.yarn_ext_factor", "a share of YaRN other than all of it is not computed", 1},
    {"rope.scaling.yarn_log_multiplier", "another scale of YaRN is not computed"},
    {"rope.dimension_sections", "a rotation in sections is not computed"},
    {"expert", "mixtures of experts are not computed"},
    {"sliding_window", "sliding-window attention is not computed"},
    {"softcapping", "logit capping is not computed"},
    {"logit_scale", "scaled logits are not computed", 1},
    {"residual_scale", "scaled residuals are not computed", 1},
    {"embedding_scale", "scaled embeddings are not computed", 1},
    {"attention.scale", "an attention scale other than 1/sqrt(head size) is not computed"},
    {"attention.temperature", "an attention temperature is not computed"},
    {"clamp", "clamped activations are not computed"},
    {"alibi", "attention biases by distance are not computed"},
    {"lora_rank", "low-rank attention is not computed"},
    {"parallel_residual", "parallel residuals are not computed"},
    {"nextn_predict_layers", "layers that predict further tokens are not computed"},
    {"embedding_length_per_layer", "embeddings for each layer are not computed"},
    {"deepstack", "deepstack embeddings are not computed"},
    {"ssm.", "recurrent layers are not computed"},
};

// Keys under the name of the architecture, "llama.block_count" and the like.
class ArchitectureKeys {
 public:
  explicit ArchitectureKeys(std::string_view architecture) : prefix_(fmt::format("{}.", architecture)) {}
  std::string operator()(std::string_view key) const { return prefix_ + std::string(key); }
  const std::string& prefix() const { return prefix_; }

 private:
  std::string prefix_;
};

bool IsNeutral(const GgufValue& value, double neutral) {
  if (const auto* number = std::get_if<uint64_t>(&value.content)) {
    return *number == 0 || static_cast<double>(*number) == neutral;
  }
  if (const auto* number = std::get_if<int64_t>(&value.content)) {
    return *number == 0 || static_cast<double>(*number) == neutral;
  }
  if (const auto* number = std::get_if<double>(&value.content)) return *number == 0 || *number == neutral;
  if (const auto* truth = std::get_if<bool>(&value.content)) return !*truth;
  if (const auto* text = std::get_if<std::string_view>(&value.content)) return text->empty();
  return false;
}

absl::Status RefuseForeignKeys(const GgufFile& file, const ArchitectureKeys& key_of) {
  const std::string causal_key = key_of("attention.causal");
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> causal, file.Bool(causal_key));
  if (!causal.value_or(true)) return NotRunHere(file.path, "{} is false; only causal attention is run", causal_key);
  const std::string activation_key = key_of("hidden_activation");
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string_view> activation, file.String(activation_key));
  if (activation.has_value() && *activation != "silu") {
    return NotRunHere(file.path, "{} is {}; \"silu\" is run", activation_key, Quoted(*activation));
  }
  for (const auto& [key, value] : file.metadata) {
    if (!key.starts_with(key_of.prefix())) continue;
    for (const ForeignKey& foreign : kForeignKeys) {
      if (key.find(foreign.part) != std::string::npos && !IsNeutral(value, foreign.neutral)) {
        return NotRunHere(file.path, "key {} is set: {}", Quoted(key), foreign.reason);
      }
    }
  }
  return absl::OkStatus();
}

// The value of an integer key as int32_t; `absent` where there is no such key, or an error where that is nothing.
absl::StatusOr<int32_t> Size(const GgufFile& file, std::string_view key, std::optional<int64_t> absent) {
  const GgufValue* value = file.Find(key);
  if (value != nullptr && value->type == GgufValueType::kArray) {
    return NotRunHere(file.path, "key {} differs by layer; models whose layers are all alike are run", Quoted(key));
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<uint64_t> stored, file.Unsigned(key));
  if (!stored.has_value()) {
    if (!absent.has_value()) return BrokenFile(file.path, "key {} is missing", Quoted(key));
    return static_cast<int32_t>(*absent);
  }
  if (*stored > static_cast<uint64_t>(std::numeric_limits<int32_t>::max())) {
    return BrokenFile(file.path, "key {} is {}, which is too large", Quoted(key), *stored);
  }
  return static_cast<int32_t>(*stored);
}

const GgufTensor* FindTensor(const GgufFile& file, std::string_view name) {
  for (const GgufTensor& tensor : file.tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

// The head size: stated, or the width shared evenly; keys, values and the rotation must all have it.
absl::Status ReadHeadSize(const GgufFile& file, const ArchitectureKeys& key_of, ModelConfig& config) {
  if (config.heads < 1)
    return BrokenFile(file.path, "the number of attention heads is {}, expected at least 1", config.heads);
  const std::string key_length = key_of("attention.key_length");
  if (file.Find(key_length) == nullptr && config.width % config.heads != 0) {
    return BrokenFile(file.path, "the hidden size {} cannot be shared evenly by {} heads, and {} is missing",
                      config.width, config.heads, key_length);
  }
  EPIC_ASSIGN_OR_RETURN(config.head_dim, Size(file, key_length, config.width / config.heads));
  EPIC_ASSIGN_OR_RETURN(const int32_t value_length, Size(file, key_of("attention.value_length"), config.head_dim));
  if (value_length != config.head_dim) {
    return NotRunHere(file.path, "keys have size {} and values {}; equal sizes are run", config.head_dim, value_length);
  }
  const std::string rotated_key = key_of("rope.dimension_count");
  EPIC_ASSIGN_OR_RETURN(const int32_t rotated, Size(file, rotated_key, config.head_dim));
  if (rotated != config.head_dim) {
    return NotRunHere(file.path, "{} is {} of a head size of {}; partial rotation is not computed", rotated_key,
                      rotated, config.head_dim);
  }
  return absl::OkStatus();
}

// The factors that GGUF carries in the place of Llama 3.1's description of its scaling.
absl::Status ReadRotationFactors(const GgufFile& file, ModelConfig& config) {
  for (const char* name : {"rope_factors_long.weight", "rope_factors_short.weight"}) {
    if (FindTensor(file, name) != nullptr) {
      return NotRunHere(file.path,
                        "there is a tensor \"{}\": rotation factors that switch with the length (LongRoPE) are not "
                        "computed",
                        name);
    }
  }
  const GgufTensor* factors = FindTensor(file, kRotationFactors);
  if (factors == nullptr) return absl::OkStatus();
  if (factors->type != TensorType::kF32 || factors->shape != std::vector<int64_t>{config.head_dim / 2}) {
    return BrokenFile(file.path, "tensor \"{}\" has type {} and shape {}, expected F32 and {}", kRotationFactors,
                      GgufTensorTypeName(factors->stored_type), ShapeText(factors->shape), config.head_dim / 2);
  }
  if (config.rope_scaling.kind != RotationScaling::Kind::kNone) {
    return NotRunHere(file.path, "there is a tensor \"{}\" beside another rope scaling, which is not computed",
                      kRotationFactors);
  }
  config.rope_scaling.kind = RotationScaling::Kind::kFactors;
  config.rope_scaling.factors.resize(config.head_dim / 2);
  DequantizeRows({.name = kRotationFactors, .type = TensorType::kF32, .shape = factors->shape, .bytes = factors->bytes},
                 0, 1, config.rope_scaling.factors);
  return absl::OkStatus();
}

absl::Status ReadYarn(const GgufFile& file, const ArchitectureKeys& key_of, ModelConfig& config) {
  RotationScaling& scaling = config.rope_scaling;
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> original,
                        file.Number(key_of("rope.scaling.original_context_length")));
  scaling.original_context = original.value_or(config.context_length);
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> multiplier, file.Number(key_of("rope.scaling.attn_factor")));
  scaling.attention_scale = multiplier.value_or(1) * YarnAttentionScale(scaling.factor);
  // Programs that read this key do not agree whether it is the whole scale or a part of it.
  const std::string scale_key = key_of("rope.scaling.yarn_attn_factor");
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> scale, file.Number(scale_key));
  if (scale.has_value() && *scale != 1 && std::abs(*scale - scaling.attention_scale) > 1e-4) {
    return NotRunHere(file.path, "{} is {}; 1 and what follows from the factor, {}, are run", scale_key, *scale,
                      scaling.attention_scale);
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> fast, file.Number(key_of("rope.scaling.yarn_beta_fast")));
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> slow, file.Number(key_of("rope.scaling.yarn_beta_slow")));
  scaling.beta_fast = fast.value_or(scaling.beta_fast);
  scaling.beta_slow = slow.value_or(scaling.beta_slow);
  return absl::OkStatus();
}

absl::Status ReadRotation(const GgufFile& file, const ArchitectureKeys& key_of, ModelConfig& config) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> base, file.Number(key_of("rope.freq_base")));
  config.rope_base = base.value_or(10000.0);
  const std::string type_key = key_of("rope.scaling.type");
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string_view> type, file.String(type_key));
  EPIC_ASSIGN_OR_RETURN(std::optional<double> factor, file.Number(key_of("rope.scaling.factor")));
  // Files older than the type have this key alone.
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> old_factor, file.Number(key_of("rope.scale_linear")));
  if (!factor.has_value()) factor = old_factor;
  RotationScaling& scaling = config.rope_scaling;
  scaling.factor = factor.value_or(0) == 0 ? 1 : *factor;  // 0 stands for "not set"
  if (type.has_value() ? *type == "linear" : scaling.factor != 1) {
    scaling.kind = RotationScaling::Kind::kLinear;
  } else if (type.has_value() && *type == "yarn") {
    scaling.kind = RotationScaling::Kind::kYarn;
    EPIC_RETURN_IF_ERROR(ReadYarn(file, key_of, config));
  } else if (type.has_value() && *type == "longrope") {
    return NotRunHere(file.path, "{} is \"longrope\": rotation factors that switch with the length are not computed",
                      type_key);
  } else if (type.has_value() && *type != "none") {
    return NotRunHere(file.path, "{} is {}; \"none\", \"linear\" and \"yarn\" are run", type_key, Quoted(*type));
  } else {
    scaling.factor = 1;
  }
  return ReadRotationFactors(file, config);
}

absl::StatusOr<ModelConfig> ReadConfig(const GgufFile& file, const ModelFamily& family) {
  const ArchitectureKeys key_of(family.gguf_architecture);
  EPIC_RETURN_IF_ERROR(RefuseForeignKeys(file, key_of));
  ModelConfig config;
  config.architecture = family.name;
  config.qkv_bias = family.qkv_bias;
  config.qk_norm = family.qk_norm;
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string_view> name, file.String("general.name"));
  config.name =
      name.has_value() && !name->empty() ? std::string(*name) : std::filesystem::path(file.path).stem().string();
  EPIC_ASSIGN_OR_RETURN(config.layers, Size(file, key_of("block_count"), std::nullopt));
  EPIC_ASSIGN_OR_RETURN(config.width, Size(file, key_of("embedding_length"), std::nullopt));
  EPIC_ASSIGN_OR_RETURN(config.heads, Size(file, key_of("attention.head_count"), std::nullopt));
  EPIC_ASSIGN_OR_RETURN(config.kv_heads, Size(file, key_of("attention.head_count_kv"), config.heads));
  EPIC_ASSIGN_OR_RETURN(config.ffn_width, Size(file, key_of("feed_forward_length"), std::nullopt));
  EPIC_ASSIGN_OR_RETURN(config.context_length, Size(file, key_of("context_length"), std::nullopt));
  EPIC_RETURN_IF_ERROR(ReadHeadSize(file, key_of, config));
  const std::string epsilon_key = key_of("attention.layer_norm_rms_epsilon");
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> epsilon, file.Number(epsilon_key));
  if (!epsilon.has_value()) return BrokenFile(file.path, "key {} is missing", Quoted(epsilon_key));
  config.rms_epsilon = static_cast<float>(*epsilon);
  EPIC_RETURN_IF_ERROR(ReadRotation(file, key_of, config));

  const GgufTensor* embedding = FindTensor(file, "token_embd.weight");
  if (embedding == nullptr) return BrokenFile(file.path, "tensor \"token_embd.weight\" is missing");
  if (embedding->shape.front() > kVocabularyMax) {
    return BrokenFile(file.path, "tensor \"token_embd.weight\" has {} rows, at most {} are allowed",
                      embedding->shape.front(), kVocabularyMax);
  }
  config.vocab_size = static_cast<int32_t>(embedding->shape.front());
  config.tied_embeddings = FindTensor(file, "output.weight") == nullptr;
  EPIC_RETURN_IF_ERROR(CheckModelConfig(config, file.path));
  return config;
}

absl::StatusOr<const ModelFamily*> ReadFamily(const GgufFile& file) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string_view> architecture, file.String("general.architecture"));
  if (!architecture.has_value()) return BrokenFile(file.path, "key \"general.architecture\" is missing");
  const ModelFamily* family = FamilyOfGguf(*architecture);
  if (family == nullptr) {
    return NotRunHere(file.path, "the architecture is {}: {}", Quoted(*architecture),
                      ReasonAgainstArchitecture(*architecture));
  }
  return family;
}

// The file's own count of the vocabulary says whether rows of the embedding without a token are meant.
absl::Status CheckVocabularyKey(const GgufFile& file, const ArchitectureKeys& key_of, const ModelConfig& config,
                                size_t token_count) {
  EPIC_ASSIGN_OR_RETURN(const int32_t declared, Size(file, key_of("vocab_size"), static_cast<int64_t>(token_count)));
  if (declared != config.vocab_size) {
    return BrokenFile(file.path, "the vocabulary has {} tokens, but the embedding {} rows", declared,
                      config.vocab_size);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ConfigFromGguf(const GgufFile& file) {
  EPIC_ASSIGN_OR_RETURN(const ModelFamily* family, ReadFamily(file));
  return ReadConfig(file, *family);
}

absl::StatusOr<LoadedModel> LoadGgufModel(MappedFile mapped, const std::string& path) {
  EPIC_ASSIGN_OR_RETURN(GgufParts parts, OpenGgufParts(std::move(mapped), path));
  const GgufFile& file = parts.table;
  EPIC_ASSIGN_OR_RETURN(const ModelFamily* family, ReadFamily(file));
  EPIC_ASSIGN_OR_RETURN(ModelConfig config, ReadConfig(file, *family));
  EPIC_ASSIGN_OR_RETURN(TokenizerSpec tokenizer, TokenizerFromGguf(file));
  EPIC_RETURN_IF_ERROR(
      CheckVocabularyKey(file, ArchitectureKeys(family->gguf_architecture), config, tokenizer.tokens.size()));
  LoadedModel model{.weights = std::move(parts.files),
                    .config = std::move(config),
                    .tokenizer = std::move(tokenizer),
                    .rotation_pairs_are_adjacent = family->gguf_pairs_are_adjacent,
                    .tensor_names = {},
                    .tensors = {}};
  std::map<std::string, TensorView> views;
  std::map<std::string, StoredTensor> stored;
  for (const GgufTensor& tensor : file.tensors) {
    if (tensor.name == kRotationFactors) continue;  // read with the configuration
    StoredTensor& entry = stored[tensor.name];
    entry.stored_type = GgufTensorTypeName(tensor.stored_type);
    entry.shape = &tensor.shape;
    if (!tensor.type.has_value()) continue;
    entry.view =
        &views
             .emplace(
                 tensor.name,
                 TensorView{.name = tensor.name, .type = *tensor.type, .shape = tensor.shape, .bytes = tensor.bytes})
             .first->second;
  }
  EPIC_RETURN_IF_ERROR(PlaceCanonicalTensors(TensorNaming::kGguf, stored, path, model));
  EPIC_RETURN_IF_ERROR(CheckAndPadTokenizer(model.config, path, model.tokenizer));
  return model;
}

}  // namespace epic
