#include "engine/files/tiny_model_for_test.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <stdexcept>

#include "fmt/format.h"
#include "gtest/gtest.h"

namespace epic {

namespace {

constexpr uint32_t kStoredF32 = 0;

std::string RawFloats(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

// Half-split rows to adjacent pairs, head by head: row i -> row 2i, row i + half -> row 2i+1.
std::vector<float> WithAdjacentPairs(const std::vector<float>& matrix, int64_t head_dim, int64_t row_length) {
  std::vector<float> result(matrix.size());
  const auto rows = static_cast<int64_t>(matrix.size()) / row_length;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t head = row / head_dim;
    const int64_t within = row % head_dim;
    const int64_t half = head_dim / 2;
    const int64_t target = head * head_dim + (within < half ? 2 * within : 2 * (within - half) + 1);
    std::copy_n(matrix.begin() + row * row_length, row_length, result.begin() + target * row_length);
  }
  return result;
}

// The byte-level alphabet in id order: printable bytes stand for themselves, the others for code points from 256 on.
std::vector<std::string> ByteAlphabet() {
  std::vector<std::string> alphabet;
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    const int code_point = printable ? byte : next++;
    if (code_point < 0x80) {
      alphabet.push_back(std::string(1, static_cast<char>(code_point)));
    } else {
      alphabet.push_back({static_cast<char>(0xc0 | (code_point >> 6)), static_cast<char>(0x80 | (code_point & 0x3f))});
    }
  }
  return alphabet;
}

struct NamePair {
  const char* canonical;
  const char* gguf;
  const char* safetensors;
};
constexpr NamePair kLayerNames[] = {
    {"attention_norm", "attn_norm", "input_layernorm"},
    {"q", "attn_q", "self_attn.q_proj"},
    {"k", "attn_k", "self_attn.k_proj"},
    {"v", "attn_v", "self_attn.v_proj"},
    {"o", "attn_output", "self_attn.o_proj"},
    {"ffn_norm", "ffn_norm", "post_attention_layernorm"},
    {"gate", "ffn_gate", "mlp.gate_proj"},
    {"up", "ffn_up", "mlp.up_proj"},
    {"down", "ffn_down", "mlp.down_proj"},
};

// Canonical name -> the name in the file.
std::map<std::string, std::string> FileNames(int32_t layers, bool gguf) {
  std::map<std::string, std::string> names = {{"embedding", gguf ? "token_embd.weight" : "model.embed_tokens.weight"},
                                              {"final_norm", gguf ? "output_norm.weight" : "model.norm.weight"},
                                              {"output", gguf ? "output.weight" : "lm_head.weight"}};
  for (int32_t layer = 0; layer < layers; ++layer) {
    for (const NamePair& name : kLayerNames) {
      names[fmt::format("layers.{}.{}", layer, name.canonical)] =
          gguf ? fmt::format("blk.{}.{}.weight", layer, name.gguf)
               : fmt::format("model.layers.{}.{}.weight", layer, name.safetensors);
    }
  }
  return names;
}

template <typename Entry>
Entry& Named(std::vector<Entry>& entries, const std::string& name) {
  const auto found =
      std::find_if(entries.begin(), entries.end(), [&](const Entry& entry) { return entry.name == name; });
  if (found == entries.end()) throw std::out_of_range("the test's builder has no " + name);
  return *found;
}

}  // namespace

std::string GgufString(const std::string& text) {
  std::string out;
  AppendRaw<uint64_t>(text.size(), out);
  return out + text;
}

void GgufBuilder::Set(const std::string& name, GgufValueType type, const std::string& payload) {
  const Key key{name, static_cast<uint32_t>(type), payload};
  for (Key& present : keys) {
    if (present.name == name) {
      present = key;
      return;
    }
  }
  keys.push_back(key);
}

void GgufBuilder::SetString(const std::string& name, const std::string& value) {
  Set(name, GgufValueType::kString, GgufString(value));
}

void GgufBuilder::SetUint32(const std::string& name, uint32_t value) {
  std::string payload;
  AppendRaw(value, payload);
  Set(name, GgufValueType::kUint32, payload);
}

void GgufBuilder::SetFloat(const std::string& name, float value) {
  std::string payload;
  AppendRaw(value, payload);
  Set(name, GgufValueType::kFloat32, payload);
}

void GgufBuilder::SetBool(const std::string& name, bool value) {
  Set(name, GgufValueType::kBool, std::string(1, value ? '\1' : '\0'));
}

void GgufBuilder::SetStrings(const std::string& name, const std::vector<std::string>& values) {
  std::string payload;
  AppendRaw(static_cast<uint32_t>(GgufValueType::kString), payload);
  AppendRaw<uint64_t>(values.size(), payload);
  for (const std::string& value : values) payload += GgufString(value);
  Set(name, GgufValueType::kArray, payload);
}

void GgufBuilder::SetInt32s(const std::string& name, const std::vector<int32_t>& values) {
  std::string payload;
  AppendRaw(static_cast<uint32_t>(GgufValueType::kInt32), payload);
  AppendRaw<uint64_t>(values.size(), payload);
  for (const int32_t value : values) AppendRaw(value, payload);
  Set(name, GgufValueType::kArray, payload);
}

