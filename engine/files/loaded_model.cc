#include "engine/files/loaded_model.h"

#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include "core/status_macros.h"
#include "engine/files/file_error.h"
#include "engine/files/rotation.h"
#include "engine/files/tensor_layout.h"

namespace epic {

namespace {

constexpr int32_t kLayersMax = 1024;
constexpr int32_t kWidthMax = 1 << 17;
constexpr int32_t kHeadsMax = 1024;
constexpr int32_t kHeadDimMax = 256;
constexpr int32_t kHeadDimMultiple = 16;
constexpr int32_t kFfnWidthMax = 1 << 20;
constexpr int32_t kContextLengthMax = 1 << 28;

struct LayerTensor {
  const char* canonical;
  const char* gguf;
  const char* safetensors;
  enum class Shape {
    kNorm,
    kQuery,
    kKeyValue,
    kQueryBias,
    kKeyValueBias,
    kHeadNorm,
    kAttentionOutput,
    kFfnIn,
    kFfnOut
  } shape;
  bool ModelConfig::*condition = nullptr;  // null: every model has it
};

constexpr std::array<LayerTensor, 14> kLayerTensors = {{
    {"attention_norm", "attn_norm.weight", "input_layernorm.weight", LayerTensor::Shape::kNorm},
    {"q", "attn_q.weight", "self_attn.q_proj.weight", LayerTensor::Shape::kQuery},
    {"k", "attn_k.weight", "self_attn.k_proj.weight", LayerTensor::Shape::kKeyValue},
    {"v", "attn_v.weight", "self_attn.v_proj.weight", LayerTensor::Shape::kKeyValue},
    {"q_bias", "attn_q.bias", "self_attn.q_proj.bias", LayerTensor::Shape::kQueryBias, &ModelConfig::qkv_bias},
    {"k_bias", "attn_k.bias", "self_attn.k_proj.bias", LayerTensor::Shape::kKeyValueBias, &ModelConfig::qkv_bias},
    {"v_bias", "attn_v.bias", "self_attn.v_proj.bias", LayerTensor::Shape::kKeyValueBias, &ModelConfig::qkv_bias},
    {"q_norm", "attn_q_norm.weight", "self_attn.q_norm.weight", LayerTensor::Shape::kHeadNorm, &ModelConfig::qk_norm},
    {"k_norm", "attn_k_norm.weight", "self_attn.k_norm.weight", LayerTensor::Shape::kHeadNorm, &ModelConfig::qk_norm},
    {"o", "attn_output.weight", "self_attn.o_proj.weight", LayerTensor::Shape::kAttentionOutput},
    {"ffn_norm", "ffn_norm.weight", "post_attention_layernorm.weight", LayerTensor::Shape::kNorm},
    {"gate", "ffn_gate.weight", "mlp.gate_proj.weight", LayerTensor::Shape::kFfnIn},
    {"up", "ffn_up.weight", "mlp.up_proj.weight", LayerTensor::Shape::kFfnIn},
    {"down", "ffn_down.weight", "mlp.down_proj.weight", LayerTensor::Shape::kFfnOut},
}};

std::vector<int64_t> ShapeOf(LayerTensor::Shape shape, const ModelConfig& config) {
  const int64_t query_width = int64_t{config.heads} * config.head_dim;
  const int64_t kv_width = int64_t{config.kv_heads} * config.head_dim;
  switch (shape) {
    case LayerTensor::Shape::kNorm:
      return {config.width};
    case LayerTensor::Shape::kQuery:
      return {query_width, config.width};
    case LayerTensor::Shape::kKeyValue:
      return {kv_width, config.width};
    case LayerTensor::Shape::kQueryBias:
      return {query_width};
    case LayerTensor::Shape::kKeyValueBias:
      return {kv_width};
    case LayerTensor::Shape::kHeadNorm:
      return {config.head_dim};
    case LayerTensor::Shape::kAttentionOutput:
      return {config.width, query_width};
    case LayerTensor::Shape::kFfnIn:
      return {config.ffn_width, config.width};
    case LayerTensor::Shape::kFfnOut:
      return {config.width, config.ffn_width};
  }
  return {};
}

// Why a tensor that a model of this family does not have is more than we compute.
std::string ReasonAgainst(std::string_view name, const ModelConfig& config) {
  const auto has = [name](std::string_view part) { return name.find(part) != std::string_view::npos; };
  if (name.ends_with(".bias")) return fmt::format("the family {} has no such bias", config.architecture);
  if (has("rope_factors")) return "rotation factors that switch with the length (LongRoPE) are not computed";
  if (has("rope_freqs")) return "factors of the rotation beside another rope scaling are not computed";
  if (has("exp") || has("block_sparse_moe")) return "mixtures of experts are not computed";
  if (has("ssm_")) return "recurrent layers are not computed";
  if (has("q_norm") || has("k_norm")) {
    return fmt::format("the family {} has no norms on queries and keys", config.architecture);
  }
  return fmt::format("a model of the family {} with this configuration has no such tensor", config.architecture);
}

absl::Status InRange(const std::string& path, const char* what, int64_t value, int64_t max) {
  if (value >= 1 && value <= max) return absl::OkStatus();
  return BrokenFile(path, "{} is {}, expected 1 to {}", what, value, max);
}

}  // namespace

std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config, TensorNaming naming) {
  const bool gguf = naming == TensorNaming::kGguf;
  std::vector<ExpectedTensor> expected;
  expected.push_back({.canonical = "embedding",
                      .stored = gguf ? "token_embd.weight" : "model.embed_tokens.weight",
                      .shape = {config.vocab_size, config.width}});
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    for (const LayerTensor& tensor : kLayerTensors) {
      if (tensor.condition != nullptr && !(config.*tensor.condition)) continue;
      expected.push_back({.canonical = fmt::format("layers.{}.{}", layer, tensor.canonical),
                          .stored = gguf ? fmt::format("blk.{}.{}", layer, tensor.gguf)
                                         : fmt::format("model.layers.{}.{}", layer, tensor.safetensors),
                          .shape = ShapeOf(tensor.shape, config)});
    }
  }
  expected.push_back({.canonical = "final_norm",
                      .stored = gguf ? "output_norm.weight" : "model.norm.weight",
                      .shape = {config.width}});
  if (!config.tied_embeddings) {
    expected.push_back({.canonical = "output",
                        .stored = gguf ? "output.weight" : "lm_head.weight",
                        .shape = {config.vocab_size, config.width}});
  }
  return expected;
}

