// For tests: what tests/golden/make_tokenizer_golden.py wrote.
#ifndef EPIC_ENGINE_TEXT_TEXT_GOLDEN_H_
#define EPIC_ENGINE_TEXT_TEXT_GOLDEN_H_

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "engine/text/tokenizer_spec.h"
#include "nlohmann/json.hpp"

namespace epic {

// Throws where the file is missing or broken, which fails the test that asks.
inline nlohmann::json ReadTextGolden(const std::string& name) {
  const char* source = std::getenv("EPIC_SOURCE_DIR");
  std::ifstream file(std::string(source != nullptr ? source : ".") + "/tests/golden/tokenizer/" + name);
  return nlohmann::json::parse(file);
}

// The small vocabulary of small.json.
inline TokenizerSpec SmallTokenizerSpec(const nlohmann::json& golden) {
  TokenizerSpec spec;
  spec.model = "bpe";
  spec.pre_tokenizer = "smollm";
  spec.tokens = golden["tokens"].get<std::vector<std::string>>();
  spec.kinds.assign(spec.tokens.size(), TokenKind::kNormal);
  for (const int32_t id : golden["control"]) spec.kinds[id] = TokenKind::kControl;
  for (const int32_t id : golden["user_defined"]) spec.kinds[id] = TokenKind::kUserDefined;
  for (const int32_t id : golden["user_defined"]) spec.added_rules[id].in_normalized_text = true;
  spec.merges = golden["merges"].get<std::vector<std::string>>();
  return spec;
}

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_TEXT_GOLDEN_H_
