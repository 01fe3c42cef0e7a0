#include "transfer/faulty_block_source.h"

#include <utility>

#include "core/status_macros.h"

namespace epic {
namespace {

class FaultyBlock : public LocatedBlock {
 public:
  explicit FaultyBlock(std::unique_ptr<LocatedBlock> block) : inner(std::move(block)) {
    origin = inner->origin;
    edition = inner->edition;
    block_bytes = inner->block_bytes;
    compile_us = inner->compile_us;
  }
  const std::unique_ptr<LocatedBlock> inner;
};

}  // namespace

void FaultyBlockSource::SetFaults(BlockFaults faults) {
  MutexLock lock(mutex_);
  faults_ = std::move(faults);
  changed_.NotifyAll();
}

void FaultyBlockSource::WaitForHeldCalls(int count) {
  MutexLock lock(mutex_);
  while (held_calls_ < count) changed_.Wait(mutex_);
}

absl::StatusOr<BlockFaults> FaultyBlockSource::PassGate(bool BlockFaults::*hold, Deadline deadline) {
  MutexLock lock(mutex_);
  ++held_calls_;
  changed_.NotifyAll();
  bool in_time = true;
  while (faults_.*hold && in_time) in_time = changed_.WaitUntil(mutex_, deadline);
  --held_calls_;
  if (faults_.*hold) return absl::DeadlineExceededError("injected: held beyond the deadline");
  return faults_;
}

bool FaultyBlockSource::TakeBudget(int64_t bytes) {
  MutexLock lock(mutex_);
  if (!faults_.read_fails_after_bytes.has_value()) return true;
  if (*faults_.read_fails_after_bytes < bytes) {
    faults_.read_fails_after_bytes = 0;
    return false;
  }
  *faults_.read_fails_after_bytes -= bytes;
  return true;
}

absl::StatusOr<std::vector<std::unique_ptr<LocatedBlock>>> FaultyBlockSource::Locate(const LocateQuery& query,
                                                                                     Deadline deadline) {
  EPIC_ASSIGN_OR_RETURN(const BlockFaults faults, PassGate(&BlockFaults::hold_locates, deadline));
  EPIC_RETURN_IF_ERROR(faults.locate_error);
  EPIC_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<LocatedBlock>> blocks, source_->Locate(query, deadline));
  for (std::unique_ptr<LocatedBlock>& block : blocks) block = std::make_unique<FaultyBlock>(std::move(block));
  return blocks;
}

absl::Status FaultyBlockSource::Read(const LocatedBlock& block, const BlockRange& range, std::span<std::byte> out,
                                     Deadline deadline) {
  const auto* faulty = dynamic_cast<const FaultyBlock*>(&block);
  if (faulty == nullptr) return absl::InvalidArgumentError("the block was located by another source");
  EPIC_ASSIGN_OR_RETURN(const BlockFaults faults, PassGate(&BlockFaults::hold_reads, deadline));
  if (faults.leases_lost) return absl::NotFoundError("injected: the lease has ended");
  if (faults.other_edition) return absl::FailedPreconditionError("injected: the lease is on another edition");
  if (!TakeBudget(static_cast<int64_t>(out.size()))) return faults.read_error;
  EPIC_RETURN_IF_ERROR(source_->Read(*faulty->inner, range, out, deadline));
  if (!faults.corrupt_byte.has_value()) return absl::OkStatus();
  // Where the range begins in the block is known only to those who can parse it: read the whole to find out.
  size_t begin = range.offset;
  if (range.layer_count > 0) {
    std::vector<std::byte> whole(block.block_bytes);
    EPIC_RETURN_IF_ERROR(source_->Read(*faulty->inner, BlockRange{}, whole, deadline));
    EPIC_ASSIGN_OR_RETURN(const KvBlockView view, KvBlockView::Parse(whole));
    EPIC_ASSIGN_OR_RETURN(const ByteSpan span, ResolveRange(view, range));
    begin = span.begin;
  }
  const size_t corrupt = *faults.corrupt_byte;
  if (corrupt >= begin && corrupt - begin < out.size()) out[corrupt - begin] ^= std::byte{0xff};
  return absl::OkStatus();
}

}  // namespace epic
