#include "engine/cpu/segment_attention.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <numeric>

namespace epic {
namespace {

static_assert(kPageTokens == kAttentionTileRows, "a page of private rows is one tile");
static_assert(kAttentionTileRows % kTokensPerTile == 0);

constexpr int32_t kMergeRowsPerTask = 4;
constexpr size_t kChainsPerThread = 4;
constexpr size_t kChainTasksMax = 8;

}  // namespace

void SegmentAttention::Floats::Reserve(size_t count) {
  if (count <= capacity_) return;
  data_.reset();
  void* memory = std::aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64);
  if (memory == nullptr) throw std::bad_alloc();
  data_.reset(static_cast<float*>(memory));
  capacity_ = count;
}

SegmentAttention::SegmentAttention(const KvShape& shape, int32_t heads, const CpuKernels* kernels, ThreadPool& pool,
                                   size_t partial_bytes_max)
    : shape_(shape),
      group_(heads / shape.kv_heads),
      block_rows_(std::max(1, kAttentionVectorsMax / group_)),
      partial_floats_(AttentionPartialFloats(group_, shape.head_dim)),
      slots_max_(partial_bytes_max / (partial_floats_ * shape.kv_heads * sizeof(float))),
      kernels_(kernels),
      pool_(pool),
      scratch_(pool.threads()) {
  for (Floats& scratch : scratch_) {
    scratch.Reserve(AttentionScratchFloats(group_, shape.head_dim) + 2 * block_rows_ * partial_floats_);
  }
}

// Calls visit(UnitPlace) for every unit of the plan in the order in which partials merge.
template <typename Visit>
void SegmentAttention::VisitUnits(const KvPlan& plan, const Visit& visit) {
  for (const SharedSegment& segment : plan.shared) {
    for (int32_t i = segment.row_begin / kAttentionUnitRows; i * kAttentionUnitRows < segment.row_end; ++i) {
      visit(UnitPlace{&plan, &segment, i});
    }
  }
  for (int32_t i = 0; i * kAttentionUnitRows < plan.rows.size(); ++i) visit(UnitPlace{&plan, nullptr, i});
}

size_t SegmentAttention::UnitCount(const KvPlan& plan) const {
  size_t count = 0;
  VisitUnits(plan, [&](const UnitPlace&) { ++count; });
  return count;
}

// What row `row` of the batch sees of a unit; false for nothing.
bool SegmentAttention::See(const UnitPlace& place, int32_t row, AttentionQuery& query) const {
  const int32_t first = place.index * kAttentionUnitRows;
  const int32_t position = positions_[row];
  query.row = row;
  query.begin = 0;
  query.skip = nullptr;
  query.angle = position;
  int32_t limit = private_limits_[row];
  if (place.shared != nullptr) {
    const SharedSegment& segment = *place.shared;
    limit = std::min(position - segment.offset + 1, segment.row_end);
    query.begin = std::max(segment.row_begin - first, 0);
    query.angle = position + segment.chunk->view().info().first_position - segment.offset;
    if (!segment.skip.empty()) query.skip = segment.skip.data() + first / kTokensPerTile;
  }
  query.end = std::min(limit - first, kAttentionUnitRows);
  return query.begin < query.end;
}

// Fills `tiles` and returns how many rows they hold.
int32_t SegmentAttention::MakeTiles(const UnitPlace& place, int32_t layer, int32_t head, AttentionTile* tiles) const {
  const int32_t first = place.index * kAttentionUnitRows;
  if (place.shared != nullptr) {
    const KvBlockView& view = place.shared->chunk->view();
    const int32_t padded = view.padded_tokens();
    const int32_t rows = std::min(kAttentionUnitRows, padded - first);
    const uint16_t* keys = view.Keys(layer) + shape_.KeyIndex(padded, head, first, 0);
    const uint16_t* values = view.Values(layer) + shape_.ValueIndex(padded, head, first, 0);
    for (int32_t i = 0; i < rows; i += kAttentionTileRows) {
      const size_t offset = static_cast<size_t>(i) * shape_.head_dim;
      *tiles++ = {keys + offset, values + offset};
    }
    return rows;
  }
  const auto& pages = place.plan->rows.pages();
  const size_t begin = first / kPageTokens;
  const size_t end = std::min(pages.size(), begin + kAttentionUnitTiles);
  for (size_t i = begin; i < end; ++i) {
    *tiles++ = {pages[i]->Keys(layer) + shape_.KeyIndex(kPageTokens, head, 0, 0),
                pages[i]->Values(layer) + shape_.ValueIndex(kPageTokens, head, 0, 0)};
  }
  return static_cast<int32_t>(end - begin) * kPageTokens;
}

