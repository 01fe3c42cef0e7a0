#include "engine/text/bpe.h"

#include <array>
#include <queue>
#include <utility>

namespace epic {
namespace {

// Pieces of up to so many tokens are merged by scanning for the lowest rank, which is faster than a heap on a word and
// quadratic in its length.
constexpr size_t kShortPieceTokens = 48;

uint64_t PairKey(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

// A merge waiting for its turn. It is stale, and skipped, once either neighbour has become another token.
struct Candidate {
  int32_t rank;
  size_t position;  // of the left token in the chain
  int32_t left;
  int32_t right;
  int32_t merged;

  bool operator<(const Candidate& other) const {  // the queue yields its greatest element
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

// A token in the chain over a long piece, kept where its first byte stood.
struct Link {
  int32_t id = 0;  // kNoToken: swallowed by the token before it
  size_t end = 0;  // in the piece
  size_t previous = 0;
  size_t next = 0;
};

}  // namespace

void BytePairMerger::KeepNear(int32_t first_id) {
  near_first_id_ = static_cast<uint32_t>(first_id);
  near_.assign(size_t{kNearIds} * kNearIds, Rule());
}

bool BytePairMerger::IsNear(int32_t left, int32_t right, size_t& place) const {
  const uint32_t row = static_cast<uint32_t>(left) - near_first_id_;
  const uint32_t column = static_cast<uint32_t>(right) - near_first_id_;
  place = size_t{row} * kNearIds + column;
  return row < kNearIds && column < kNearIds && !near_.empty();
}

bool BytePairMerger::AddMerge(int32_t left, int32_t right, int32_t merged) {
  const auto rank = static_cast<int32_t>(merges_.size());
  const bool is_new = merges_.try_emplace(PairKey(left, right), Rule{rank, merged}).second;
  size_t place = 0;
  if (is_new && IsNear(left, right, place)) near_[place] = {rank, merged};
  return is_new;
}

BytePairMerger::Rule BytePairMerger::FindRule(int32_t left, int32_t right) const {
  size_t place = 0;
  if (IsNear(left, right, place)) return near_[place];
  const auto found = merges_.find(PairKey(left, right));
  return found == merges_.end() ? Rule() : found->second;
}

void BytePairMerger::Merge(std::vector<Token>& tokens) const {
  if (tokens.size() <= kShortPieceTokens) {
    MergeShort(tokens);
  } else {
    MergeLong(tokens);
  }
}

void BytePairMerger::MergeShort(std::vector<Token>& tokens) const {
  std::array<Rule, kShortPieceTokens> with_next;  // by token; rank kNoRank: none
  size_t count = tokens.size();
  const auto update = [&](size_t i) {
    with_next[i] = i + 1 < count ? FindRule(tokens[i].id, tokens[i + 1].id) : Rule();
  };
  for (size_t i = 0; i < count; ++i) update(i);
  while (true) {
    size_t best = 0;
    for (size_t i = 1; i < count; ++i) {
      if (with_next[i].rank < with_next[best].rank) best = i;
    }
    if (count == 0 || with_next[best].rank == kNoRank) break;
    tokens[best] = {with_next[best].merged, tokens[best + 1].end};
    for (size_t i = best + 2; i < count; ++i) {
      tokens[i - 1] = tokens[i];
      with_next[i - 1] = with_next[i];
    }
    --count;
    update(best);
    if (best > 0) update(best - 1);
  }
  tokens.resize(count);
}

void BytePairMerger::MergeLong(std::vector<Token>& tokens) const {
  const size_t size = tokens.size();
  std::vector<Link> links;
  links.reserve(size);
  // The first link's `previous` and the last one's `next` are no index below `size`.
  for (size_t i = 0; i < size; ++i) links.push_back({tokens[i].id, tokens[i].end, i - 1, i + 1});
  std::vector<Candidate> first_candidates;
  first_candidates.reserve(size);
  std::priority_queue<Candidate> candidates({}, std::move(first_candidates));
  const auto consider = [&](size_t position) {
    const size_t next = links[position].next;
    if (next >= size) return;
    const Rule rule = FindRule(links[position].id, links[next].id);
    if (rule.rank == kNoRank) return;
    candidates.push({rule.rank, position, links[position].id, links[next].id, rule.merged});
  };
  for (size_t i = 0; i < size; ++i) consider(i);
  while (!candidates.empty()) {
    const Candidate candidate = candidates.top();
    candidates.pop();
    Link& link = links[candidate.position];
    const size_t swallowed = link.next;
    if (link.id != candidate.left || swallowed >= size || links[swallowed].id != candidate.right) continue;
    link.id = candidate.merged;
    link.end = links[swallowed].end;
    link.next = links[swallowed].next;
    links[swallowed].id = kNoToken;
    if (link.next < size) links[link.next].previous = candidate.position;
    consider(candidate.position);
    if (link.previous < size) consider(link.previous);
  }
  tokens.clear();
  for (size_t i = 0; i < size; i = links[i].next) tokens.push_back({links[i].id, links[i].end});
}

}  // namespace epic