void GgufBuilder::Remove(const std::string& name) {
  std::erase_if(keys, [&](const Key& key) { return key.name == name; });
}

GgufBuilder::Tensor& GgufBuilder::TensorNamed(const std::string& name) { return Named(tensors, name); }

void GgufBuilder::RemoveTensor(const std::string& name) {
  std::erase_if(tensors, [&](const Tensor& tensor) { return tensor.name == name; });
}

std::string GgufBuilder::Build(size_t* header_bytes) const {
  std::string out = "GGUF";
  AppendRaw(version, out);
  AppendRaw<uint64_t>(tensors.size() + static_cast<uint64_t>(tensor_count_change), out);
  AppendRaw<uint64_t>(keys.size() + static_cast<uint64_t>(key_count_change), out);
  for (const Key& key : keys) {
    out += GgufString(key.name);
    AppendRaw(key.type, out);
    out += key.payload;
  }
  std::string data;
  for (const Tensor& tensor : tensors) {
    data.resize((data.size() + alignment - 1) / alignment * alignment);
    out += GgufString(tensor.name);
    AppendRaw(static_cast<uint32_t>(tensor.dimensions.size()), out);
    for (const uint64_t dimension : tensor.dimensions) AppendRaw(dimension, out);
    AppendRaw(tensor.type, out);
    AppendRaw<uint64_t>(tensor.has_offset ? tensor.offset : data.size(), out);
    data += tensor.bytes;
  }
  out.resize((out.size() + alignment - 1) / alignment * alignment);
  if (header_bytes != nullptr) *header_bytes = out.size();
  return out + data;
}

SafetensorsBuilder::Tensor& SafetensorsBuilder::TensorNamed(const std::string& name) { return Named(tensors, name); }

nlohmann::json SafetensorsBuilder::Header() const {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  size_t offset = 0;
  for (const Tensor& tensor : tensors) {
    header[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + tensor.bytes.size()}}};
    offset += tensor.bytes.size();
  }
  return header;
}

std::string SafetensorsBuilder::BuildWithHeader(const std::string& header) const {
  std::string out;
  AppendRaw<uint64_t>(header.size(), out);
  out += header;
  for (const Tensor& tensor : tensors) out += tensor.bytes;
  return out;
}

TinyModel MakeTinyModel() {
  TinyModel tiny;
  TokenizerSpec& spec = tiny.tokenizer;
  spec.model = "bpe";
  spec.pre_tokenizer = "smollm";
  spec.tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  spec.kinds.assign(3, TokenKind::kControl);
  for (const std::string& letter : ByteAlphabet()) spec.tokens.push_back(letter);
  for (const char* merged : {"th", "the", "an"}) spec.tokens.push_back(merged);
  spec.kinds.resize(spec.tokens.size(), TokenKind::kNormal);
  spec.tokens.push_back("<tool>");
  spec.kinds.push_back(TokenKind::kUserDefined);
  spec.merges = {"t h", "th e", "a n"};
  spec.bos_id = 1;
  spec.eos_id = 2;
  spec.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}";

  ModelConfig& config = tiny.config;
  config.name = "tiny";
  config.architecture = "llama";
  config.layers = 2;
  config.width = 32;
  config.heads = 2;
  config.kv_heads = 1;
  config.head_dim = 16;
  config.ffn_width = 64;
  config.vocab_size = static_cast<int32_t>(spec.tokens.size());
  config.context_length = 128;
  config.rms_epsilon = 1e-5f;
  config.rope_base = 50000.0;

  tiny.shapes = {{"embedding", {config.vocab_size, 32}}, {"final_norm", {32}}, {"output", {config.vocab_size, 32}}};
  for (int layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = fmt::format("layers.{}.", layer);
    for (const char* norm : {"attention_norm", "ffn_norm"}) tiny.shapes[prefix + norm] = {32};
    for (const char* name : {"q", "o"}) tiny.shapes[prefix + name] = {32, 32};
    for (const char* name : {"k", "v"}) tiny.shapes[prefix + name] = {16, 32};
    for (const char* name : {"gate", "up"}) tiny.shapes[prefix + name] = {64, 32};
    tiny.shapes[prefix + "down"] = {32, 64};
  }
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0f, 0.2f);
  for (const auto& [name, shape] : tiny.shapes) {
    size_t count = 1;
    for (const int64_t dimension : shape) count *= static_cast<size_t>(dimension);
    std::vector<float>& values = tiny.weights[name];
    std::generate_n(std::back_inserter(values), count, [&] { return normal(random); });
  }
  return tiny;
}

