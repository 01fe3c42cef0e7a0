#include "engine/row_cache.h"

#include <xxhash.h>

#include <algorithm>
#include <functional>
#include <string_view>

namespace epic {
namespace {

int32_t CommonRows(std::span<const RowId> a, std::span<const RowId> b) {
  const size_t size = std::min(a.size(), b.size());
  return static_cast<int32_t>(std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(size), b.begin()).first -
                              a.begin());
}

// Fields behind each other, strings and lists with their length, so that no two structures give the same bytes.
class ContextDigest {
 public:
  void Add(int64_t value) { AddBytes(&value, sizeof(value)); }
  void Add(std::string_view text) {
    Add(static_cast<int64_t>(text.size()));
    AddBytes(text.data(), text.size());
  }
  void Add(std::span<const int32_t> ids) {
    Add(static_cast<int64_t>(ids.size()));
    AddBytes(ids.data(), ids.size_bytes());
  }
  bool empty() const { return bytes_.empty(); }
  XXH128_hash_t Take() {
    const XXH128_hash_t hash = XXH3_128bits(bytes_.data(), bytes_.size());
    bytes_.clear();
    return hash;
  }

 private:
  void AddBytes(const void* data, size_t size) { bytes_.append(static_cast<const char*>(data), size); }
  std::string bytes_;
};

}  // namespace

std::vector<RowId> RowIdsOf(std::span<const PromptSegment> prompt, const LinkPlan& plan, const Recipe& recipe) {
  const std::vector<int32_t> offsets = SegmentOffsets(prompt);
  std::vector<int32_t> tokens;
  for (const PromptSegment& segment : prompt) {
    tokens.insert(tokens.end(), segment.token_ids.begin(), segment.token_ids.end());
  }
  std::vector<RowId> rows;
  rows.reserve(plan.positions.size());
  auto shared = plan.shared.begin();
  ContextDigest digest;
  for (const int32_t position : plan.positions) {
    for (; shared != plan.shared.end() && offsets[shared->segment] + shared->row_begin < position; ++shared) {
      digest.Add(std::span<const int32_t>(prompt[shared->segment].token_ids));
      const Recipe of_chunk = RecipeBehind(recipe, prompt[shared->segment].context_token_ids);
      digest.Add(of_chunk.id);
      digest.Add(std::span<const int32_t>(of_chunk.prefix_tokens));
      digest.Add(offsets[shared->segment]);
      digest.Add(shared->row_begin);
      digest.Add(shared->row_end);
    }
    RowId row{0, 0, position, tokens[position]};
    if (!digest.empty()) {
      const XXH128_hash_t hash = digest.Take();
      row.context_high = hash.high64;
      row.context_low = hash.low64;
    }
    rows.push_back(row);
  }
  return rows;
}

bool RowCache::Before::Less(const View& a, const View& b) {
  if (a.parent != b.parent) return std::less<const Node*>()(a.parent, b.parent);
  return std::ranges::lexicographical_compare(a.rows, b.rows);
}

std::pair<RowCache::Nodes::iterator, int32_t> RowCache::BestChild(const Node* parent, std::span<const RowId> rows) {
  std::pair<Nodes::iterator, int32_t> best{nodes_.end(), 0};
  const auto consider = [&](Nodes::iterator node) {
    if (node->first.parent != parent) return;
    const int32_t common = CommonRows(node->first.rows, rows);
    if (common > best.second) best = {node, common};
  };
  const auto behind = nodes_.lower_bound(View{parent, rows});
  if (behind != nodes_.end()) consider(behind);
  if (behind != nodes_.begin()) consider(std::prev(behind));
  return best;
}

void RowCache::Touch(std::span<const Nodes::iterator> chain) {
  for (auto it = chain.rbegin(); it != chain.rend(); ++it) {
    recency_.splice(recency_.begin(), recency_, (*it)->second.recency);
  }
}

RowCache::Match RowCache::Lookup(const std::string& salt, std::span<const RowId> rows) {
  Match match;
  const auto root = roots_.find(salt);
  if (root == roots_.end()) return match;
  std::vector<Nodes::iterator> chain;
  const Node* parent = &root->second;
  for (size_t begin = 0; begin < rows.size(); begin += kPageTokens) {
    const auto [node, common] =
        BestChild(parent, rows.subspan(begin, std::min<size_t>(kPageTokens, rows.size() - begin)));
    if (common == 0) break;
    match.rows += common;
    match.pages.push_back(node->second.page);
    chain.push_back(node);
    if (common < kPageTokens) break;
    parent = &node->second;
  }
  Touch(chain);
  return match;
}

int32_t RowCache::Publish(const std::string& salt, std::span<const RowId> rows,
                          std::span<const std::shared_ptr<KvPage>> pages, LastPage last_page) {
  if (rows.empty() || capacity_bytes_ < page_bytes_) return 0;
  int32_t taken = 0;
  const auto root = roots_.try_emplace(salt).first;
  Node* parent = &root->second;
  std::vector<Nodes::iterator> chain;
  for (size_t i = 0; i < pages.size(); ++i) {
    const std::span<const RowId> part =
        rows.subspan(i * kPageTokens, std::min<size_t>(kPageTokens, rows.size() - i * kPageTokens));
    const bool whole = part.size() == kPageTokens;
    auto [node, common] = BestChild(parent, part);
    if (common < static_cast<int32_t>(part.size())) {
      ++parent->children;  // before anything goes: what stands on the way to the new page stays
      // A page that stopped where this one goes on makes way for it: it can have no children.
      if (node != nodes_.end() && common == static_cast<int32_t>(node->first.rows.size())) Erase(node);
      if (!MakeRoomForOnePage()) {
        --parent->children;
        break;
      }
      const bool shares = whole || last_page == LastPage::kShared;
      node = nodes_.try_emplace(Key{parent, {part.begin(), part.end()}}).first;
      recency_.push_front(node);
      node->second = {parent, 0, shares ? pages[i] : std::make_shared<KvPage>(*pages[i]), recency_.begin()};
      taken += shares ? 1 : 0;
    }
    chain.push_back(node);
    parent = &node->second;
    if (!whole) break;
  }
  Touch(chain);
  if (root->second.children == 0) roots_.erase(root);
  return taken;
}

bool RowCache::MakeRoomForOnePage() {
  while (used_bytes() + page_bytes_ > capacity_bytes_) {
    // A parent is at least as recent as its children. A page that a request uses would not come free by going.
    const auto victim = std::find_if(recency_.rbegin(), recency_.rend(), [](const Nodes::iterator& node) {
      return node->second.children == 0 && node->second.page.use_count() == 1;
    });
    if (victim == recency_.rend()) return false;
    Erase(*victim);
  }
  return true;
}

void RowCache::Erase(Nodes::iterator node) {
  Node* parent = node->second.parent;
  recency_.erase(node->second.recency);
  nodes_.erase(node);
  if (--parent->children == 0 && parent->parent == nullptr) {
    std::erase_if(roots_, [parent](const auto& root) { return &root.second == parent; });
  }
}

}  // namespace epic
