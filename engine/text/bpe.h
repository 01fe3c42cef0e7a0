// Byte-pair merging: one piece of text to token ids, by ranked merges.
//
// Starts from one token a byte and joins, again and again, the neighbours whose merge has the lowest rank, the leftmost
// first. A byte without a token is left out before that, so that the bytes around it become neighbours. Immutable once
// its merges are added; Encode may then be called from many threads at once.
#ifndef EPIC_ENGINE_TEXT_BPE_H_
#define EPIC_ENGINE_TEXT_BPE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace epic {

class BytePairMerger {
 public:
  struct Token {
    int32_t id = 0;
    size_t end = 0;  // in the piece: behind the token's last byte
  };

  // byte_ids[b] is the token of the single byte b, or kNoToken.
  static constexpr int32_t kNoToken = -1;
  explicit BytePairMerger(const std::array<int32_t, 256>& byte_ids) : byte_ids_(byte_ids) {}

  void Reserve(size_t merges) { merges_.reserve(merges); }
  // Adds the next merge in rank order. Returns false, and changes nothing, where the pair has a merge already.
  bool AddMerge(int32_t left, int32_t right, int32_t merged);

  // Appends the tokens of `piece`: none where no byte of it has a token. Time is O(n log n) in its length.
  void Encode(std::string_view piece, std::vector<Token>& tokens) const;

 private:
  struct Merge {
    int32_t rank = 0;
    int32_t merged = 0;
  };

  const Merge* FindMerge(int32_t left, int32_t right) const;
  void EncodeShort(std::string_view piece, std::vector<Token>& tokens) const;
  void EncodeLong(std::string_view piece, std::vector<Token>& tokens) const;

  std::array<int32_t, 256> byte_ids_;
  absl::flat_hash_map<uint64_t, Merge> merges_;  // by (left, right)
};

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_BPE_H_
