#include "engine/prefix_cache.h"

#include <xxhash.h>
#include <algorithm>

namespace epic {

PrefixCache::Entry* PrefixCache::Find(uint64_t parent, std::span<const int32_t> page_tokens, uint64_t* chain) {
  *chain = XXH3_64bits_withSeed(page_tokens.data(), page_tokens.size_bytes(), parent);
  const auto it = entries_.find(*chain);
  if (it == entries_.end() || it->second.parent != parent || !std::ranges::equal(it->second.token_ids, page_tokens)) {
    return nullptr;
  }
  return &it->second;
}

std::vector<std::shared_ptr<KvPage>> PrefixCache::Lookup(std::span<const int32_t> token_ids) {
  std::vector<std::shared_ptr<KvPage>> pages;
  std::vector<Entry*> used;
  uint64_t chain = 0;
  for (size_t begin = 0; begin + kPageTokens <= token_ids.size(); begin += kPageTokens) {
    Entry* entry = Find(chain, token_ids.subspan(begin, kPageTokens), &chain);
    if (entry == nullptr) break;
    pages.push_back(entry->page);
    used.push_back(entry);
  }
  // The first page becomes the most recent: a chain loses its end first, never its beginning before its end.
  for (auto it = used.rbegin(); it != used.rend(); ++it) recency_.splice(recency_.begin(), recency_, (*it)->recency);
  return pages;
}

void PrefixCache::Publish(std::span<const int32_t> token_ids, std::span<const std::shared_ptr<KvPage>> pages) {
  const size_t count = std::min({pages.size(), token_ids.size() / kPageTokens, capacity_bytes_ / page_bytes_});
  std::vector<Entry*> published;
  uint64_t parent = 0;
  for (size_t i = 0; i < count; ++i) {
    const std::span<const int32_t> page_tokens = token_ids.subspan(i * kPageTokens, kPageTokens);
    uint64_t chain = 0;
    Entry* entry = Find(parent, page_tokens, &chain);
    if (entry == nullptr) {
      if (entries_.contains(chain)) break;  // another chain has this hash: keep it, and stop here
      recency_.push_front(chain);
      entry = &entries_[chain];
      *entry = {parent, {page_tokens.begin(), page_tokens.end()}, pages[i], recency_.begin()};
    }
    published.push_back(entry);
    parent = chain;
  }
  for (auto it = published.rbegin(); it != published.rend(); ++it) {
    recency_.splice(recency_.begin(), recency_, (*it)->recency);
  }
  while (used_bytes() > capacity_bytes_) {
    entries_.erase(recency_.back());
    recency_.pop_back();
  }
}

}  // namespace epic
