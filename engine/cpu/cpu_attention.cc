// Segment attention of a batch: which rows see which runs, cut into tasks of one kv head and a few query rows each.
#include <algorithm>
#include <vector>

#include "engine/cpu/cpu_backend.h"

namespace epic {

// Query rows of one sequence, with what they see: the same for every kv head.
struct CpuBackend::AttentionTask {
  const RowGroup* group = nullptr;
  int32_t row_begin = 0;  // in the batch
  int32_t row_count = 0;
  const KvPlan* plan = nullptr;
  std::vector<int32_t> limits;  // [segment][row]; the private rows are the last segment
};

void CpuBackend::Attend(const RowBatch& batch, int32_t layer) {
  std::vector<AttentionTask> tasks;
  for (const RowGroup& group : batch.groups) {
    const KvPlan& plan = group.kv->PlanFor(layer);
    for (int32_t begin = 0; begin < group.row_count; begin += kAttentionRowsMax) {
      AttentionTask task{
          &group, group.row_begin + begin, std::min(kAttentionRowsMax, group.row_count - begin), &plan, {}};
      task.limits.reserve((plan.shared.size() + 1) * task.row_count);
      for (const SharedSegment& segment : plan.shared) {
        for (int32_t r = 0; r < task.row_count; ++r) {
          task.limits.push_back(
              std::clamp(batch.positions[task.row_begin + r] - segment.offset + 1, 0, segment.row_end));
        }
      }
      for (int32_t r = 0; r < task.row_count; ++r) {
        task.limits.push_back(plan.rows.CountUpTo(batch.positions[task.row_begin + r]));
      }
      tasks.push_back(std::move(task));
    }
  }

  const KvShape shape = kv_shape();
  const size_t qkv_stride = layers_[layer].qkv.padded_outputs();
  const size_t attended_stride = static_cast<size_t>(config_.heads) * config_.head_dim;
  const int group_heads = config_.heads / config_.kv_heads;
  pool_.ParallelFor(static_cast<int64_t>(tasks.size()) * config_.kv_heads, [&](int64_t index, int thread) {
    const AttentionTask& task = tasks[index / config_.kv_heads];
    const int head = static_cast<int>(index % config_.kv_heads);
    std::vector<AttentionRun> runs;
    std::vector<AttentionSegment> segments;
    runs.reserve(task.plan->shared.size() + task.plan->rows.pages().size());
    for (size_t s = 0; s < task.plan->shared.size(); ++s) {
      const SharedSegment& shared = task.plan->shared[s];
      const KvBlockView& view = shared.chunk->view();
      const int32_t padded = view.padded_tokens();
      runs.push_back({view.Keys(layer) + shape.KeyIndex(padded, head, 0, 0),
                      view.Values(layer) + shape.ValueIndex(padded, head, 0, 0), shared.row_begin, shared.row_end, 0,
                      shared.skip.empty() ? nullptr : shared.skip.data()});
      segments.push_back(
          {&runs.back(), 1, view.info().first_position - shared.offset, task.limits.data() + s * task.row_count});
    }
    const AttentionRun* first_page = runs.data() + runs.size();
    const int32_t row_count = task.plan->rows.size();
    for (size_t p = 0; p < task.plan->rows.pages().size(); ++p) {
      const KvPage& page = *task.plan->rows.pages()[p];
      const int32_t first = static_cast<int32_t>(p) * kPageTokens;
      runs.push_back({page.Keys(layer) + shape.KeyIndex(kPageTokens, head, 0, 0),
                      page.Values(layer) + shape.ValueIndex(kPageTokens, head, 0, 0), 0,
                      std::min(kPageTokens, row_count - first), first, nullptr});
    }
    segments.push_back({first_page, static_cast<int32_t>(task.plan->rows.pages().size()), 0,
                        task.limits.data() + task.plan->shared.size() * task.row_count});

    AttentionBlock block;
    block.rows = task.row_count;
    block.group = group_heads;
    block.head_dim = config_.head_dim;
    const size_t head_offset = static_cast<size_t>(head) * group_heads * config_.head_dim;
    block.queries = qkv_.data() + task.row_begin * qkv_stride + head_offset;
    block.row_stride = qkv_stride;
    block.output = attended_.data() + task.row_begin * attended_stride + head_offset;
    block.output_stride = attended_stride;
    block.positions = batch.positions.data() + task.row_begin;
    block.rope_cos = rope_cos_.data();
    block.rope_sin = rope_sin_.data();
    block.segments = segments.data();
    block.segment_count = static_cast<int32_t>(segments.size());
    block.scratch = attention_scratch_[thread].data();
    kernels_->attend(block);
  });
}

}  // namespace epic
