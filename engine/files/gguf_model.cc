#include "engine/files/gguf_model.h"

#include <filesystem>
#include <limits>
#include <utility>

#include "core/status_macros.h"
#include "engine/files/file_error.h"

namespace epic {

namespace {

// Keys under "llama." that change the computation, by a part of their name, and the value at which they do not (besides
// 0, false and the empty string). What the list does not touch describes the file or its training, and is passed over.
struct ForeignKey {
  std::string_view part;
  std::string_view reason;
  double neutral = 0;
};
constexpr ForeignKey kForeignKeys[] = {
    {"rope.scaling.factor", "rope scaling is not computed", 1},
    {"rope.scaling.attn_factor", "rope scaling is not computed", 1},
    {"rope.scaling.yarn", "rope scaling is not computed"},
    {"rope.scale_linear", "rope scaling is not computed", 1},
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

absl::Status RefuseForeignKeys(const GgufFile& file) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string_view> scaling, file.String("llama.rope.scaling.type"));
  if (scaling.has_value() && *scaling != "none") {
    return NotRunHere(file.path, "llama.rope.scaling.type is {}; rope scaling is not computed, only \"none\" is run",
                      Quoted(*scaling));
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> causal, file.Bool("llama.attention.causal"));
  if (!causal.value_or(true))
    return NotRunHere(file.path, "llama.attention.causal is false; only causal attention is run");
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string_view> activation, file.String("llama.hidden_activation"));
  if (activation.has_value() && *activation != "silu") {
    return NotRunHere(file.path, "llama.hidden_activation is {}; \"silu\" is run", Quoted(*activation));
  }
  for (const auto& [key, value] : file.metadata) {
    if (!key.starts_with("llama.")) continue;
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
absl::Status ReadHeadSize(const GgufFile& file, ModelConfig& config) {
  if (config.heads < 1)
    return BrokenFile(file.path, "the number of attention heads is {}, expected at least 1", config.heads);
  if (file.Find("llama.attention.key_length") == nullptr && config.width % config.heads != 0) {
    return BrokenFile(
        file.path, "the hidden size {} cannot be shared evenly by {} heads, and llama.attention.key_length is missing",
        config.width, config.heads);
  }
  EPIC_ASSIGN_OR_RETURN(config.head_dim, Size(file, "llama.attention.key_length", config.width / config.heads));
  EPIC_ASSIGN_OR_RETURN(const int32_t value_length, Size(file, "llama.attention.value_length", config.head_dim));
  if (value_length != config.head_dim) {
    return NotRunHere(file.path, "keys have size {} and values {}; equal sizes are run", config.head_dim, value_length);
  }
  EPIC_ASSIGN_OR_RETURN(const int32_t rotated, Size(file, "llama.rope.dimension_count", config.head_dim));
  if (rotated != config.head_dim) {
    return NotRunHere(file.path,
                      "llama.rope.dimension_count is {} of a head size of {}; partial rotation is not computed",
                      rotated, config.head_dim);
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelConfig> ReadConfig(const GgufFile& file) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string_view> architecture, file.String("general.architecture"));
  if (!architecture.has_value()) return BrokenFile(file.path, "key \"general.architecture\" is missing");
  if (*architecture != "llama") {
    return NotRunHere(file.path, "the architecture is {}; \"llama\" is run", Quoted(*architecture));
  }
  EPIC_RETURN_IF_ERROR(RefuseForeignKeys(file));
  ModelConfig config;
  config.architecture = "llama";
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string_view> name, file.String("general.name"));
  config.name =
      name.has_value() && !name->empty() ? std::string(*name) : std::filesystem::path(file.path).stem().string();
  EPIC_ASSIGN_OR_RETURN(config.layers, Size(file, "llama.block_count", std::nullopt));
  EPIC_ASSIGN_OR_RETURN(config.width, Size(file, "llama.embedding_length", std::nullopt));
  EPIC_ASSIGN_OR_RETURN(config.heads, Size(file, "llama.attention.head_count", std::nullopt));
  EPIC_ASSIGN_OR_RETURN(config.kv_heads, Size(file, "llama.attention.head_count_kv", config.heads));
  EPIC_ASSIGN_OR_RETURN(config.ffn_width, Size(file, "llama.feed_forward_length", std::nullopt));
  EPIC_ASSIGN_OR_RETURN(config.context_length, Size(file, "llama.context_length", std::nullopt));
  EPIC_RETURN_IF_ERROR(ReadHeadSize(file, config));
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> epsilon, file.Number("llama.attention.layer_norm_rms_epsilon"));
  if (!epsilon.has_value()) return BrokenFile(file.path, "key \"llama.attention.layer_norm_rms_epsilon\" is missing");
  config.rms_epsilon = static_cast<float>(*epsilon);
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> base, file.Number("llama.rope.freq_base"));
  config.rope_base = base.value_or(10000.0);

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

// The file's own count of the vocabulary says whether rows of the embedding without a token are meant.
absl::Status CheckVocabularyKey(const GgufFile& file, const ModelConfig& config, size_t token_count) {
  EPIC_ASSIGN_OR_RETURN(const int32_t declared, Size(file, "llama.vocab_size", static_cast<int64_t>(token_count)));
  if (declared != config.vocab_size) {
    return BrokenFile(file.path, "the vocabulary has {} tokens, but the embedding {} rows", declared,
                      config.vocab_size);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LoadedModel> LoadGgufModel(MappedFile mapped, const std::string& path) {
  EPIC_ASSIGN_OR_RETURN(const GgufFile file, ParseGguf(mapped.bytes(), path));
  EPIC_ASSIGN_OR_RETURN(ModelConfig config, ReadConfig(file));
  EPIC_ASSIGN_OR_RETURN(TokenizerSpec tokenizer, TokenizerFromGguf(file));
  EPIC_RETURN_IF_ERROR(CheckVocabularyKey(file, config, tokenizer.tokens.size()));
  LoadedModel model{.weights = std::move(mapped),
                    .config = std::move(config),
                    .tokenizer = std::move(tokenizer),
                    .rotation_pairs_are_adjacent = true,
                    .tensor_names = {},
                    .tensors = {}};
  std::map<std::string, TensorView> views;
  std::map<std::string, StoredTensor> stored;
  for (const GgufTensor& tensor : file.tensors) {
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
