#include "engine/files/synthetic_model.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <system_error>
#include <utility>
#include <vector>

#include "core/nearest_name.h"
#include "core/status_macros.h"
#include "engine/files/config_json.h"
#include "engine/files/file_error.h"
#include "engine/files/loaded_model.h"
#include "engine/files/model_family.h"
#include "engine/text/byte_alphabet.h"

namespace epic {

namespace {

struct Shape {
  std::string_view name;
  std::string_view family;
  int32_t layers;
  int32_t width;
  int32_t heads;
  int32_t kv_heads;
  int32_t ffn_width;
  int32_t vocab_size;
  int32_t context_length;
  double rope_base;
  double rms_epsilon;
  bool tied_embeddings;
  bool llama3_scaling;
};

constexpr std::array<Shape, 5> kShapes = {{
    {"llama-3.1-8b", "llama", 32, 4096, 32, 8, 14336, 128256, 131072, 500000, 1e-5, false, true},
    {"mistral-7b", "mistral", 32, 4096, 32, 8, 14336, 32768, 32768, 1000000, 1e-5, false, false},
    {"yi-coder-9b", "llama", 48, 4096, 32, 4, 11008, 64000, 131072, 10000000, 1e-5, false, false},
    {"qwen2.5-0.5b", "qwen2", 24, 896, 14, 2, 4864, 151936, 32768, 1000000, 1e-6, true, false},
    {"smollm2-135m", "llama", 30, 576, 9, 3, 1536, 49152, 8192, 100000, 1e-5, true, false},
}};

constexpr auto kShapeNames = [] {
  std::array<std::string_view, kShapes.size()> names{};
  for (size_t i = 0; i < names.size(); ++i) names[i] = kShapes[i].name;
  return names;
}();

constexpr size_t kBufferElements = size_t{1} << 20;
constexpr std::array<std::string_view, 3> kSpecialTokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};

absl::StatusOr<const Shape*> FindShape(const SyntheticModelOptions& options) {
  for (const Shape& shape : kShapes) {
    if (shape.name != options.shape) continue;
    if (options.layers < 0 || options.layers > shape.layers) {
      return absl::InvalidArgumentError(
          fmt::format("layers is {}, expected 1 to {} for {}", options.layers, shape.layers, shape.name));
    }
    return &shape;
  }
  const std::vector<std::string> names(kShapeNames.begin(), kShapeNames.end());
  return absl::InvalidArgumentError(
      fmt::format("shape is {}{}", Quoted(options.shape), NameHint(options.shape, names)));
}

int32_t LayersOf(const Shape& shape, const SyntheticModelOptions& options) {
  return options.layers == 0 ? shape.layers : options.layers;
}

nlohmann::json ConfigOf(const Shape& shape, const SyntheticModelOptions& options) {
  const ModelFamily* family = FamilyOfModelType(shape.family);
  nlohmann::json config = {{"architectures", {family->hf_architecture}},
                           {"model_type", family->model_type},
                           {"num_hidden_layers", LayersOf(shape, options)},
                           {"hidden_size", shape.width},
                           {"num_attention_heads", shape.heads},
                           {"num_key_value_heads", shape.kv_heads},
                           {"intermediate_size", shape.ffn_width},
                           {"vocab_size", shape.vocab_size},
                           {"max_position_embeddings", shape.context_length},
                           {"rms_norm_eps", shape.rms_epsilon},
                           {"rope_theta", shape.rope_base},
                           {"tie_word_embeddings", shape.tied_embeddings},
                           {"hidden_act", "silu"},
                           {"torch_dtype", "bfloat16"},
                           {kSyntheticWeightsMember, true}};
  if (shape.llama3_scaling) {
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", 8.0},
                              {"low_freq_factor", 1.0},
                              {"high_freq_factor", 4.0},
                              {"original_max_position_embeddings", 8192}};
  }
  return config;
}

// One token a byte, so that a text's length in tokens is its length in bytes; the rest of the vocabulary is unused.
nlohmann::json TokenizerOf() {
  nlohmann::json vocabulary = nlohmann::json::object();
  nlohmann::json added = nlohmann::json::array();
  for (size_t id = 0; id < kSpecialTokens.size(); ++id) {
    vocabulary[std::string(kSpecialTokens[id])] = id;
    added.push_back({{"id", id},
                     {"content", kSpecialTokens[id]},
                     {"special", true},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"single_word", false},
                     {"normalized", false}});
  }
  for (int byte = 0; byte < 256; ++byte) {
    vocabulary[ByteToAlphabet(static_cast<uint8_t>(byte))] = kSpecialTokens.size() + byte;
  }
  const nlohmann::json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  return {{"version", "1.0"},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "Sequence"}, {"pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}}, byte_level}}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", nlohmann::json::array()}}}};
}

nlohmann::json TokenizerConfigOf() {
  return {{"eos_token", kSpecialTokens[2]},
          {"chat_template",
           "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
           "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
           "{% endif %}"}};
}

uint64_t ElementsOf(const ExpectedTensor& tensor) {
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(), uint64_t{1},
                         [](uint64_t product, int64_t size) { return product * static_cast<uint64_t>(size); });
}

uint64_t WeightBytes(const std::vector<ExpectedTensor>& tensors) {
  uint64_t bytes = 0;
  for (const ExpectedTensor& tensor : tensors) bytes += ElementsOf(tensor) * sizeof(uint16_t);
  return bytes;
}

