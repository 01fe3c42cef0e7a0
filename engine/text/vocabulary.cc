#include "engine/text/vocabulary.h"

#include <utility>

#include "core/status_macros.h"
#include "core/utf8.h"
#include "fmt/format.h"

namespace epic {

std::string ShownToken(std::string_view token) {
  constexpr size_t kShownBytes = 40;
  std::string shown;
  size_t position = 0;
  while (position < token.size() && position < kShownBytes) {
    const Utf8Character character = ReadUtf8(token, position);
    const bool shows = character.kind == Utf8Character::Kind::kValid && character.code_point >= 0x20 &&
                       (character.code_point < 0x7F || character.code_point >= 0xA0);
    for (const char byte : token.substr(position, character.length)) {
      shown += shows ? std::string(1, byte) : fmt::format("\\x{:02x}", static_cast<uint8_t>(byte));
    }
    position += character.length;
  }
  return fmt::format("\"{}{}\"", shown, position < token.size() ? "..." : "");
}

absl::StatusOr<Vocabulary> Vocabulary::Create(std::vector<std::string> tokens, std::vector<TokenKind> kinds) {
  Vocabulary vocabulary;
  vocabulary.tokens_ = std::move(tokens);
  vocabulary.kinds_ = std::move(kinds);
  vocabulary.ids_.reserve(vocabulary.tokens_.size());
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    const std::string& token = vocabulary.tokens_[id];
    if (token.empty()) return absl::InvalidArgumentError(fmt::format("token {} of the vocabulary is empty", id));
    if (FindInvalidUtf8(token)) {
      return absl::InvalidArgumentError(
          fmt::format("token {} of the vocabulary ({}) is not UTF-8", id, ShownToken(token)));
    }
    const auto [existing, is_new] = vocabulary.ids_.try_emplace(token, id);
    if (!is_new) {
      return absl::InvalidArgumentError(
          fmt::format("tokens {} and {} of the vocabulary are both {}", existing->second, id, ShownToken(token)));
    }
  }
  return vocabulary;
}

std::optional<int32_t> Vocabulary::Find(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

absl::Status Vocabulary::AddMerges(const std::vector<std::string>& merges, SpecialMerges special_merges,
                                   BytePairMerger& merger) const {
  merger.Reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    EPIC_RETURN_IF_ERROR(AddMerge(rank, merges[rank], special_merges, merger));
  }
  return absl::OkStatus();
}

absl::Status Vocabulary::AddMerge(size_t rank, std::string_view merge, SpecialMerges special_merges,
                                  BytePairMerger& merger) const {
  const size_t space = merge.find(' ');
  if (space == std::string_view::npos || merge.find(' ', space + 1) != std::string_view::npos) {
    return absl::InvalidArgumentError(
        fmt::format("merge {} is {}; expected two tokens with one space between them", rank, ShownToken(merge)));
  }
  const std::string_view left = merge.substr(0, space);
  const std::string_view right = merge.substr(space + 1);
  const std::string merged = std::string(left).append(right);
  int32_t ids[3];
  size_t count = 0;
  for (const std::string_view token : {left, right, std::string_view(merged)}) {
    const std::optional<int32_t> id = Find(token);
    if (!id) {
      return absl::InvalidArgumentError(fmt::format("merge {} ({}) names {}, which is not in the vocabulary", rank,
                                                    ShownToken(merge), ShownToken(token)));
    }
    if (IsSpecialKind(kinds_[*id])) {
      if (special_merges == SpecialMerges::kLeaveOut) return absl::OkStatus();
      return absl::InvalidArgumentError(
          fmt::format("merge {} ({}) would build the control token {} out of ordinary text", rank, ShownToken(merge),
                      ShownToken(token)));
    }
    ids[count++] = *id;
  }
  if (!merger.AddMerge(ids[0], ids[1], ids[2])) {
    return absl::InvalidArgumentError(fmt::format("merge {} ({}) stands in the list twice", rank, ShownToken(merge)));
  }
  return absl::OkStatus();
}

}  // namespace epic