void SegmentAttention::Plan(const RowBatch& batch, int32_t layer) {
  walks_.clear();
  units_.clear();
  unit_of_.clear();
  seen_.clear();
  gathered_.clear();
  tasks_.clear();
  slots_ = 0;
  layer_end_ = shape_.layers;
  positions_ = batch.positions;
  private_limits_.resize(positions_.size());
  order_.resize(batch.groups.size());
  std::iota(order_.begin(), order_.end(), 0);
  std::stable_sort(order_.begin(), order_.end(),
                   [&](int32_t a, int32_t b) { return batch.groups[a].row_count < batch.groups[b].row_count; });
  size_t planned_slots = 0;
  for (const int32_t index : order_) {
    const RowGroup& group = batch.groups[index];
    const KvPlan& plan = group.kv->PlanFor(layer);
    layer_end_ = std::min(layer_end_, plan.layer_end);
    for (int32_t i = 0; i < group.row_count; ++i) {
      private_limits_[group.row_begin + i] = plan.rows.CountUpTo(positions_[group.row_begin + i]);
    }
    const size_t slots = group.row_count * UnitCount(plan);
    if (planned_slots + slots <= slots_max_) {
      planned_slots += slots;
      PlanGather(group, plan);
    } else {
      PlanWalk(group, plan);
    }
  }
  PlanGatherTasks();
  partials_.Reserve(slots_ * shape_.kv_heads * partial_floats_);
}

void SegmentAttention::PlanWalk(const RowGroup& group, const KvPlan& plan) {
  for (int32_t begin = 0; begin < group.row_count; begin += block_rows_) {
    walks_.push_back({&plan, group.row_begin + begin, std::min(block_rows_, group.row_count - begin)});
  }
}

void SegmentAttention::PlanGather(const RowGroup& group, const KvPlan& plan) {
  unit_ids_.clear();
  VisitUnits(plan, [&](const UnitPlace& place) {
    const auto next = static_cast<int32_t>(units_.size());
    int32_t unit = next;
    if (place.shared != nullptr) {
      const std::byte* chunk = place.shared->chunk->view().bytes().data();
      unit = unit_of_.try_emplace({chunk, place.index}, next).first->second;
    }
    if (unit == next) units_.push_back({place, 0, 0});
    unit_ids_.push_back(unit);
  });
  for (int32_t i = 0; i < group.row_count; ++i) {
    const int32_t row = group.row_begin + i;
    const auto slot_begin = static_cast<int32_t>(slots_);
    size_t next_unit = 0;
    VisitUnits(plan, [&](const UnitPlace& place) {
      const int32_t unit = unit_ids_[next_unit++];
      AttentionQuery query;
      if (!See(place, row, query)) return;
      query.slot = static_cast<int32_t>(slots_++);
      seen_.emplace_back(unit, query);
      ++units_[unit].query_count;
    });
    gathered_.push_back({row, slot_begin, static_cast<int32_t>(slots_)});
  }
}

// Sorts the queries by unit and cuts them into tasks of even size.
void SegmentAttention::PlanGatherTasks() {
  int32_t total = 0;
  for (Unit& unit : units_) {
    unit.query_begin = total;
    total += std::exchange(unit.query_count, 0);
  }
  queries_.resize(total);
  for (const auto& [unit, query] : seen_) {
    queries_[units_[unit].query_begin + units_[unit].query_count++] = query;
  }
  for (size_t i = 0; i < units_.size(); ++i) {
    const Unit& unit = units_[i];
    const int32_t parts = (unit.query_count + block_rows_ - 1) / block_rows_;
    for (int32_t head = 0; head < shape_.kv_heads; ++head) {
      for (int32_t part = 0; part < parts; ++part) {
        const int32_t begin = unit.query_count * part / parts;
        const int32_t end = unit.query_count * (part + 1) / parts;
        tasks_.push_back({static_cast<int32_t>(i), unit.query_begin + begin, end - begin, head});
      }
    }
  }
  // Within a chain the next task's first keys are fetched in time; enough chains are left to even out the threads.
  chain_tasks_ = std::clamp<size_t>(tasks_.size() / (kChainsPerThread * pool_.threads()), 1, kChainTasksMax);
}

void SegmentAttention::Run(int32_t layer, const AttentionRows& rows) {
  const auto walks = static_cast<int64_t>(walks_.size()) * shape_.kv_heads;
  const auto chains = static_cast<int64_t>((tasks_.size() + chain_tasks_ - 1) / chain_tasks_);
  pool_.ParallelFor(walks + chains, [&](int64_t index, int thread) {
    if (index < walks) {
      Walk(walks_[index / shape_.kv_heads], static_cast<int32_t>(index % shape_.kv_heads), layer, rows, thread);
    } else {
      const size_t begin = static_cast<size_t>(index - walks) * chain_tasks_;
      Gather(begin, std::min(tasks_.size(), begin + chain_tasks_), layer, rows, thread);
    }
  });
  const auto count = static_cast<int64_t>(gathered_.size());
  pool_.ParallelFor((count + kMergeRowsPerTask - 1) / kMergeRowsPerTask, [&](int64_t task, int thread) {
    const int64_t end = std::min(count, (task + 1) * kMergeRowsPerTask);
    for (int64_t i = task * kMergeRowsPerTask; i < end; ++i) Merge(gathered_[i], rows, thread);
  });
}

