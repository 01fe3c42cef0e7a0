#include "engine/files/model_family.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "fmt/format.h"

namespace epic {

namespace {

constexpr std::array<ModelFamily, 4> kFamilies = {{
    {.name = "llama",
     .gguf_architecture = "llama",
     .model_type = "llama",
     .hf_architecture = "LlamaForCausalLM",
     .gguf_pairs_are_adjacent = true},
    {.name = "mistral",
     .gguf_architecture = "",  // GGUF calls it "llama"
     .model_type = "mistral",
     .hf_architecture = "MistralForCausalLM"},
    {.name = "qwen2",
     .gguf_architecture = "qwen2",
     .model_type = "qwen2",
     .hf_architecture = "Qwen2ForCausalLM",
     .qkv_bias = true,
     .sliding_window_has_switch = true},
    {.name = "qwen3",
     .gguf_architecture = "qwen3",
     .model_type = "qwen3",
     .hf_architecture = "Qwen3ForCausalLM",
     .qk_norm = true,
     .sliding_window_has_switch = true},
}};

// Parts of the names of architectures, each with what it stands for. The first that fits counts.
struct ForeignKind {
  std::string_view part;
  std::string_view reason;
};
constexpr std::string_view kExperts = "it is a mixture of experts, which is not computed";
constexpr std::string_view kRecurrent = "it has recurrent layers, whose state cannot be linked";
constexpr std::string_view kWindow = "it has sliding-window attention, which is not computed";
constexpr ForeignKind kForeignKinds[] = {
    {"mamba", kRecurrent},
    {"rwkv", kRecurrent},
    {"jamba", kRecurrent},
    {"bamba", kRecurrent},
    {"zamba", kRecurrent},
    {"recurrent", kRecurrent},
    {"griffin", kRecurrent},
    {"falconh1", kRecurrent},
    {"hybrid", kRecurrent},
    {"nemotronh", kRecurrent},
    {"qwen3next", kRecurrent},
    {"qwen35", kRecurrent},
    {"lfm2", kRecurrent},
    {"plamo2", kRecurrent},
    {"kimilinear", kRecurrent},
    {"moe", kExperts},
    {"mixtral", kExperts},
    {"deepseek", kExperts},
    {"dbrx", kExperts},
    {"grok", kExperts},
    {"arctic", kExperts},
    {"gptoss", kExperts},
    {"llama4", kExperts},
    {"minimax", kExperts},
    {"hunyuanv1moe", kExperts},
    {"gemma2", kWindow},
    {"gemma3", kWindow},
    {"cohere2", kWindow},
    {"olmo2", "its norms stand behind attention and feed-forward, which is not computed"},
    {"phi3", "its long contexts switch rotation factors (LongRoPE), which is not computed"},
    {"bert", "it is an encoder, not a decoder"},
    {"t5", "it is an encoder-decoder"},
    {"vl", "it reads images"},
    {"mllama", "it reads images"},
};

// "Qwen2MoeForCausalLM" and "qwen2_moe" alike.
std::string Folded(std::string_view name) {
  std::string folded;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0) folded += static_cast<char>(std::tolower(byte));
  }
  return folded;
}

}  // namespace

std::span<const ModelFamily> ModelFamilies() { return kFamilies; }

const ModelFamily* FamilyOfGguf(std::string_view gguf_architecture) {
  if (gguf_architecture.empty()) return nullptr;
  const auto* found = std::find_if(kFamilies.begin(), kFamilies.end(), [&](const ModelFamily& family) {
    return family.gguf_architecture == gguf_architecture;
  });
  return found == kFamilies.end() ? nullptr : found;
}

const ModelFamily* FamilyOfModelType(std::string_view model_type) {
  const auto* found = std::find_if(kFamilies.begin(), kFamilies.end(),
                                   [&](const ModelFamily& family) { return family.model_type == model_type; });
  return found == kFamilies.end() ? nullptr : found;
}

std::string ReasonAgainstArchitecture(std::string_view architecture) {
  const std::string folded = Folded(architecture);
  for (const ForeignKind& kind : kForeignKinds) {
    if (folded.find(kind.part) != std::string::npos) return std::string(kind.reason);
  }
  return fmt::format("{} are run", FamilyNames());
}

std::string FamilyNames() {
  std::string names;
  for (size_t i = 0; i < kFamilies.size(); ++i) {
    if (i > 0) names += i + 1 == kFamilies.size() ? " and " : ", ";
    names += kFamilies[i].name;
  }
  return names;
}

}  // namespace epic
