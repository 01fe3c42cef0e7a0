#include "engine/text/chat_template_table.h"

#include <utility>

namespace epic {
namespace {

struct KnownTemplate {
  std::string_view hash;
  ChatLayout layout;
};

constexpr KnownTemplate kKnownTemplates[] = {
    // Qwen 2.5, whatever its default system message
    {"d7d7c988b71f9a8458d6272b37682ab43e870397324d4814106de4272e782daa", ChatLayout::kChatMl},
    // Qwen 2.5 Coder, as first published
    {"711a05bd006553a8f3d36c89584ab95b1691f34f9e71213291864c9d9b15cb22", ChatLayout::kChatMl},
    // Qwen 3 Instruct 2507
    {"a7bbd552dbf1a7b926ed5c2b98ee94182f759da83cec148c99f9e44b82e49a81", ChatLayout::kChatMl},
    // Qwen 3
    {"222335659f7cd4972b9951e978d068996c7616a036a0a5add30c20b4878524a9", ChatLayout::kQwen3},
    // Qwen 3, later
    {"5eca108b6586926ea8273074742b219002d01905c352aa52e9b5a164acfd150f", ChatLayout::kQwen3},
    // the same, edited by Unsloth
    {"752452554679f20ddf6c1bd59a7902190ae8ed857eef5c5868fd243894829ff1", ChatLayout::kQwen3},
    // the same, as its GGUF files carry it
    {"a6c953124b544bfcb626eed85c453418bdae32f8d8fce497d64d89967fe5abc9", ChatLayout::kQwen3},
    // Qwen 3 Thinking 2507, as Unsloth carries it
    {"1a5ef7f16816ef79d7b5ea4fe203f244fd8ceb964a2bf74f0eaca6a46a39bbff", ChatLayout::kQwen3Thinking},
    // Yi Coder Chat
    {"463df1928088eb93b670291898dfa33be887fba8a5800711cf4e5bd28bec76ed", ChatLayout::kYi},
    // Yi 1.5 Chat
    {"8dfd75032686cc99fa3ebe86eefcf36b85ee287aa9ab6a83228830c110232176", ChatLayout::kYiPlainSystem},
    // Code Llama
    {"4362c001f703e53efb7a8a37d97e4a6bd69a9e876dc84bd4615a7bedf50d5c59", ChatLayout::kLlama2},
    // Llama 2 Chat, as first published
    {"297ef947ad2c82a2d92a34ab87882f3081482606c1ff0febc8ecc0b2bb5fe563", ChatLayout::kLlama2},
    // Llama 2 Chat, later
    {"a600bfc2c12512bee6ce8e8c6eabcc5ad4e0fd40de0fd938594680063bbb2d26", ChatLayout::kLlama2TrimSystem},
    // Llama 3 Instruct
    {"21124090fe2d6045389c645fddd0f1469e6856ef53800c64c54c045de303bf87", ChatLayout::kLlama3},
    // the same for content in parts
    {"4908c96412ebe41cce5e599236dbc75493fc4ee2617f211927347ecba51d4569", ChatLayout::kLlama3},
    // the same, always opening the assistant's turn
    {"a1e21ae29d2ede668e7c6faa49382c6107445822f6add3529d5d2adbd0202c10", ChatLayout::kLlama3},
    // Llama 3.1 and 3.3 Instruct
    {"68199fc132a0d39ea21388fb8232acb9559f73c278bba835542216d35bd75e76", ChatLayout::kLlama31},
    // Llama 3.2 Instruct
    {"9c272ed1087595153d954a2b326529ea1615ee1b67ff696e081c28cd44700e27", ChatLayout::kLlama32},
    // Mistral 7B Instruct v0.1, as first published
    {"176303f89b5875995f941901fde5e9900a8d5e2a2ab6f30962ae9df5150c60be", ChatLayout::kMistral01},
    // Mistral 7B Instruct v0.2 and Mixtral, as first published
    {"d8222be2c95a8dba30eda56a8048dbee8ab0f2bdc85e252b052896ae2284ba96", ChatLayout::kMistral02},
    // Mistral 7B Instruct v0.1 and v0.2, later
    {"22e029f1fe9982db7e1baef6153e223e2dd92ba430daa5bac731be6b3a8d6723", ChatLayout::kMistralV1},
    // the same for content in parts
    {"817cdd36e054e5d8af705c14493799cc32b8a3dc8953abddeed0777a6359f131", ChatLayout::kMistralV1},
    // the same, the system message last
    {"c651fc9ddcf3bd917f1b9fe8111614a2e8d9e430c0f879fe3ed83e88e9e58922", ChatLayout::kMistralV1Last},
    // Mixtral 8x22B Instruct and Mistral 7B Instruct v0.3, as first published
    {"4e5f18e8ddcd9a61bde84a67bfaabefa3ac91f9ea3e8e3903e6e8ec8333dbb7c", ChatLayout::kMixtral8x22},
    // Mistral 7B Instruct v0.3, with tools
    {"defc114381d3ef23c6b5fd8f16a1d8d1a4b677a23a128e27bf864e0212c6dcd9", ChatLayout::kMistralV3},
    // the same for content in parts
    {"3fb421ba607cd7c155d79ee38f670f0a99e56d5f19f1ed4dcb0073c1e6532cf7", ChatLayout::kMistralV3},
    // the same, not trimmed
    {"bac904772b8eb9eab13c410f8fdb0f7c5250759421d1e5107bd536b2c2d9842f", ChatLayout::kMistralV3Plain},
    // Mistral 7B Instruct v0.3 and Codestral, without tools
    {"efc27f4e94fd09a4697bf55fe92f9795dd16ad3af4e23317258ef21169d5bc30", ChatLayout::kMistralV3Plain},
    // Mistral Nemo Instruct
    {"1fb8fc33fc464e30bb0f71b3b035bc1dbc7cea90a6eb692c063da6290e61399e", ChatLayout::kMistralTekken},
    // the same for content in parts
    {"79162633c60dfca69bf86082bfdc80ed34677dbb50c8c60ebd8b9b7a9a0c2a65", ChatLayout::kMistralTekken},
};

}  // namespace

std::optional<std::string> MessageOfSystemTurn(std::string_view turn) {
  constexpr std::string_view kStart = "<|im_start|>system\n";
  constexpr std::string_view kEnd = "<|im_end|>\n";
  if (!turn.starts_with(kStart) || !turn.ends_with(kEnd) || turn.size() < kStart.size() + kEnd.size()) {
    return std::nullopt;
  }
  const std::string_view message = turn.substr(kStart.size(), turn.size() - kStart.size() - kEnd.size());
  if (message.find("<|") != std::string_view::npos) return std::nullopt;
  return std::string(message);
}

std::optional<std::string> TakeDefaultSystem(std::vector<TemplateStep>& steps) {
  std::optional<std::string> message;
  for (TemplateStep& step : steps) {
    if (step.kind != TemplateStep::Kind::kText) continue;
    std::optional<std::string> found = MessageOfSystemTurn(step.text);
    if (!found || (message && *found != *message)) continue;
    message = std::move(found);
    step.text = "<|im_start|>system\n<|im_end|>\n";
  }
  if (!message || message->empty()) return message;
  // Where tools are given it stands without its turn's marks.
  for (TemplateStep& step : steps) {
    if (step.kind == TemplateStep::Kind::kText && step.text == *message) step.text.clear();
  }
  return message;
}

std::optional<ChatLayout> FindKnownLayout(std::string_view hash_of_steps) {
  for (const KnownTemplate& known : kKnownTemplates) {
    if (known.hash == hash_of_steps) return known.layout;
  }
  return std::nullopt;
}

}  // namespace epic