AttentionBlock SegmentAttention::MakeBlock(const AttentionRows& rows, int32_t head, int thread) const {
  AttentionBlock block;
  block.group = group_;
  block.head_dim = shape_.head_dim;
  block.rows = rows.queries + static_cast<size_t>(head) * group_ * shape_.head_dim;
  block.row_stride = rows.query_stride;
  block.rope_cos = rows.rope_cos;
  block.rope_sin = rows.rope_sin;
  block.scratch = scratch_[thread].data();
  return block;
}

void SegmentAttention::Gather(size_t task_begin, size_t task_end, int32_t layer, const AttentionRows& rows,
                              int thread) {
  AttentionTile tiles[2][kAttentionUnitTiles];
  int32_t tile_rows = MakeTiles(units_[tasks_[task_begin].unit].place, layer, tasks_[task_begin].head, tiles[0]);
  for (size_t i = task_begin; i < task_end; ++i) {
    const Task& task = tasks_[i];
    AttentionTile* next_tiles = tiles[(i + 1 - task_begin) % 2];
    AttentionBlock block = MakeBlock(rows, task.head, thread);
    block.tiles = tiles[(i - task_begin) % 2];
    block.tile_rows = tile_rows;
    if (i + 1 < task_end) {
      tile_rows = MakeTiles(units_[tasks_[i + 1].unit].place, layer, tasks_[i + 1].head, next_tiles);
      block.next = next_tiles[0];
    }
    block.queries = queries_.data() + task.query_begin;
    block.query_count = task.query_count;
    block.partials = partials_.data() + static_cast<size_t>(task.head) * partial_floats_;
    block.partial_stride = shape_.kv_heads * partial_floats_;
    kernels_->attend_unit(block);
  }
}

// An empty running result.
void SegmentAttention::Clear(float* running) const {
  std::fill_n(running, partial_floats_, 0.0f);
  for (int32_t g = 0; g < group_; ++g) running[group_ * shape_.head_dim + 2 * g] = -HUGE_VALF;
}

void SegmentAttention::Walk(const WalkBlock& walk, int32_t head, int32_t layer, const AttentionRows& rows, int thread) {
  AttentionTile tiles[kAttentionUnitTiles];
  AttentionQuery queries[kAttentionVectorsMax];
  AttentionBlock block = MakeBlock(rows, head, thread);
  float* partials = block.scratch + AttentionScratchFloats(group_, shape_.head_dim);
  float* running = partials + block_rows_ * partial_floats_;
  for (int32_t i = 0; i < walk.row_count; ++i) Clear(running + i * partial_floats_);
  block.tiles = tiles;
  block.queries = queries;
  block.partials = partials;
  block.partial_stride = partial_floats_;
  VisitUnits(*walk.plan, [&](const UnitPlace& place) {
    block.query_count = 0;
    for (int32_t i = 0; i < walk.row_count; ++i) {
      AttentionQuery& query = queries[block.query_count];
      query.slot = i;
      block.query_count += See(place, walk.row_begin + i, query) ? 1 : 0;
    }
    if (block.query_count == 0) return;
    block.tile_rows = MakeTiles(place, layer, head, tiles);
    kernels_->attend_unit(block);
    for (int32_t i = 0; i < block.query_count; ++i) {
      const size_t at = queries[i].slot * partial_floats_;
      kernels_->merge_partial(group_, shape_.head_dim, partials + at, running + at);
    }
  });
  for (int32_t i = 0; i < walk.row_count; ++i) {
    float* output = rows.output + (walk.row_begin + i) * rows.output_stride;
    kernels_->finish_partial(group_, shape_.head_dim, running + i * partial_floats_,
                             output + static_cast<size_t>(head) * group_ * shape_.head_dim);
  }
}

void SegmentAttention::Merge(const GatheredRow& row, const AttentionRows& rows, int thread) {
  float* running = scratch_[thread].data();
  for (int32_t head = 0; head < shape_.kv_heads; ++head) {
    Clear(running);
    for (int32_t slot = row.slot_begin; slot < row.slot_end; ++slot) {
      kernels_->merge_partial(group_, shape_.head_dim,
                              partials_.data() + (static_cast<size_t>(slot) * shape_.kv_heads + head) * partial_floats_,
                              running);
    }
    kernels_->finish_partial(
        group_, shape_.head_dim, running,
        rows.output + row.row * rows.output_stride + static_cast<size_t>(head) * group_ * shape_.head_dim);
  }
}

}  // namespace epic
