// A cache node in a few lines, for the tests of whoever reads blocks: holds the blocks that it was given, in memory.
#ifndef EPIC_TRANSFER_FAKE_BLOCK_SOURCE_H_
#define EPIC_TRANSFER_FAKE_BLOCK_SOURCE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/sync.h"
#include "transfer/block_source.h"

namespace epic {

// Thread-safe. Blocks that were located stay readable until they are destroyed, as under a lease, even when the block
// is removed or replaced meanwhile.
class FakeBlockSource : public BlockSource {
 public:
  struct Options {
    std::string address = "fake";
    // Located blocks are read in place; off: they are moved by Read, as over a network.
    bool in_place = false;
  };
  explicit FakeBlockSource(Options options) : options_(std::move(options)) {}

  // Holds this sealed block under its own key from now on, in place of an older edition. The error of
  // KvBlockView::Parse.
  absl::Status Put(std::vector<std::byte> block);
  void Remove(const ChunkKey& key);
  // Makes a missing chunk's block where a query says compile_missing: returns sealed bytes. Called without a lock.
  // Set before use by several threads.
  using Compile = std::function<absl::StatusOr<std::vector<std::byte>>(const LocateQuery&, const LocateQuery::Chunk&)>;
  void SetCompile(Compile compile) { compile_ = std::move(compile); }
  // Ends every lease that is out: their reads fail with NOT_FOUND, as after a lease's time ran out.
  void EndLeases();

  absl::StatusOr<std::vector<std::unique_ptr<LocatedBlock>>> Locate(const LocateQuery& query,
                                                                    Deadline deadline) override;
  absl::Status Read(const LocatedBlock& block, const BlockRange& range, std::span<std::byte> out,
                    Deadline deadline) override;
  std::string address() const override { return options_.address; }

  // What was asked so far.
  int64_t locate_calls() const;
  int64_t read_calls() const;
  int64_t bytes_read() const;
  // Located blocks that are alive: a reader that is done must bring this back to zero.
  int64_t leases() const;

 private:
  struct Held;
  struct Counters {
    Mutex mutex;
    int64_t locate_calls EPIC_GUARDED_BY(mutex) = 0;
    int64_t read_calls EPIC_GUARDED_BY(mutex) = 0;
    int64_t bytes_read EPIC_GUARDED_BY(mutex) = 0;
    int64_t leases EPIC_GUARDED_BY(mutex) = 0;
    int64_t lease_epoch EPIC_GUARDED_BY(mutex) = 0;
  };
  class FakeBlock;

  const Options options_;
  Compile compile_;
  const std::shared_ptr<Counters> counters_ = std::make_shared<Counters>();
  mutable Mutex mutex_;
  std::map<ChunkKey, std::shared_ptr<const Held>> blocks_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace epic

#endif  // EPIC_TRANSFER_FAKE_BLOCK_SOURCE_H_
