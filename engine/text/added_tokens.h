// Finding added tokens (control and user-defined) in text by their written form.
//
// Built once, then immutable and thread-safe.
#ifndef EPIC_ENGINE_TEXT_ADDED_TOKENS_H_
#define EPIC_ENGINE_TEXT_ADDED_TOKENS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace epic {

class AddedTokens {
 public:
  struct Match {
    size_t begin = 0;
    size_t end = 0;
    int32_t id = 0;
  };

  // REQUIRES: `token` is not empty and was not added before.
  void Add(std::string_view token, int32_t id);

  // The first place at or behind `begin` where an added token stands, and the longest one that stands there.
  // Time is at most (length of the text) x (length of the longest added token).
  std::optional<Match> FindFirst(std::string_view text, size_t begin) const;

 private:
  struct Node {
    int32_t id = -1;  // the token that ends here, or -1
  };

  // A trie over bytes: node 0 is the root, edges_ leads from (node, byte) to the next node.
  std::vector<Node> nodes_ = {Node{}};
  absl::flat_hash_map<uint64_t, uint32_t> edges_;
  bool begins_[256] = {};  // whether some token begins with this byte
};

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_ADDED_TOKENS_H_
