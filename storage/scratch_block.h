// Memory of one block outside of any tier, for re-encoding and for reading aside.
#ifndef EPIC_STORAGE_SCRATCH_BLOCK_H_
#define EPIC_STORAGE_SCRATCH_BLOCK_H_

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "core/kv_block.h"

namespace epic {

// Zero-filled, aligned as direct I/O needs it. Aborts where there is no memory. Thread-compatible.
class ScratchBlock {
 public:
  explicit ScratchBlock(size_t block_bytes)
      : block_bytes_(block_bytes),
        padded_bytes_((block_bytes + kBlockAlignmentBytes - 1) / kBlockAlignmentBytes * kBlockAlignmentBytes),
        memory_(static_cast<std::byte*>(std::aligned_alloc(kBlockAlignmentBytes, padded_bytes_)), std::free) {
    if (memory_ == nullptr) std::abort();
    std::fill_n(memory_.get(), padded_bytes_, std::byte{0});
  }
  std::span<std::byte> bytes() { return {memory_.get(), block_bytes_}; }
  // With what is left of the last page.
  std::span<std::byte> padded_bytes() { return {memory_.get(), padded_bytes_}; }

 private:
  const size_t block_bytes_;
  const size_t padded_bytes_;
  const std::unique_ptr<std::byte, void (*)(void*)> memory_;
};

// A view of the sealed block in `memory`, which it keeps. DATA_LOSS where there is no block in it.
inline absl::StatusOr<std::shared_ptr<const KvBlockView>> OwnedView(std::shared_ptr<ScratchBlock> memory) {
  absl::StatusOr<KvBlockView> view = KvBlockView::Parse(memory->bytes());
  if (!view.ok()) return view.status();
  struct Owned {
    std::shared_ptr<ScratchBlock> memory;
    KvBlockView view;
  };
  const auto owned = std::make_shared<const Owned>(Owned{std::move(memory), *std::move(view)});
  return std::shared_ptr<const KvBlockView>(owned, &owned->view);
}

}  // namespace epic

#endif  // EPIC_STORAGE_SCRATCH_BLOCK_H_
