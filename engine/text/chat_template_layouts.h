// The layouts that we render, each a small description of what varies within its family.
#ifndef EPIC_ENGINE_TEXT_CHAT_TEMPLATE_LAYOUTS_H_
#define EPIC_ENGINE_TEXT_CHAT_TEMPLATE_LAYOUTS_H_

#include <memory>
#include <optional>
#include <string>

#include "engine/text/chat_template.h"

namespace epic {

enum class ChatLayout {
  kChatMl,            // <|im_start|>role\n ... <|im_end|>\n; with a system turn of its own where one is given
  kQwen3,             // ChatML; reasoning of earlier turns is left out
  kQwen3Thinking,     // the same, and the assistant's turn begins with <think>
  kYi,                // Yi-Coder: a user's turn ends by opening the assistant's
  kYiPlainSystem,     // Yi-1.5: the same, the system message bare at the beginning
  kLlama2,            // [INST] <<SYS>> ... <</SYS>> ... [/INST]
  kLlama2TrimSystem,  // the same, the system message trimmed
  kLlama3,            // <|start_header_id|>role<|end_header_id|> ... <|eot_id|>
  kLlama31,           // the same, with a system turn always, which names a fixed date
  kLlama32,           // the same, with the date of the day
  kMistral01,         // "[INST] " ... " [/INST]", "</s> " behind the assistant
  kMistral02,         // the same, "</s>"
  kMistralV1,         // " [INST] " ... " [/INST]", the system message in the first message of the user
  kMistralV1Last,     // the same, in the last one
  kMixtral8x22,       // " [INST] " ... " [/INST]", " </s>", no system message
  kMistralV3,         // "[INST] " ... "[/INST]", in the last one, the assistant's text trimmed
  kMistralV3Plain,    // the same, nothing trimmed
  kMistralTekken,     // "[INST]" ... "[/INST]", in the last one
};

// What a template takes from outside its source.
struct LayoutTexts {
  std::string bos;  // the written form of BOS where the template writes it, else empty
  std::string eos;
  std::optional<std::string> default_system;  // kChatMl: what stands between "system\n" and "<|im_end|>"
};

std::unique_ptr<ChatTemplate> MakeChatLayout(ChatLayout layout, LayoutTexts texts);

// Of each family, in files of their own.
std::unique_ptr<ChatTemplate> MakeChatMl(LayoutTexts texts);
std::unique_ptr<ChatTemplate> MakeQwen3(bool opens_thinking);
std::unique_ptr<ChatTemplate> MakeYi(bool plain_system);
std::unique_ptr<ChatTemplate> MakeLlama2(LayoutTexts texts, bool trims_system);
enum class DateLine { kNone, kFixed, kToday };
std::unique_ptr<ChatTemplate> MakeLlama3(LayoutTexts texts, DateLine date);
std::unique_ptr<ChatTemplate> MakeMistral(LayoutTexts texts, ChatLayout layout);

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_CHAT_TEMPLATE_LAYOUTS_H_
