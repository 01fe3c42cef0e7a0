// Compiling one chunk, in pieces: its tokens run behind the recipe's prefix, and the rows of the chunk become a block.
// What of the prefix is in blocks that were compiled behind the same beginning is attended to as it lies, not run
// again.
#ifndef EPIC_ENGINE_CHUNK_COMPILATION_H_
#define EPIC_ENGINE_CHUNK_COMPILATION_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/kv_block.h"
#include "engine/kv.h"
#include "engine/private_kv.h"

namespace epic {

class ChunkCompilation {
 public:
  // `context`: blocks of consecutive rows at the positions that they were compiled at, all within the recipe's prefix
  // (CheckContext). What of the prefix they leave out runs.
  ChunkCompilation(const KvBlockInfo& info, const Recipe& recipe, std::vector<ChunkKvPtr> context);

  int32_t remaining() const { return static_cast<int32_t>(tokens_.size()) - next_; }
  SequenceKv& kv() { return kv_; }
  // Hands out the next rows, at most `rows_max`, appended to `token_ids` and `positions`, and makes room for them.
  int32_t TakeRows(int32_t rows_max, std::vector<int32_t>& token_ids, std::vector<int32_t>& positions);
  // Writes the block and seals it; returns its edition. REQUIRES: remaining() == 0 and every row has run.
  absl::StatusOr<uint64_t> WriteBlock(std::span<std::byte> block) const;

 private:
  int32_t CopyRows(int32_t layer, int32_t head, int32_t token, KvBlockWriter& writer) const;

  KvBlockInfo info_;
  std::vector<int32_t> tokens_;  // that run: of the recipe's prefix, then the chunk
  std::vector<int32_t> positions_;
  int32_t dropped_rows_;
  int32_t next_ = 0;
  SequenceKv kv_;
};

// INVALID_ARGUMENT where `context` is not consecutive blocks of this model and shape that hold the tokens of the
// recipe's prefix at their own positions.
absl::Status CheckContext(const KvBlockInfo& info, const Recipe& recipe, std::span<const ChunkKvPtr> context);

// A block in memory of its own, for spans that are compiled for one request only.
std::shared_ptr<std::byte[]> AllocateBlockMemory(size_t bytes);

}  // namespace epic

#endif  // EPIC_ENGINE_CHUNK_COMPILATION_H_
