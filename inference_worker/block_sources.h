// The cache nodes that a worker reads from, one BlockSource an address, made on first use and kept.
//
// Thread-safe. Bounded: beyond kBlockSourcesMax addresses those that no request uses are forgotten.
#ifndef EPIC_INFERENCE_WORKER_BLOCK_SOURCES_H_
#define EPIC_INFERENCE_WORKER_BLOCK_SOURCES_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "core/sync.h"
#include "transfer/block_source.h"

namespace epic {

inline constexpr size_t kBlockSourcesMax = 1024;

// Makes the source for a cache node's address. Must be thread-safe and must not block on the node.
using BlockSourceFactory = std::function<absl::StatusOr<std::shared_ptr<BlockSource>>(const std::string& home)>;

class BlockSources {
 public:
  explicit BlockSources(BlockSourceFactory factory) : factory_(std::move(factory)) {}
  // The factory's error, or RESOURCE_EXHAUSTED where too many nodes are in use at once.
  absl::StatusOr<std::shared_ptr<BlockSource>> Get(const std::string& home);

 private:
  const BlockSourceFactory factory_;
  Mutex mutex_;
  std::unordered_map<std::string, std::shared_ptr<BlockSource>> sources_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_BLOCK_SOURCES_H_
