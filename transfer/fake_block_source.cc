#include "transfer/fake_block_source.h"

#include <utility>

#include "core/status_macros.h"
#include "transfer/in_process_block_source.h"

namespace epic {

struct FakeBlockSource::Held {
  Held(std::vector<std::byte> block_bytes, KvBlockView block_view)
      : bytes(std::move(block_bytes)), view(std::move(block_view)) {}
  const std::vector<std::byte> bytes;  // the view points into it
  const KvBlockView view;
};

class FakeBlockSource::FakeBlock : public LocatedBlock {
 public:
  FakeBlock(std::shared_ptr<const Held> block, bool in_place, std::shared_ptr<Counters> counters)
      : held(std::move(block)), in_place_(in_place), counters_(std::move(counters)) {
    if (held == nullptr) return;
    edition = held->view.edition();
    block_bytes = held->bytes.size();
    MutexLock lock(counters_->mutex);
    ++counters_->leases;
    epoch = counters_->lease_epoch;
  }
  ~FakeBlock() override {
    if (held == nullptr) return;
    MutexLock lock(counters_->mutex);
    --counters_->leases;
  }
  const KvBlockView* InPlace() const override { return in_place_ && held != nullptr ? &held->view : nullptr; }

  const std::shared_ptr<const Held> held;
  int64_t epoch = 0;

 private:
  const bool in_place_;
  const std::shared_ptr<Counters> counters_;
};

absl::Status FakeBlockSource::Put(std::vector<std::byte> block) {
  EPIC_ASSIGN_OR_RETURN(KvBlockView view, KvBlockView::Parse(block));
  const ChunkKey key = view.info().key;
  // Moving a vector keeps its memory in place, so that the view stays good.
  auto held = std::make_shared<const Held>(std::move(block), std::move(view));
  MutexLock lock(mutex_);
  blocks_[key] = std::move(held);
  return absl::OkStatus();
}

void FakeBlockSource::Remove(const ChunkKey& key) {
  MutexLock lock(mutex_);
  blocks_.erase(key);
}

void FakeBlockSource::EndLeases() {
  MutexLock lock(counters_->mutex);
  ++counters_->lease_epoch;
}

absl::StatusOr<std::vector<std::unique_ptr<LocatedBlock>>> FakeBlockSource::Locate(const LocateQuery& query,
                                                                                   Deadline deadline) {
  {
    MutexLock lock(counters_->mutex);
    ++counters_->locate_calls;
  }
  if (deadline <= std::chrono::steady_clock::now()) {
    return absl::DeadlineExceededError("the deadline passed before the chunks were located");
  }
  std::vector<std::unique_ptr<LocatedBlock>> located;
  for (const LocateQuery::Chunk& chunk : query.chunks) {
    BlockOrigin origin = BlockOrigin::kHeld;
    const auto find = [&]() -> std::shared_ptr<const Held> {
      MutexLock lock(mutex_);
      const auto found = blocks_.find(chunk.key);
      return found == blocks_.end() ? nullptr : found->second;
    };
    std::shared_ptr<const Held> held = find();
    if (held == nullptr && query.compile_missing && compile_) {
      EPIC_ASSIGN_OR_RETURN(std::vector<std::byte> bytes, compile_(query, chunk));
      EPIC_RETURN_IF_ERROR(Put(std::move(bytes)));
      held = find();
      origin = BlockOrigin::kCompiled;
    }
    auto block = std::make_unique<FakeBlock>(held, options_.in_place, counters_);
    block->origin = held == nullptr ? BlockOrigin::kAbsent : origin;
    located.push_back(std::move(block));
  }
  return located;
}

absl::Status FakeBlockSource::Read(const LocatedBlock& block, const BlockRange& range, std::span<std::byte> out,
                                   Deadline deadline) {
  if (deadline <= std::chrono::steady_clock::now()) {
    return absl::DeadlineExceededError("the deadline passed before the block was read");
  }
  const auto* fake = dynamic_cast<const FakeBlock*>(&block);
  if (fake == nullptr) return absl::InvalidArgumentError("the block was located by another source");
  if (fake->held == nullptr) return absl::NotFoundError("no lease: the chunk was absent when it was located");
  {
    MutexLock lock(counters_->mutex);
    ++counters_->read_calls;
    if (fake->epoch != counters_->lease_epoch) return absl::NotFoundError("the lease has ended");
  }
  EPIC_RETURN_IF_ERROR(CopyRange(fake->held->view, range, out));
  MutexLock lock(counters_->mutex);
  counters_->bytes_read += static_cast<int64_t>(out.size());
  return absl::OkStatus();
}

int64_t FakeBlockSource::locate_calls() const {
  MutexLock lock(counters_->mutex);
  return counters_->locate_calls;
}
int64_t FakeBlockSource::read_calls() const {
  MutexLock lock(counters_->mutex);
  return counters_->read_calls;
}
int64_t FakeBlockSource::bytes_read() const {
  MutexLock lock(counters_->mutex);
  return counters_->bytes_read;
}
int64_t FakeBlockSource::leases() const {
  MutexLock lock(counters_->mutex);
  return counters_->leases;
}

}  // namespace epic
