// Keys and values as the engine computes with them.
//
// ChunkKv is a shared, immutable chunk: a view of a sealed block, kept in place by whoever owns it. A request's own
// rows (recomputed heads, fresh and generated tokens) live in PrivateKv, engine/private_kv.h.
#ifndef EPIC_ENGINE_KV_H_
#define EPIC_ENGINE_KV_H_

#include <memory>
#include <utility>

#include "core/kv_block.h"

namespace epic {

// Immutable, shared by every request that uses the chunk. `keep_alive` holds the bytes in place (a lease, say) and is
// released with the last reference. Thread-safe.
class ChunkKv {
 public:
  ChunkKv(KvBlockView view, std::shared_ptr<const void> keep_alive)
      : view_(std::move(view)), keep_alive_(std::move(keep_alive)) {}
  const KvBlockView& view() const { return view_; }

 private:
  KvBlockView view_;
  std::shared_ptr<const void> keep_alive_;
};

using ChunkKvPtr = std::shared_ptr<const ChunkKv>;

}  // namespace epic

#endif  // EPIC_ENGINE_KV_H_