absl::Status CheckModelConfig(const ModelConfig& config, const std::string& path) {
  EPIC_RETURN_IF_ERROR(InRange(path, "the number of layers", config.layers, kLayersMax));
  EPIC_RETURN_IF_ERROR(InRange(path, "the hidden size", config.width, kWidthMax));
  EPIC_RETURN_IF_ERROR(InRange(path, "the number of attention heads", config.heads, kHeadsMax));
  EPIC_RETURN_IF_ERROR(InRange(path, "the number of key-value heads", config.kv_heads, config.heads));
  EPIC_RETURN_IF_ERROR(InRange(path, "the feed-forward size", config.ffn_width, kFfnWidthMax));
  EPIC_RETURN_IF_ERROR(InRange(path, "the vocabulary size", config.vocab_size, kVocabularyMax));
  EPIC_RETURN_IF_ERROR(InRange(path, "the context length", config.context_length, kContextLengthMax));
  if (config.heads % config.kv_heads != 0) {
    return BrokenFile(path, "{} attention heads cannot share {} key-value heads evenly", config.heads, config.kv_heads);
  }
  if (config.head_dim < 1 || config.head_dim > kHeadDimMax || config.head_dim % kHeadDimMultiple != 0) {
    return NotRunHere(path, "the head size is {}; multiples of {} up to {} are run", config.head_dim, kHeadDimMultiple,
                      kHeadDimMax);
  }
  if (!std::isfinite(config.rms_epsilon) || config.rms_epsilon <= 0 || config.rms_epsilon >= 1) {
    return BrokenFile(path, "the epsilon of the RMS norm is {}, expected more than 0 and less than 1",
                      config.rms_epsilon);
  }
  return CheckRotation(config, path);
}

