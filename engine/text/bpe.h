// Byte-pair merging: the tokens of one piece of text, by ranked merges.
//
// Starts from one token a byte (or, for SentencePiece's kind, a character) and joins, again and again, the neighbours
// whose merge has the lowest rank, the leftmost first. Immutable once its merges are added; Merge may then be called
// from many threads at once.
#ifndef EPIC_ENGINE_TEXT_BPE_H_
#define EPIC_ENGINE_TEXT_BPE_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace epic {

class BytePairMerger {
 public:
  struct Token {
    int32_t id = 0;
    size_t end = 0;  // in the piece: behind the token's last byte
  };

  static constexpr int32_t kNoToken = -1;

  void Reserve(size_t merges) { merges_.reserve(merges); }
  // Makes merges of two tokens among the kNearIds from `first_id` on quicker to find: those of single bytes, which are
  // looked for most. REQUIRES: no merge was added yet.
  void KeepNear(int32_t first_id);
  // Adds the next merge in rank order. Returns false, and changes nothing, where the pair has a merge already.
  bool AddMerge(int32_t left, int32_t right, int32_t merged);

  // Joins `tokens`, which are those of single bytes or characters, in order. Time is O(n log n) in their number.
  void Merge(std::vector<Token>& tokens) const;

 private:
  static constexpr int32_t kNoRank = std::numeric_limits<int32_t>::max();
  static constexpr uint32_t kNearIds = 256;

  struct Rule {
    int32_t rank = kNoRank;  // kNoRank: no merge
    int32_t merged = 0;
  };

  Rule FindRule(int32_t left, int32_t right) const;
  // The place of a pair in near_, or nothing.
  bool IsNear(int32_t left, int32_t right, size_t& place) const;
  void MergeShort(std::vector<Token>& tokens) const;
  void MergeLong(std::vector<Token>& tokens) const;

  absl::flat_hash_map<uint64_t, Rule> merges_;  // by (left, right)
  uint32_t near_first_id_ = 0;
  std::vector<Rule> near_;  // of pairs of near tokens, every one; empty where none are kept near
};

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_BPE_H_
