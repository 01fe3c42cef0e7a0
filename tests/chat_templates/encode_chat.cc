// The token ids of conversations by a model's own template and tokenizer, for comparison with the reference
// (vocabularies_test.py).
//
//   encode_chat FOLDER CONVERSATIONS YEAR MONTH DAY
//
// FOLDER holds tokenizer.json and tokenizer_config.json; no weights are needed. CONVERSATIONS is JSON: a list of lists
// of [role, content]. Writes JSON: the template's name, and for each conversation the ids, or the sentence that refuses
// it.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "engine/files/loaded_model.h"
#include "engine/files/tokenizer_json.h"
#include "engine/prompt.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "nlohmann/json.hpp"

namespace epic {
namespace {

absl::StatusOr<nlohmann::json> Encode(const std::string& folder, const nlohmann::json& conversations,
                                      std::chrono::year_month_day today) {
  absl::StatusOr<TokenizerSpec> spec = TokenizerFromFolder(folder, kVocabularyMax, {});
  if (!spec.ok()) return spec.status();
  const absl::StatusOr<std::unique_ptr<ChatTemplate>> chat = ChatTemplate::Recognise(*spec);
  if (!chat.ok()) return chat.status();
  ProtectControlTokens(**chat, *spec);
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(*std::move(spec));
  if (!tokenizer.ok()) return tokenizer.status();
  nlohmann::json results = nlohmann::json::array();
  for (const auto& conversation : conversations) {
    std::vector<PromptMessage> messages;
    for (const auto& message : conversation) {
      messages.push_back({message[0], {{PromptPart::Kind::kText, message[1], {}, nullptr}}});
    }
    const auto prompt = BuildChatPrompt(**tokenizer, **chat, messages, today);
    if (!prompt.ok()) {
      results.push_back(std::string(prompt.status().message()));
    } else {
      results.push_back(prompt->front().token_ids);
    }
  }
  return nlohmann::json{{"name", (*chat)->name()}, {"prompts", results}};
}

}  // namespace
}  // namespace epic

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "expected FOLDER CONVERSATIONS YEAR MONTH DAY\n");
    return 2;
  }
  std::ifstream file(argv[2]);
  const std::chrono::year_month_day today(std::chrono::year(std::atoi(argv[3])),
                                          std::chrono::month(static_cast<unsigned>(std::atoi(argv[4]))),
                                          std::chrono::day(static_cast<unsigned>(std::atoi(argv[5]))));
  const absl::StatusOr<nlohmann::json> results = epic::Encode(argv[1], nlohmann::json::parse(file), today);
  if (!results.ok()) {
    std::fprintf(stderr, "%s\n", results.status().ToString().c_str());
    return 1;
  }
  std::printf("%s\n", results->dump().c_str());
  return 0;
}
