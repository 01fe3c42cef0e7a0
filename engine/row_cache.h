// The worker's cache of private rows: pages of KV that requests ran, kept under the exact context of every row, for
// content that comes back at the same place: system prompts, the conversation so far, and the recomputed heads of the
// same chunks in the same order (docs/linking.md, "Rows that are kept").
//
// What a private row's KV depends on is a structure, not a linker: the private rows before it (token and position), the
// ranges of shared chunks before it, its own token and position. RowId names one link of that chain, so rows of
// different linkers whose structure is equal serve each other. Pages form a tree below a root per salt: a child's rows
// follow its parent's 64. Several children may begin alike (conversations that part in the middle of a page); a look-up
// takes the one that agrees longest, so reuse has the granularity of a row.
//
// Tokens, positions and the salt are compared, not hashed. Of the shared ranges only a 128-bit XXH3 digest is kept: at
// 2^32 different contexts the odds of one accidental collision are 2^-65, while 64 bits would give one in two. XXH3 is
// not made to withstand somebody who looks for collisions; salts keep tenants apart, so that he could mislead only
// himself.
//
// Accounting: used_bytes() counts each page here once, whoever else uses it, and never passes the capacity. A page that
// a request uses is not evicted; requests do not reserve bytes for pages that are counted here. Bookkeeping (24 bytes a
// row, a thousandth of a row's KV or less) is not counted. The least recently used chain loses its end first.
//
// Owned by the scheduler, not thread-safe. Pages are immutable once they are here. Chunks are named by their content,
// never referenced.
#ifndef EPIC_ENGINE_ROW_CACHE_H_
#define EPIC_ENGINE_ROW_CACHE_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/chunk_key.h"
#include "engine/link_plan.h"
#include "engine/private_kv.h"
#include "engine/prompt.h"

namespace epic {

// One private row, given the rows before it.
struct RowId {
  uint64_t context_high = 0;  // digest of the shared ranges between the row before and this one; 0: none
  uint64_t context_low = 0;
  int32_t position = 0;
  int32_t token_id = 0;
  // NOLINTNEXTLINE(modernize-use-nullptr): the check takes the comparison with 0 inside for a pointer
  friend auto operator<=>(const RowId&, const RowId&) = default;
};

// The rows of a plan, in order. REQUIRES: every row of the plan runs through all layers (not CacheBlend), none lies
// inside a shared range (not random), and nothing is compiled for this request alone (not naive-last).
std::vector<RowId> RowIdsOf(std::span<const PromptSegment> prompt, const LinkPlan& plan, const Recipe& recipe);

class RowCache {
 public:
  // A capacity of 0 keeps nothing.
  RowCache(size_t capacity_bytes, const KvShape& shape)
      : capacity_bytes_(capacity_bytes), page_bytes_(KvPage::Bytes(shape, 0, shape.layers)) {}
  RowCache(const RowCache&) = delete;
  RowCache& operator=(const RowCache&) = delete;

  struct Match {
    int32_t rows = 0;
    // Page i holds rows [64 i, 64 i + 64). The last one, where `rows` ends inside it, may go on with other rows:
    // copy it before writing behind the match.
    std::vector<std::shared_ptr<KvPage>> pages;
    int32_t whole_pages() const { return rows / kPageTokens; }
  };
  // The longest cached beginning of `rows`.
  Match Lookup(const std::string& salt, std::span<const RowId> rows);

  enum class LastPage {
    kCopied,  // the sequence goes on writing into its last page, where that is not full
    kShared,  // it does not
  };
  // Offers a sequence's pages, which hold exactly `rows`, all of them complete. Returns how many of `pages` the cache
  // now holds and did not hold before (copies do not count): the owner's reservation shrinks by as many.
  int32_t Publish(const std::string& salt, std::span<const RowId> rows, std::span<const std::shared_ptr<KvPage>> pages,
                  LastPage last_page);

  size_t used_bytes() const { return nodes_.size() * page_bytes_; }
  size_t capacity_bytes() const { return capacity_bytes_; }
  size_t page_bytes() const { return page_bytes_; }
  size_t pages() const { return nodes_.size(); }

 private:
  struct Node;
  // Children of one parent lie side by side, sorted by their rows: the one that agrees longest with a given list of
  // rows is a neighbour of the place where that list would stand.
  struct Key {
    const Node* parent = nullptr;
    std::vector<RowId> rows;  // 64; fewer only where nothing follows
  };
  struct View {
    const Node* parent;
    std::span<const RowId> rows;
  };
  struct Before {
    using is_transparent = void;  // NOLINT(readability-identifier-naming): the library looks for this name
    static View Of(const Key& key) { return {key.parent, key.rows}; }
    static View Of(const View& view) { return view; }
    template <typename A, typename B>
    bool operator()(const A& a, const B& b) const {
      return Less(Of(a), Of(b));
    }
    static bool Less(const View& a, const View& b);
  };
  using Nodes = std::map<Key, Node, Before>;
  struct Node {
    Node* parent = nullptr;  // null for a root
    int32_t children = 0;
    std::shared_ptr<KvPage> page;  // null for a root
    std::list<Nodes::iterator>::iterator recency;
  };

  // The child of `parent` with the longest common beginning with `rows`, and how long that is.
  std::pair<Nodes::iterator, int32_t> BestChild(const Node* parent, std::span<const RowId> rows);
  // Makes the first of the chain the most recent: a chain loses its end first.
  void Touch(std::span<const Nodes::iterator> chain);
  bool MakeRoomForOnePage();
  void Erase(Nodes::iterator node);

  size_t capacity_bytes_;
  size_t page_bytes_;
  std::map<std::string, Node> roots_;  // by salt; none without children
  Nodes nodes_;
  std::list<Nodes::iterator> recency_;  // most recent first
};

}  // namespace epic

#endif  // EPIC_ENGINE_ROW_CACHE_H_