absl::Status PlaceCanonicalTensors(TensorNaming naming, const std::map<std::string, StoredTensor>& stored,
                                   const std::string& path, LoadedModel& model) {
  size_t placed = 0;
  for (ExpectedTensor& expected : ExpectedTensors(model.config, naming)) {
    const auto found = stored.find(expected.stored);
    if (found == stored.end()) {
      return BrokenFile(path, "tensor {} of shape {} is missing", Quoted(expected.stored), ShapeText(expected.shape));
    }
    const StoredTensor& tensor = found->second;
    if (tensor.view == nullptr) {
      return NotRunHere(path,
                        "tensor {} has type {}; F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K are run",
                        Quoted(expected.stored), tensor.stored_type);
    }
    if (*tensor.shape != expected.shape) {
      return BrokenFile(path, "tensor {} has shape {}, expected {}", Quoted(expected.stored), ShapeText(*tensor.shape),
                        ShapeText(expected.shape));
    }
    TensorView view = *tensor.view;
    view.name = expected.canonical;
    model.tensor_names.push_back(expected.canonical);
    model.tensors.emplace(std::move(expected.canonical), std::move(view));
    ++placed;
  }
  if (placed == stored.size()) return absl::OkStatus();
  std::map<std::string, StoredTensor> left = stored;
  for (const ExpectedTensor& expected : ExpectedTensors(model.config, naming)) left.erase(expected.stored);
  const std::string& name = left.begin()->first;
  return NotRunHere(path, "there is a tensor {}: {}", Quoted(name), ReasonAgainst(name, model.config));
}

std::string UnusedTokenText(size_t id) { return fmt::format("[PAD{}]", id); }

absl::Status CheckAndPadTokenizer(const ModelConfig& config, const std::string& path, TokenizerSpec& tokenizer) {
  const size_t token_count = tokenizer.tokens.size();
  if (token_count == 0) return BrokenFile(path, "the tokenizer has no tokens");
  if (token_count > static_cast<size_t>(config.vocab_size)) {
    return BrokenFile(path, "the tokenizer has {} tokens, but the embedding only {} rows", token_count,
                      config.vocab_size);
  }
  for (const auto& [what, id] :
       {std::pair{"beginning-of-sequence", tokenizer.bos_id}, std::pair{"end-of-sequence", tokenizer.eos_id}}) {
    if (id.has_value() && (*id < 0 || static_cast<size_t>(*id) >= token_count)) {
      return BrokenFile(path, "the {} token is {}, expected an id below {}", what, *id, token_count);
    }
  }
  for (const int32_t id : tokenizer.stop_ids) {
    if (id < 0 || static_cast<size_t>(id) >= token_count) {
      return BrokenFile(path, "a token that ends a generation is {}, expected an id below {}", id, token_count);
    }
  }
  if (tokenizer.add_bos && !tokenizer.bos_id.has_value()) {
    return BrokenFile(path, "a beginning-of-sequence token is to be added, but none is named");
  }
  for (size_t rank = 0; rank < tokenizer.merges.size(); ++rank) {
    const std::string& merge = tokenizer.merges[rank];
    const size_t space = merge.find(' ');
    if (space == 0 || space == std::string::npos || space + 1 == merge.size() ||
        merge.find(' ', space + 1) != std::string::npos) {
      return BrokenFile(path, "merge {} is {}, expected two parts with one space between", rank, Quoted(merge));
    }
  }
  for (size_t id = token_count; id < static_cast<size_t>(config.vocab_size); ++id) {
    tokenizer.tokens.push_back(UnusedTokenText(id));
    tokenizer.kinds.push_back(TokenKind::kUnused);
  }
  return absl::OkStatus();
}

}  // namespace epic
