#include <utility>

#include "core/utf8.h"
#include "engine/text/tokenizer.h"

namespace epic {
namespace {

constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

}  // namespace

std::string StreamDecoder::Push(int32_t id) {
  held_ += tokenizer_.DecodeToken(id);
  if (strips_space_ && !held_.empty()) {
    if (held_[0] == ' ') held_.erase(0, 1);
    strips_space_ = false;
  }
  std::string complete;
  size_t position = 0;
  while (position < held_.size()) {
    const Utf8Character character = ReadUtf8(held_, position);
    if (character.kind == Utf8Character::Kind::kUnfinished) break;
    if (character.kind == Utf8Character::Kind::kValid) {
      complete.append(held_, position, character.length);
    } else {
      complete.append(kReplacementCharacter);
    }
    position += character.length;
  }
  held_.erase(0, position);
  return complete;
}

std::string StreamDecoder::Finish() {
  const bool unfinished = !std::exchange(held_, {}).empty();
  return unfinished ? std::string(kReplacementCharacter) : std::string();
}

}  // namespace epic
