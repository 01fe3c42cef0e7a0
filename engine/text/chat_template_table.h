// Which published templates we know, by the hash of their steps (template_source.h).
#ifndef EPIC_ENGINE_TEXT_CHAT_TEMPLATE_TABLE_H_
#define EPIC_ENGINE_TEXT_CHAT_TEMPLATE_TABLE_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/chat_template_layouts.h"
#include "engine/text/template_source.h"

namespace epic {

// The message of `turn` where that is a whole system turn of ChatML, as a template writes where a conversation brings
// no system message. Nothing where the message contains "<|", which might end the turn.
std::optional<std::string> MessageOfSystemTurn(std::string_view turn);

// Takes such a message out of the steps, wherever it stands in them, and returns it: templates that differ in nothing
// else are one template in the table.
std::optional<std::string> TakeDefaultSystem(std::vector<TemplateStep>& steps);

std::optional<ChatLayout> FindKnownLayout(std::string_view hash_of_steps);

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_CHAT_TEMPLATE_TABLE_H_
