#include "engine/text/separator.h"

#include <algorithm>

namespace epic {

bool IsSeparator(std::string_view text) {
  static constexpr std::string_view kEnds[] = {"\n", ".", "!", "?", "。", "！", "？"};
  static constexpr std::string_view kSpaces[] = {" ", "\t", "\r"};
  const auto take = [&text](std::string_view mark) {
    if (!text.starts_with(mark)) return false;
    text.remove_prefix(mark.size());
    return true;
  };
  bool ends = false;
  while (!text.empty()) {
    if (std::ranges::any_of(kEnds, take)) {
      ends = true;
    } else if (!std::ranges::any_of(kSpaces, take)) {
      return false;
    }
  }
  return ends;
}

std::vector<bool> SeparatorsOf(const Tokenizer& tokenizer) {
  std::vector<bool> separators(tokenizer.vocab_size());
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) separators[id] = IsSeparator(tokenizer.DecodeToken(id));
  return separators;
}

}  // namespace epic
