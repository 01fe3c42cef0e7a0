// The transport that moves nothing: a worker in the cache node's own process attends to the node's blocks in place.
#ifndef EPIC_TRANSFER_IN_PROCESS_BLOCK_SOURCE_H_
#define EPIC_TRANSFER_IN_PROCESS_BLOCK_SOURCE_H_

#include <memory>
#include <string>
#include <vector>

#include "transfer/block_source.h"

namespace epic {

// Located blocks hold the provider's lease directly; they must not outlive the provider's store. Read copies, for
// callers that want bytes of their own. Thread-safe.
class InProcessBlockSource : public BlockSource {
 public:
  // `provider` must outlive this object. `address` is the name under which the node is known to others.
  InProcessBlockSource(BlockProvider* provider, std::string address)
      : provider_(provider), address_(std::move(address)) {}

  absl::StatusOr<std::vector<std::unique_ptr<LocatedBlock>>> Locate(const LocateQuery& query,
                                                                    Deadline deadline) override;
  absl::Status Read(const LocatedBlock& block, const BlockRange& range, std::span<std::byte> out,
                    Deadline deadline) override;
  std::string address() const override { return address_; }

 private:
  BlockProvider* const provider_;
  const std::string address_;
};

// Copies `range` of `block` into `out`. OUT_OF_RANGE where the range is not the block's or not as long as `out`.
absl::Status CopyRange(const KvBlockView& block, const BlockRange& range, std::span<std::byte> out);

}  // namespace epic

#endif  // EPIC_TRANSFER_IN_PROCESS_BLOCK_SOURCE_H_
