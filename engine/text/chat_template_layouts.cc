#include "engine/text/chat_template_layouts.h"

#include <utility>

namespace epic {

std::unique_ptr<ChatTemplate> MakeChatLayout(ChatLayout layout, LayoutTexts texts) {
  switch (layout) {
    case ChatLayout::kChatMl:
      return MakeChatMl(std::move(texts));
    case ChatLayout::kQwen3:
    case ChatLayout::kQwen3Thinking:
      return MakeQwen3(layout == ChatLayout::kQwen3Thinking);
    case ChatLayout::kYi:
    case ChatLayout::kYiPlainSystem:
      return MakeYi(layout == ChatLayout::kYiPlainSystem);
    case ChatLayout::kLlama2:
    case ChatLayout::kLlama2TrimSystem:
      return MakeLlama2(std::move(texts), layout == ChatLayout::kLlama2TrimSystem);
    case ChatLayout::kLlama3:
      return MakeLlama3(std::move(texts), DateLine::kNone);
    case ChatLayout::kLlama31:
      return MakeLlama3(std::move(texts), DateLine::kFixed);
    case ChatLayout::kLlama32:
      return MakeLlama3(std::move(texts), DateLine::kToday);
    default:
      return MakeMistral(std::move(texts), layout);
  }
}

}  // namespace epic
