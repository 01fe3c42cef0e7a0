// What segment attention's kernel is given: query rows of one kv head, and the runs of keys and values that they see.
#ifndef EPIC_ENGINE_CPU_ATTENTION_KERNEL_H_
#define EPIC_ENGINE_CPU_ATTENTION_KERNEL_H_

#include <cstddef>
#include <cstdint>

namespace epic {

inline constexpr int kAttentionRowsMax = 16;  // query positions in one attention block
inline constexpr int kKeyTile = 32;           // keys handled at once; equals kTokensPerTile of core/kv_block.h

// Rows of K and V of one kv head that lie together: a chunk's layer, or a page of private rows.
struct AttentionRun {
  const uint16_t* keys = nullptr;    // [padded / 16][head_dim][16] bf16
  const uint16_t* values = nullptr;  // [padded][head_dim] bf16
  int32_t row_begin = 0;             // rows [row_begin, row_end) of the run take part
  int32_t row_end = 0;
  int32_t first_index = 0;         // row j of the run has index first_index + j in its segment
  const uint32_t* skip = nullptr;  // bit (j % 32) of skip[j / 32]: row j is stale; null: none is
};

// Runs whose keys are rotated alike: the query at position m is rotated by m + query_shift.
struct AttentionSegment {
  const AttentionRun* runs = nullptr;
  int32_t run_count = 0;
  int32_t query_shift = 0;
  // One a query row: it sees rows whose index in the segment is below this. Ascending with the rows.
  const int32_t* limits = nullptr;
};

// Up to kAttentionRowsMax query positions of one sequence and the query heads that share one kv head.
struct AttentionBlock {
  int32_t rows = 0;
  int32_t group = 0;               // query heads a kv head
  int32_t head_dim = 0;            // a multiple of 16, at most 256
  const float* queries = nullptr;  // unrotated; row r, head g at queries + r * row_stride + g * head_dim
  float* output = nullptr;         // same arrangement with output_stride
  size_t row_stride = 0;
  size_t output_stride = 0;
  const int32_t* positions = nullptr;  // one a row
  const float* rope_cos = nullptr;     // [position][head_dim / 2]
  const float* rope_sin = nullptr;
  const AttentionSegment* segments = nullptr;
  int32_t segment_count = 0;
  float* scratch = nullptr;  // AttentionScratchFloats(group, head_dim) floats, aligned to 64 bytes
};

constexpr size_t AttentionScratchFloats(int group, int head_dim) {
  const size_t vectors = static_cast<size_t>(kAttentionRowsMax) * group;
  return vectors * head_dim * 2 + vectors * kKeyTile + vectors * 2 + 2 * static_cast<size_t>(kKeyTile) * head_dim;
}

}  // namespace epic

#endif  // EPIC_ENGINE_CPU_ATTENTION_KERNEL_H_
