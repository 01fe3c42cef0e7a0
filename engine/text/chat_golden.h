// For tests: what tests/golden/make_chat_golden.py wrote.
#ifndef EPIC_ENGINE_TEXT_CHAT_GOLDEN_H_
#define EPIC_ENGINE_TEXT_CHAT_GOLDEN_H_

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/chat_template_layouts.h"
#include "engine/text/tokenizer_spec.h"
#include "nlohmann/json.hpp"

namespace epic {

using Conversation = std::vector<std::pair<std::string, std::string>>;  // role and content

// Throws where the file is missing or broken, which fails the test that asks.
inline nlohmann::json ReadChatGolden(const std::string& name) {
  const char* source = std::getenv("EPIC_SOURCE_DIR");
  std::ifstream file(std::string(source != nullptr ? source : ".") + "/tests/golden/chat/" + name);
  return nlohmann::json::parse(file);
}

struct NamedLayout {
  ChatLayout layout;
  LayoutTexts texts;
};

// By the name that the golden files give it. Throws for one that they do not have.
inline NamedLayout GoldenLayout(const std::string& name) {
  const LayoutTexts plain = {"", "", std::nullopt};
  const LayoutTexts llama2 = {"<s>", "</s>", std::nullopt};
  const LayoutTexts llama3 = {"<|begin_of_text|>", "<|eot_id|>", std::nullopt};
  const std::map<std::string, NamedLayout> layouts = {
      {"chatml", {ChatLayout::kChatMl, plain}},
      {"qwen2", {ChatLayout::kChatMl, {"", "", "You are a helpful assistant."}}},
      {"qwen2.5",
       {ChatLayout::kChatMl, {"", "", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."}}},
      {"qwen3", {ChatLayout::kQwen3, plain}},
      {"qwen3-thinking", {ChatLayout::kQwen3Thinking, plain}},
      {"yi-coder", {ChatLayout::kYi, plain}},
      {"yi-1.5", {ChatLayout::kYiPlainSystem, plain}},
      {"llama-2", {ChatLayout::kLlama2, llama2}},
      {"llama-2-trim", {ChatLayout::kLlama2TrimSystem, llama2}},
      {"llama-3", {ChatLayout::kLlama3, llama3}},
      {"llama-3.1", {ChatLayout::kLlama31, llama3}},
      {"llama-3.2", {ChatLayout::kLlama32, llama3}},
      {"mistral-v0.1", {ChatLayout::kMistral01, llama2}},
      {"mistral-v0.2", {ChatLayout::kMistral02, llama2}},
      {"mistral-v1", {ChatLayout::kMistralV1, llama2}},
      {"mistral-v1-last", {ChatLayout::kMistralV1Last, llama2}},
      {"mixtral-8x22b", {ChatLayout::kMixtral8x22, llama2}},
      {"mistral-v3", {ChatLayout::kMistralV3, llama2}},
      {"mistral-v3-plain", {ChatLayout::kMistralV3Plain, llama2}},
      {"mistral-tekken", {ChatLayout::kMistralTekken, llama2}},
  };
  return layouts.at(name);
}

// The small vocabulary of chat.json, "bytes" or "spm".
inline TokenizerSpec ChatTokenizerSpec(const nlohmann::json& golden, const std::string& kind) {
  const nlohmann::json& vocabulary = golden["vocabularies"][kind];
  TokenizerSpec spec;
  spec.model = kind == "spm" ? "spm" : "bpe";
  spec.pre_tokenizer = kind == "spm" ? "" : "smollm";
  if (kind == "spm") spec.space_prefix = SpacePrefix::kEvery;
  spec.tokens = vocabulary["tokens"].get<std::vector<std::string>>();
  spec.merges = vocabulary["merges"].get<std::vector<std::string>>();
  for (const std::string& token : spec.tokens) {
    const bool is_byte = kind == "spm" && token.size() == 6 && token.starts_with("<0x");
    spec.kinds.push_back(is_byte ? TokenKind::kByte : TokenKind::kNormal);
  }
  for (const int32_t id : vocabulary["control"]) spec.kinds[id] = TokenKind::kControl;
  if (kind == "spm") spec.kinds[0] = TokenKind::kUnknown;
  return spec;
}

// In the vocabularies of layouts that do not write [INST] as a token it is text, so it is nobody's written form.
inline void LeaveBracketsText(const ChatTemplate& layout, TokenizerSpec& spec) {
  for (const std::string& token : layout.control_tokens()) {
    if (token == "[INST]") return;
  }
  for (std::string& token : spec.tokens) {
    if (token == "[INST]" || token == "[/INST]") token = "<|unused" + token + "|>";
  }
}

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_CHAT_GOLDEN_H_
