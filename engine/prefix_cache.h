// The worker's prefix cache: full pages of private KV under a hash chain of the tokens before and in them, for content
// that comes back at the same place (linker `prefix`). Least recently used chains go first when the byte budget is
// passed.
//
// Owned by the scheduler, not thread-safe. Pages are immutable once they are here; a sequence that uses one shares it.
#ifndef EPIC_ENGINE_PREFIX_CACHE_H_
#define EPIC_ENGINE_PREFIX_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/private_kv.h"

namespace epic {

class PrefixCache {
 public:
  PrefixCache(size_t capacity_bytes, size_t page_bytes) : capacity_bytes_(capacity_bytes), page_bytes_(page_bytes) {}

  // The pages of the longest cached run of whole pages at the start of `token_ids`, in order. Tokens are compared, so a
  // collision of hashes is a miss, not a wrong answer.
  std::vector<std::shared_ptr<KvPage>> Lookup(std::span<const int32_t> token_ids);
  // Offers the full pages of a sequence whose rows are exactly positions [0, n) with these tokens.
  void Publish(std::span<const int32_t> token_ids, std::span<const std::shared_ptr<KvPage>> pages);

  size_t used_bytes() const { return entries_.size() * page_bytes_; }
  size_t pages() const { return entries_.size(); }

 private:
  struct Entry {
    uint64_t parent = 0;  // chain hash before this page
    std::vector<int32_t> token_ids;
    std::shared_ptr<KvPage> page;
    std::list<uint64_t>::iterator recency;
  };
  Entry* Find(uint64_t parent, std::span<const int32_t> page_tokens, uint64_t* chain);

  size_t capacity_bytes_;
  size_t page_bytes_;
  std::unordered_map<uint64_t, Entry> entries_;  // by chain hash
  std::list<uint64_t> recency_;                  // most recent first
};

}  // namespace epic

#endif  // EPIC_ENGINE_PREFIX_CACHE_H_
