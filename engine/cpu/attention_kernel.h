// What segment attention's kernels are given: query rows of one kv head and one unit of the keys and values that they
// see (docs/linking.md §3).
//
// A *unit* is at most kAttentionUnitRows consecutive rows of one segment: of a chunk, cut at fixed multiples from the
// block's first row, or of a sequence's private pages. Every unit has a softmax of its own. Its result for one query
// row, the *partial*, is what merges with other units' partials by log-sum-exp. Because the cuts depend on the row's
// own sequence alone and partials merge in one order, a row's result does not depend on which rows share the pass.
#ifndef EPIC_ENGINE_CPU_ATTENTION_KERNEL_H_
#define EPIC_ENGINE_CPU_ATTENTION_KERNEL_H_

#include <cstddef>
#include <cstdint>

namespace epic {

inline constexpr int kAttentionTileRows = 64;  // keys of one step of the online softmax; a page of private rows
inline constexpr int kAttentionUnitTiles = 8;
inline constexpr int kAttentionUnitRows = kAttentionTileRows * kAttentionUnitTiles;
// Query vectors (rows times heads of a group) of one call, but for a single row whose group is larger: their queries,
// outputs and the tile at hand stay in the second-level cache.
inline constexpr int kAttentionVectorsMax = 48;

// Keys and values of one kv head for the 64 rows of a tile, in the order of core/kv_block.h. At the end of a chunk
// only the rows up to the next multiple of 32 are there.
struct AttentionTile {
  const uint16_t* keys = nullptr;    // [row / 16][head_dim / 2][16][2] bf16
  const uint16_t* values = nullptr;  // [row / 2][head_dim][2] bf16
};

// One query row, with the heads of its group.
struct AttentionQuery {
  int32_t row = 0;    // of the query matrix
  int32_t slot = 0;   // of the partials
  int32_t angle = 0;  // the position by which the query is turned: its own, seen from the segment
  int32_t begin = 0;  // rows [begin, end) of the unit are seen; not empty
  int32_t end = 0;
  const uint32_t* skip = nullptr;  // bit (j % 32) of skip[j / 32]: row j of the unit is stale; null: none is
};

struct AttentionBlock {
  const AttentionTile* tiles = nullptr;  // as many as the highest `end` needs
  const AttentionQuery* queries = nullptr;
  int32_t tile_rows = 0;        // rows that `tiles` hold: the next tile is fetched while one is worked on
  AttentionTile next = {};      // what the caller reads after this unit, fetched with its last tile; or nulls
  int32_t query_count = 0;      // times `group` at most kAttentionVectorsMax, or one
  int32_t group = 0;            // query heads a kv head
  int32_t head_dim = 0;         // a multiple of 16, at most 256
  const float* rows = nullptr;  // unrotated; row r, head g at rows + r * row_stride + g * head_dim
  size_t row_stride = 0;
  const float* rope_cos = nullptr;  // [position][head_dim / 2]
  const float* rope_sin = nullptr;
  float* partials = nullptr;  // of slot s at partials + s * partial_stride
  size_t partial_stride = 0;
  float* scratch = nullptr;  // AttentionScratchFloats(group, head_dim) floats, aligned to 64 bytes
};

// A partial: sums[group][head_dim], then for each head the highest score (in units of log 2) and the sum of the
// weights 2^(score - highest). Rounded up to a cache line.
constexpr size_t AttentionPartialFloats(int group, int head_dim) {
  return (static_cast<size_t>(group) * (head_dim + 2) + 15) / 16 * 16;
}

inline constexpr int kAttentionLanesMax = 16;  // floats of the widest vector
inline constexpr int kAttentionStripMax = 16;  // query vectors that one tile of registers holds, at most

constexpr size_t AttentionVectorCapacity(int group) {
  return group > kAttentionVectorsMax ? group : kAttentionVectorsMax;
}

constexpr size_t AttentionScratchFloats(int group, int head_dim) {
  const size_t floats = AttentionVectorCapacity(group) * (2 * static_cast<size_t>(head_dim) + kAttentionLanesMax + 2) +
                        2 * static_cast<size_t>(kAttentionStripMax) * kAttentionTileRows;
  return (floats + 15) / 16 * 16;
}

}  // namespace epic

#endif  // EPIC_ENGINE_CPU_ATTENTION_KERNEL_H_
