// Segment attention of a whole batch: which rows see which units, cut into tasks for the threads (docs/linking.md §3).
//
// Every row attends to the units of its own sequence (attention_kernel.h), in the order of its plan: the shared chunks,
// then its private rows. A group of rows takes one of two ways; both give the same bits.
//
//   gathered   One task is (unit, kv head, up to 48 query vectors of any sequences). Rows of all sequences that use the
//              same chunk stand in one list, so that its keys and values are read once for all of them. Each row's
//              partial goes to a buffer; a second pass merges them. For decode, and for links of bounded size.
//   walked     One task is (a few rows of one sequence, kv head): it goes through all their units and merges as it
//              goes. For what would not fit into the buffer: long prompts.
//
// Groups are gathered, smallest first, while their partials fit into kPartialBytesMax. So scratch memory is that much,
// and per thread about 200 vectors of head_dim floats.
//
// A row's result depends on that row's own query, keys, values and plan alone, to the last bit.
//
// Not thread-safe; Run uses the pool that the caller runs on.
#ifndef EPIC_ENGINE_CPU_SEGMENT_ATTENTION_H_
#define EPIC_ENGINE_CPU_SEGMENT_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/backend.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/thread_pool.h"

namespace epic {

// What attention reads and writes of one layer, besides keys and values. Row r of the batch has its queries of all
// heads, before the rotation, at queries + r * query_stride, its output at output + r * output_stride.
struct AttentionRows {
  const float* queries = nullptr;
  size_t query_stride = 0;
  const float* rope_cos = nullptr;  // [position][head_dim / 2], as far as the batch's positions seen from any segment
  const float* rope_sin = nullptr;
  float* output = nullptr;
  size_t output_stride = 0;
};

class SegmentAttention {
 public:
  static constexpr size_t kPartialBytesMax = size_t{32} << 20;

  // `heads` is a multiple of shape.kv_heads. `kernels` and `pool` outlive this. `partial_bytes_max`: see above.
  SegmentAttention(const KvShape& shape, int32_t heads, const CpuKernels* kernels, ThreadPool& pool,
                   size_t partial_bytes_max = kPartialBytesMax);

  // Plans the batch for `layer` and every layer that runs under the same plans (KvPlan): until layer_end(). The batch
  // and its sequences stay as they are until the last Run.
  void Plan(const RowBatch& batch, int32_t layer);
  int32_t layer_end() const { return layer_end_; }
  // REQUIRES: Plan covered `layer`, whose private rows are written.
  void Run(int32_t layer, const AttentionRows& rows);

 private:
  // Floats, aligned to a cache line, with undefined contents.
  class Floats {
   public:
    void Reserve(size_t count);
    float* data() const { return data_.get(); }

   private:
    struct Free {
      void operator()(float* p) const { std::free(p); }
    };
    size_t capacity_ = 0;
    std::unique_ptr<float[], Free> data_;
  };
  // Unit `index` of a chunk, or of a sequence's private rows (`shared` is null).
  struct UnitPlace {
    const KvPlan* plan = nullptr;
    const SharedSegment* shared = nullptr;
    int32_t index = 0;
  };
  struct Unit {
    UnitPlace place;
    int32_t query_begin = 0;  // in queries_
    int32_t query_count = 0;
  };
  struct WalkBlock {
    const KvPlan* plan = nullptr;
    int32_t row_begin = 0;
    int32_t row_count = 0;
  };
  struct GatheredRow {
    int32_t row = 0;
    int32_t slot_begin = 0;  // its partials, in the order in which they merge
    int32_t slot_end = 0;
  };
  // One kv head of some of a unit's queries.
  struct Task {
    int32_t unit = 0;
    int32_t query_begin = 0;
    int32_t query_count = 0;
    int32_t head = 0;
  };

  template <typename Visit>
  static void VisitUnits(const KvPlan& plan, const Visit& visit);
  bool See(const UnitPlace& place, int32_t row, AttentionQuery& query) const;
  int32_t MakeTiles(const UnitPlace& place, int32_t layer, int32_t head, AttentionTile* tiles) const;
  size_t UnitCount(const KvPlan& plan) const;
  void PlanWalk(const RowGroup& group, const KvPlan& plan);
  void PlanGather(const RowGroup& group, const KvPlan& plan);
  void PlanGatherTasks();

  AttentionBlock MakeBlock(const AttentionRows& rows, int32_t head, int thread) const;
  void Walk(const WalkBlock& walk, int32_t head, int32_t layer, const AttentionRows& rows, int thread);
  void Gather(size_t task_begin, size_t task_end, int32_t layer, const AttentionRows& rows, int thread);
  void Merge(const GatheredRow& row, const AttentionRows& rows, int thread);
  void Clear(float* running) const;

  const KvShape shape_;
  const int32_t group_;  // query heads a kv head
  const int32_t block_rows_;
  const size_t partial_floats_;
  const size_t slots_max_;
  const CpuKernels* kernels_;
  ThreadPool& pool_;

  // The plan. Vectors keep their memory from batch to batch.
  int32_t layer_end_ = 0;
  std::vector<int32_t> positions_;       // of each row
  std::vector<int32_t> private_limits_;  // how many private rows of its sequence a row sees
  std::vector<int32_t> order_;           // groups, smallest first
  std::vector<WalkBlock> walks_;
  std::vector<Unit> units_;
  absl::flat_hash_map<std::pair<const std::byte*, int32_t>, int32_t> unit_of_;  // by (chunk, index)
  std::vector<int32_t> unit_ids_;                                               // of the group at hand
  std::vector<std::pair<int32_t, AttentionQuery>> seen_;                        // (unit, query), row by row
  std::vector<AttentionQuery> queries_;                                         // unit by unit
  std::vector<GatheredRow> gathered_;
  std::vector<Task> tasks_;
  size_t chain_tasks_ = 1;  // how many of them a thread takes at a time
  size_t slots_ = 0;

  Floats partials_;              // [slot][kv head][partial_floats_]
  std::vector<Floats> scratch_;  // one a thread: the kernel's, then block_rows_ partials, then as many running results
};

}  // namespace epic

#endif  // EPIC_ENGINE_CPU_SEGMENT_ATTENTION_H_