// The safetensors header, padded with blanks so that the tensors are aligned.
std::string HeaderOf(const std::vector<ExpectedTensor>& tensors) {
  nlohmann::json header = nlohmann::json::object();
  uint64_t offset = 0;
  for (const ExpectedTensor& tensor : tensors) {
    const uint64_t end = offset + ElementsOf(tensor) * sizeof(uint16_t);
    header[tensor.stored] = {{"dtype", "BF16"}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 63) / 64 * 64, ' ');
  const uint64_t length = text.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + text;
}

// A generator whose n-th number needs none of the others (Steele et al. 2014, SplitMix64): the loop over it vectorises.
uint64_t RandomBits(uint64_t seed, uint64_t n) {
  uint64_t z = seed + (n + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

uint16_t Bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// Elements [begin, begin + out.size()) of a tensor: evenly spread with a variance of 1 / inputs, so that activations
// keep their size from layer to layer; norms are 1 and biases small.
void FillRandom(const ExpectedTensor& tensor, uint64_t seed, uint64_t begin, std::span<uint16_t> out) {
  if (tensor.canonical.ends_with("norm")) {
    std::fill(out.begin(), out.end(), Bf16(1.0f));
    return;
  }
  const bool is_vector = tensor.shape.size() == 1;
  const float deviation = is_vector ? 0.02f : 1.0f / std::sqrt(static_cast<float>(tensor.shape.back()));
  const float step = deviation * std::sqrt(3.0f) / 32768.0f;
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = Bf16(step * static_cast<float>(static_cast<int16_t>(RandomBits(seed, begin + i) >> 48)));
  }
}

absl::Status SystemError(const std::string& path, const char* what) {
  return absl::UnavailableError(fmt::format("{}: cannot {}: {}", path, what, std::generic_category().message(errno)));
}

absl::Status WriteText(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  return file ? absl::OkStatus() : SystemError(path, "write");
}

absl::Status WriteWeights(const std::string& path, const std::vector<ExpectedTensor>& tensors,
                          const SyntheticModelOptions& options) {
  std::ofstream file(path, std::ios::binary);
  if (!file) return SystemError(path, "open");
  file << HeaderOf(tensors);
  const uint64_t total = WeightBytes(tensors);
  uint64_t written = 0;
  std::vector<uint16_t> buffer(kBufferElements);
  for (size_t index = 0; index < tensors.size(); ++index) {
    const uint64_t seed = RandomBits(options.seed, index);
    const uint64_t elements = ElementsOf(tensors[index]);
    for (uint64_t begin = 0; begin < elements; begin += kBufferElements) {
      const std::span<uint16_t> part = std::span(buffer).first(std::min<uint64_t>(kBufferElements, elements - begin));
      FillRandom(tensors[index], seed, begin, part);
      file.write(reinterpret_cast<const char*>(part.data()), static_cast<std::streamsize>(part.size_bytes()));
      if (!file) return SystemError(path, "write");
      written += part.size_bytes();
      if (options.on_progress) options.on_progress(written, total);
    }
  }
  file.close();
  return file ? absl::OkStatus() : SystemError(path, "write");
}

absl::Status PrepareFolder(const std::string& folder, uint64_t bytes) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return absl::UnavailableError(fmt::format("{}: cannot make the folder: {}", folder, error.message()));
  if (!std::filesystem::is_empty(folder, error) || error) {
    return absl::AlreadyExistsError(fmt::format("{}: the folder is not empty; name a new one", folder));
  }
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (!error && space.available < bytes) {
    return absl::ResourceExhaustedError(fmt::format(
        "{}: the weights take {} bytes, but only {} are free on this disk; take fewer layers or another folder", folder,
        bytes, space.available));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ExpectedTensor>> TensorsOf(const nlohmann::json& config, const std::string& folder) {
  EPIC_ASSIGN_OR_RETURN(const ModelConfig parsed, ConfigFromJson(JsonObject(config, folder + "/config.json")));
  return ExpectedTensors(parsed, TensorNaming::kSafetensors);
}

}  // namespace

std::span<const std::string_view> SyntheticShapeNames() { return kShapeNames; }

absl::StatusOr<uint64_t> SyntheticModelBytes(const SyntheticModelOptions& options) {
  EPIC_ASSIGN_OR_RETURN(const Shape* shape, FindShape(options));
  EPIC_ASSIGN_OR_RETURN(const auto tensors, TensorsOf(ConfigOf(*shape, options), options.folder));
  return HeaderOf(tensors).size() + WeightBytes(tensors);
}

absl::Status WriteSyntheticModel(const SyntheticModelOptions& options) {
  EPIC_ASSIGN_OR_RETURN(const Shape* shape, FindShape(options));
  const nlohmann::json config = ConfigOf(*shape, options);
  EPIC_ASSIGN_OR_RETURN(const auto tensors, TensorsOf(config, options.folder));
  EPIC_RETURN_IF_ERROR(PrepareFolder(options.folder, HeaderOf(tensors).size() + WeightBytes(tensors)));
  EPIC_RETURN_IF_ERROR(WriteWeights(options.folder + "/model.safetensors", tensors, options));
  EPIC_RETURN_IF_ERROR(WriteText(options.folder + "/tokenizer.json", TokenizerOf().dump()));
  EPIC_RETURN_IF_ERROR(WriteText(options.folder + "/tokenizer_config.json", TokenizerConfigOf().dump()));
  return WriteText(options.folder + "/config.json", config.dump(2));
}

}  // namespace epic
