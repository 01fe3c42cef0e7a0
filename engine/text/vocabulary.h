// The tokens of a model: their written forms and kinds by id, and ids by written form.
//
// Immutable once made, thread-safe.
#ifndef EPIC_ENGINE_TEXT_VOCABULARY_H_
#define EPIC_ENGINE_TEXT_VOCABULARY_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/bpe.h"
#include "engine/text/tokenizer_spec.h"

namespace epic {

using IdsByString = absl::flat_hash_map<std::string_view, int32_t, std::hash<std::string_view>>;

// A token as an error message shows it: a hostile file must not put kilobytes, control characters or broken UTF-8 into
// a log.
std::string ShownToken(std::string_view token);

// Special and ordinary text never mix: these are not made by merges and decode to nothing.
inline bool IsSpecialKind(TokenKind kind) {
  return kind == TokenKind::kControl || kind == TokenKind::kUnknown || kind == TokenKind::kUnused;
}

class Vocabulary {
 public:
  // INVALID_ARGUMENT for a token that is empty, not UTF-8, or there twice.
  // REQUIRES: as many kinds as tokens, and no more than an id counts.
  static absl::StatusOr<Vocabulary> Create(std::vector<std::string> tokens, std::vector<TokenKind> kinds);
  // ids_ views tokens_, which keeps its place when it is moved and not when it is copied.
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;

  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  bool Has(int32_t id) const { return id >= 0 && id < size(); }
  const std::string& token(int32_t id) const { return tokens_[id]; }
  TokenKind kind(int32_t id) const { return kinds_[id]; }
  std::optional<int32_t> Find(std::string_view token) const;

  // Adds merges, "left right" each, to `merger` in their order. INVALID_ARGUMENT for one that is not two tokens with
  // one space between them, names a token that there is not, or stands twice. One that makes or takes a special token
  // is INVALID_ARGUMENT too, or left out.
  enum class SpecialMerges { kRefuse, kLeaveOut };
  absl::Status AddMerges(const std::vector<std::string>& merges, SpecialMerges special_merges,
                         BytePairMerger& merger) const;

 private:
  Vocabulary() = default;
  absl::Status AddMerge(size_t rank, std::string_view merge, SpecialMerges special_merges,
                        BytePairMerger& merger) const;

  std::vector<std::string> tokens_;
  std::vector<TokenKind> kinds_;
  IdsByString ids_;
};

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_VOCABULARY_H_
