// A decorator that makes any block source fail in a chosen way, for the tests of whoever reads blocks.
#ifndef EPIC_TRANSFER_FAULTY_BLOCK_SOURCE_H_
#define EPIC_TRANSFER_FAULTY_BLOCK_SOURCE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/sync.h"
#include "transfer/block_source.h"

namespace epic {

// What goes wrong from now on. Each fault stays until it is set otherwise.
struct BlockFaults {
  absl::Status locate_error = absl::OkStatus();  // Locate fails with it
  // Reads deliver this many bytes of all that they were asked for together and then fail with `read_error`.
  std::optional<int64_t> read_fails_after_bytes = std::nullopt;
  absl::Status read_error = absl::UnavailableError("injected: the connection broke");
  // This byte of each block, counted from the block's start, arrives with all its bits turned.
  std::optional<size_t> corrupt_byte = std::nullopt;
  bool leases_lost = false;    // reads fail with NOT_FOUND
  bool other_edition = false;  // reads fail with FAILED_PRECONDITION
  bool hold_locates = false;   // Locate waits until this is unset, or for its deadline
  bool hold_reads = false;     // Read likewise
};

// Blocks located through it are never read in place, so that each byte passes the faults. Thread-safe.
class FaultyBlockSource : public BlockSource {
 public:
  // `source` must outlive this object and its blocks.
  explicit FaultyBlockSource(BlockSource* source) : source_(source) {}

  void SetFaults(BlockFaults faults);
  // Returns once at least `count` calls wait in a held Locate or Read.
  void WaitForHeldCalls(int count);

  absl::StatusOr<std::vector<std::unique_ptr<LocatedBlock>>> Locate(const LocateQuery& query,
                                                                    Deadline deadline) override;
  absl::Status Read(const LocatedBlock& block, const BlockRange& range, std::span<std::byte> out,
                    Deadline deadline) override;
  std::string address() const override { return source_->address(); }

 private:
  // The faults in force once the call is not held any more. DEADLINE_EXCEEDED where that takes too long.
  absl::StatusOr<BlockFaults> PassGate(bool BlockFaults::*hold, Deadline deadline) EPIC_EXCLUDES(mutex_);
  // Takes `bytes` from what reads may still deliver; false where that is used up.
  bool TakeBudget(int64_t bytes) EPIC_EXCLUDES(mutex_);

  BlockSource* const source_;
  Mutex mutex_;
  CondVar changed_;
  BlockFaults faults_ EPIC_GUARDED_BY(mutex_);
  int held_calls_ EPIC_GUARDED_BY(mutex_) = 0;
};

}  // namespace epic

#endif  // EPIC_TRANSFER_FAULTY_BLOCK_SOURCE_H_
