#include "engine/text/bpe.h"

#include <limits>
#include <queue>

namespace epic {
namespace {

// Pieces up to this length are merged by scanning for the lowest rank, which is faster than a heap on a word and
// quadratic in its length.
constexpr size_t kShortPieceBytes = 48;
constexpr int32_t kNoRank = std::numeric_limits<int32_t>::max();

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

bool BytePairMerger::AddMerge(int32_t left, int32_t right, int32_t merged) {
  const auto rank = static_cast<int32_t>(merges_.size());
  return merges_.try_emplace(PairKey(left, right), Merge{rank, merged}).second;
}

const BytePairMerger::Merge* BytePairMerger::FindMerge(int32_t left, int32_t right) const {
  const auto found = merges_.find(PairKey(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void BytePairMerger::Encode(std::string_view piece, std::vector<Token>& tokens) const {
  if (piece.size() <= kShortPieceBytes) {
    EncodeShort(piece, tokens);
  } else {
    EncodeLong(piece, tokens);
  }
}

void BytePairMerger::EncodeShort(std::string_view piece, std::vector<Token>& tokens) const {
  struct Symbol {
    int32_t id;
    size_t end;
    Merge with_next;  // rank kNoRank: none
  };
  std::array<Symbol, kShortPieceBytes> symbols;
  size_t count = 0;
  for (size_t i = 0; i < piece.size(); ++i) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(piece[i])];
    if (id != kNoToken) symbols[count++] = {id, i + 1, {kNoRank, 0}};
  }
  const auto update = [&](size_t i) {
    const Merge* merge = i + 1 < count ? FindMerge(symbols[i].id, symbols[i + 1].id) : nullptr;
    symbols[i].with_next = merge != nullptr ? *merge : Merge{kNoRank, 0};
  };
  for (size_t i = 0; i < count; ++i) update(i);
  while (true) {
    size_t best = 0;
    for (size_t i = 1; i < count; ++i) {
      if (symbols[i].with_next.rank < symbols[best].with_next.rank) best = i;
    }
    if (count == 0 || symbols[best].with_next.rank == kNoRank) break;
    symbols[best].id = symbols[best].with_next.merged;
    symbols[best].end = symbols[best + 1].end;
    for (size_t i = best + 2; i < count; ++i) symbols[i - 1] = symbols[i];
    --count;
    update(best);
    if (best > 0) update(best - 1);
  }
  for (size_t i = 0; i < count; ++i) tokens.push_back({symbols[i].id, symbols[i].end});
}

void BytePairMerger::EncodeLong(std::string_view piece, std::vector<Token>& tokens) const {
  std::vector<Link> links;
  links.reserve(piece.size());
  for (size_t i = 0; i < piece.size(); ++i) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(piece[i])];
    if (id != kNoToken) links.push_back({id, i + 1, links.size() - 1, links.size() + 1});
  }
  const size_t size = links.size();  // the first link's `previous` and the last one's `next` are no index below it
  std::priority_queue<Candidate> candidates;
  const auto consider = [&](size_t position) {
    const size_t next = links[position].next;
    if (next >= size) return;
    const Merge* merge = FindMerge(links[position].id, links[next].id);
    if (merge == nullptr) return;
    candidates.push({merge->rank, position, links[position].id, links[next].id, merge->merged});
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
  for (size_t i = 0; i < size; i = links[i].next) tokens.push_back({links[i].id, links[i].end});
}

}  // namespace epic