GgufBuilder TinyModel::Gguf() const {
  GgufBuilder builder;
  builder.SetString("general.architecture", "llama");
  builder.SetString("general.name", config.name);
  builder.SetUint32("llama.block_count", static_cast<uint32_t>(config.layers));
  builder.SetUint32("llama.embedding_length", static_cast<uint32_t>(config.width));
  builder.SetUint32("llama.attention.head_count", static_cast<uint32_t>(config.heads));
  builder.SetUint32("llama.attention.head_count_kv", static_cast<uint32_t>(config.kv_heads));
  builder.SetUint32("llama.feed_forward_length", static_cast<uint32_t>(config.ffn_width));
  builder.SetUint32("llama.context_length", static_cast<uint32_t>(config.context_length));
  builder.SetUint32("llama.rope.dimension_count", static_cast<uint32_t>(config.head_dim));
  builder.SetFloat("llama.rope.freq_base", static_cast<float>(config.rope_base));
  builder.SetFloat("llama.attention.layer_norm_rms_epsilon", config.rms_epsilon);
  builder.SetString("tokenizer.ggml.model", "gpt2");
  builder.SetString("tokenizer.ggml.pre", tokenizer.pre_tokenizer);
  builder.SetStrings("tokenizer.ggml.tokens", tokenizer.tokens);
  std::vector<int32_t> types;
  for (const TokenKind kind : tokenizer.kinds) {
    types.push_back(kind == TokenKind::kControl ? 3 : kind == TokenKind::kUserDefined ? 4 : 1);
  }
  builder.SetInt32s("tokenizer.ggml.token_type", types);
  builder.SetStrings("tokenizer.ggml.merges", tokenizer.merges);
  builder.SetUint32("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(*tokenizer.bos_id));
  builder.SetUint32("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(*tokenizer.eos_id));
  builder.SetBool("tokenizer.ggml.add_bos_token", tokenizer.add_bos);
  builder.SetString("tokenizer.chat_template", tokenizer.chat_template);
  for (const auto& [canonical, name] : FileNames(config.layers, true)) {
    const std::vector<int64_t>& shape = shapes.at(canonical);
    const bool rotated = canonical.ends_with(".q") || canonical.ends_with(".k");
    const std::vector<float>& values = weights.at(canonical);
    builder.tensors.push_back(
        {.name = name,
         .dimensions = {shape.rbegin(), shape.rend()},
         .type = kStoredF32,
         .bytes = RawFloats(rotated ? WithAdjacentPairs(values, config.head_dim, config.width) : values)});
  }
  return builder;
}

SafetensorsBuilder TinyModel::Safetensors() const {
  SafetensorsBuilder builder;
  for (const auto& [canonical, name] : FileNames(config.layers, false)) {
    builder.tensors.push_back({name, "F32", shapes.at(canonical), RawFloats(weights.at(canonical))});
  }
  return builder;
}

nlohmann::json TinyModel::ConfigJson() const {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"attention_bias", false},
          {"bos_token_id", *tokenizer.bos_id},
          {"eos_token_id", *tokenizer.eos_id},
          {"dtype", "float32"},
          {"head_dim", nullptr},
          {"hidden_act", "silu"},
          {"hidden_size", config.width},
          {"intermediate_size", config.ffn_width},
          {"max_position_embeddings", config.context_length},
          {"mlp_bias", false},
          {"num_attention_heads", config.heads},
          {"num_hidden_layers", config.layers},
          {"num_key_value_heads", config.kv_heads},
          {"rms_norm_eps", 1e-5},
          {"rope_parameters", {{"rope_theta", config.rope_base}, {"rope_type", "default"}}},
          {"tie_word_embeddings", false},
          {"vocab_size", config.vocab_size}};
}

nlohmann::json TinyModel::TokenizerJson() const {
  nlohmann::json vocabulary = nlohmann::json::object();
  nlohmann::json added = nlohmann::json::array();
  for (size_t id = 0; id < tokenizer.tokens.size(); ++id) {
    if (tokenizer.kinds[id] == TokenKind::kNormal || id < 3) vocabulary[tokenizer.tokens[id]] = id;
    if (tokenizer.kinds[id] == TokenKind::kNormal) continue;
    added.push_back({{"id", id},
                     {"content", tokenizer.tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", tokenizer.kinds[id] == TokenKind::kControl}});
  }
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "Sequence"}, {"pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}}, byte_level}}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", "<|endoftext|>"},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocabulary},
            {"merges", tokenizer.merges}}}};
}

nlohmann::json TinyModel::TokenizerConfigJson() const {
  return {{"add_prefix_space", false},
          {"bos_token", tokenizer.tokens[static_cast<size_t>(*tokenizer.bos_id)]},
          {"eos_token", {{"content", tokenizer.tokens[static_cast<size_t>(*tokenizer.eos_id)]}}},
          {"chat_template", tokenizer.chat_template}};
}

void TinyModel::WriteFolder(const std::string& folder) const {
  std::filesystem::create_directories(folder);
  WriteFile(folder + "/config.json", ConfigJson().dump());
  WriteFile(folder + "/tokenizer.json", TokenizerJson().dump());
  WriteFile(folder + "/tokenizer_config.json", TokenizerConfigJson().dump());
  WriteFile(folder + "/model.safetensors", Safetensors().Build());
}

void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path);
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string FreshFolder(const std::string& name) {
  std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / fmt::format("epic_{}_XXXXXX", name);
  std::string pattern = folder.string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make " + pattern);
  return pattern;
}

}  // namespace epic
