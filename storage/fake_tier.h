// A tier in ordinary memory that can be held up and made to fail, for tests of what stands on tiers.
#ifndef EPIC_STORAGE_FAKE_TIER_H_
#define EPIC_STORAGE_FAKE_TIER_H_

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "core/sync.h"
#include "storage/block_tier.h"

namespace epic {

class FakeTier : public BlockTier {
 public:
  // While closed, Write and Read wait.
  void Close() { SetOpen(false); }
  void Open() { SetOpen(true); }
  // Returns once `count` calls wait.
  void WaitForWaiting(int count) {
    MutexLock lock(mutex_);
    while (waiting_ < count) changed_.Wait(mutex_);
  }
  void FailReads(absl::Status status) {
    MutexLock lock(mutex_);
    read_failure_ = std::move(status);
  }
  void FailWrites(absl::Status status) {
    MutexLock lock(mutex_);
    write_failure_ = std::move(status);
  }
  std::vector<std::byte> Bytes(const ChunkKey& key) const {
    MutexLock lock(mutex_);
    return blocks_.at(key).bytes;
  }
  int misses() const {
    MutexLock lock(mutex_);
    return misses_;
  }

  std::optional<Entry> Find(const ChunkKey& key) const override {
    MutexLock lock(mutex_);
    const auto found = blocks_.find(key);
    if (found == blocks_.end()) return std::nullopt;
    return found->second.entry;
  }
  absl::StatusOr<bool> Write(const KvBlockView& block, double recompile_cost_us) override {
    MutexLock lock(mutex_);
    WaitUntilOpen();
    if (!write_failure_.ok()) return write_failure_;
    Block held{{block.bytes().size(), block.edition(), recompile_cost_us},
               {block.bytes().begin(), block.bytes().end()}};
    return blocks_.emplace(block.info().key, std::move(held)).second;
  }
  absl::Status Read(const ChunkKey& key, std::span<std::byte> padded_out) override {
    std::optional<absl::Status> failure;
    {
      MutexLock lock(mutex_);
      WaitUntilOpen();
      const auto found = blocks_.find(key);
      if (found == blocks_.end()) return absl::NotFoundError("not there");
      if (read_failure_.ok()) {
        std::copy(found->second.bytes.begin(), found->second.bytes.end(), padded_out.begin());
      } else {
        blocks_.erase(found);
        failure = read_failure_;
      }
    }
    if (!failure.has_value()) return absl::OkStatus();
    std::fill(padded_out.begin(), padded_out.end(), std::byte{0xEE});  // half-read bytes
    observer_(key);
    return *failure;
  }
  void NoteMiss(const ChunkKey&) override {
    MutexLock lock(mutex_);
    ++misses_;
  }
  void Drop(const ChunkKey& key) override {
    {
      MutexLock lock(mutex_);
      if (blocks_.erase(key) == 0) return;
    }
    observer_(key);
  }
  void ForEach(const std::function<void(const ChunkKey&, const Entry&)>& visit) const override {
    std::map<ChunkKey, Entry> entries;
    {
      MutexLock lock(mutex_);
      for (const auto& [key, block] : blocks_) entries.emplace(key, block.entry);
    }
    for (const auto& [key, entry] : entries) visit(key, entry);
  }
  void SetRemovalObserver(std::function<void(const ChunkKey&)> observer) override { observer_ = std::move(observer); }
  void SetEvictionFilter(std::function<bool(const ChunkKey&)>) override {}  // it evicts nothing
  BlockTierStats TierStats() const override {
    MutexLock lock(mutex_);
    BlockTierStats stats;
    stats.blocks = blocks_.size();
    return stats;
  }
  absl::StatusOr<VerifyProgress> VerifyAll(const std::function<bool(const VerifyProgress&)>&) override {
    return VerifyProgress{};
  }
  absl::StatusOr<std::pair<uint64_t, uint64_t>> Compact() override { return std::pair<uint64_t, uint64_t>{0, 0}; }

 private:
  struct Block {
    Entry entry;
    std::vector<std::byte> bytes;
  };
  void SetOpen(bool open) {
    MutexLock lock(mutex_);
    open_ = open;
    changed_.NotifyAll();
  }
  void WaitUntilOpen() EPIC_REQUIRES(mutex_) {
    ++waiting_;
    changed_.NotifyAll();
    while (!open_) changed_.Wait(mutex_);
    --waiting_;
  }

  mutable Mutex mutex_;
  CondVar changed_;
  std::function<void(const ChunkKey&)> observer_ = [](const ChunkKey&) {};
  std::map<ChunkKey, Block> blocks_ EPIC_GUARDED_BY(mutex_);
  absl::Status read_failure_ EPIC_GUARDED_BY(mutex_);
  absl::Status write_failure_ EPIC_GUARDED_BY(mutex_);
  bool open_ EPIC_GUARDED_BY(mutex_) = true;
  int waiting_ EPIC_GUARDED_BY(mutex_) = 0;
  int misses_ EPIC_GUARDED_BY(mutex_) = 0;
};

}  // namespace epic

#endif  // EPIC_STORAGE_FAKE_TIER_H_
