#include "engine/text/added_tokens.h"

namespace epic {
namespace {

uint64_t EdgeKey(uint32_t node, uint8_t byte) { return (static_cast<uint64_t>(node) << 8) | byte; }

}  // namespace

void AddedTokens::Add(std::string_view token, int32_t id) {
  uint32_t node = 0;
  for (const char character : token) {
    const auto [edge, is_new] =
        edges_.try_emplace(EdgeKey(node, static_cast<uint8_t>(character)), static_cast<uint32_t>(nodes_.size()));
    if (is_new) nodes_.emplace_back();
    node = edge->second;
  }
  nodes_[node].id = id;
  begins_[static_cast<uint8_t>(token[0])] = true;
}

std::optional<AddedTokens::Match> AddedTokens::FindFirst(std::string_view text, size_t begin) const {
  if (edges_.empty()) return std::nullopt;
  for (; begin < text.size(); ++begin) {
    if (!begins_[static_cast<uint8_t>(text[begin])]) continue;
    std::optional<Match> longest;
    uint32_t node = 0;
    for (size_t end = begin; end < text.size(); ++end) {
      const auto edge = edges_.find(EdgeKey(node, static_cast<uint8_t>(text[end])));
      if (edge == edges_.end()) break;
      node = edge->second;
      if (nodes_[node].id >= 0) longest = Match{begin, end + 1, nodes_[node].id};
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

}  // namespace epic
