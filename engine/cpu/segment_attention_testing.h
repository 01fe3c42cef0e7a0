// For tests and benchmarks only: batches of random queries, chunks and private rows for segment attention, without a
// model.
#ifndef EPIC_ENGINE_CPU_SEGMENT_ATTENTION_TESTING_H_
#define EPIC_ENGINE_CPU_SEGMENT_ATTENTION_TESTING_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "core/kv_block_testing.h"
#include "engine/cpu/packed_matrix.h"
#include "engine/cpu/segment_attention.h"

namespace epic {

// Owns everything that a batch refers to. Add chunks and sequences, then plan and run.
class AttentionWorld {
 public:
  AttentionWorld(const KvShape& shape, int32_t heads, int32_t positions, uint32_t seed)
      : shape_(shape), heads_(heads), generator_(seed) {
    const int32_t half = shape.head_dim / 2;
    for (int32_t p = 0; p < positions; ++p) {
      for (int32_t i = 0; i < half; ++i) {
        cosine_.push_back(static_cast<float>(std::cos(p * Frequency(i))));
        sine_.push_back(static_cast<float>(std::sin(p * Frequency(i))));
      }
    }
  }

  // A chunk of random keys and values for all layers.
  ChunkKvPtr MakeChunk(int32_t tokens, int32_t first_position) {
    std::vector<int32_t> ids(tokens);
    std::iota(ids.begin(), ids.end(), static_cast<int32_t>(generator_() % 1000000));
    KvBlockInfo info = MakeTestBlockInfo(shape_, std::move(ids));
    info.first_position = first_position;
    auto memory = std::make_shared<PageAlignedBytes>(KvBlockBytes(info));
    KvBlockWriter writer = KvBlockWriter::Create(info, memory->span()).value();
    for (int32_t layer = 0; layer < shape_.layers; ++layer) {
      FillRows(writer.Keys(layer), writer.Values(layer), PaddedTokens(tokens), 0, tokens);
    }
    writer.Seal();
    return std::make_shared<ChunkKv>(KvBlockView::Parse(memory->span()).value(), memory);
  }

  // Adds a sequence with one plan for layers [layer_begin, layer_end) and private rows at `positions` of random
  // contents, the last `query_rows` of which are rows of the batch.
  void AddSequence(std::vector<SharedSegment> shared, std::span<const int32_t> positions, int32_t query_rows) {
    sequences_.push_back(std::make_unique<SequenceKv>());
    sequences_.back()->plans.push_back(MakePlan(0, shape_.layers, std::move(shared), positions));
    const auto first = static_cast<int32_t>(batch_.positions.size());
    batch_.groups.push_back({sequences_.back().get(), first, query_rows});
    batch_.positions.insert(batch_.positions.end(), positions.end() - query_rows, positions.end());
    const size_t floats = static_cast<size_t>(query_rows) * query_stride();
    for (size_t i = 0; i < floats; ++i) queries_.push_back(Uniform(-3, 3));
  }

  KvPlan MakePlan(int32_t layer_begin, int32_t layer_end, std::vector<SharedSegment> shared,
                  std::span<const int32_t> positions) {
    KvPlan plan{layer_begin, layer_end, std::move(shared), PrivateRows(shape_, layer_begin, layer_end)};
    plan.rows.Append(positions);
    for (int32_t layer = layer_begin; layer < layer_end; ++layer) {
      for (int32_t i = 0; i < plan.rows.size(); i += kPageTokens) {
        KvPage& page = plan.rows.PageOf(i);
        FillRows(page.Keys(layer), page.Values(layer), kPageTokens, 0, std::min(kPageTokens, plan.rows.size() - i));
      }
    }
    return plan;
  }

  // What SegmentAttention::Run takes. `output` has rows() * query_stride() floats.
  AttentionRows Rows(float* output) const {
    return {queries_.data(), query_stride(), cosine_.data(), sine_.data(), output, query_stride()};
  }

  const KvShape& shape() const { return shape_; }
  int32_t heads() const { return heads_; }
  RowBatch& batch() { return batch_; }
  int32_t rows() const { return batch_.rows(); }
  size_t query_stride() const { return static_cast<size_t>(heads_) * shape_.head_dim; }
  const std::vector<float>& queries() const { return queries_; }
  std::mt19937& generator() { return generator_; }
  double Frequency(int32_t i) const { return std::pow(10000.0, -2.0 * i / shape_.head_dim); }
  float Uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(generator_() >> 8) / static_cast<float>(1 << 24);
  }
  int32_t Integer(int32_t low, int32_t high) {
    return low + static_cast<int32_t>(generator_() % static_cast<uint32_t>(high - low + 1));
  }

 private:
  void FillRows(uint16_t* keys, uint16_t* values, int32_t padded, int32_t begin, int32_t end) {
    for (int32_t head = 0; head < shape_.kv_heads; ++head) {
      for (int32_t row = begin; row < end; ++row) {
        for (int32_t d = 0; d < shape_.head_dim; ++d) {
          keys[shape_.KeyIndex(padded, head, row, d)] = ToBf16(Uniform(-2, 2));
          values[shape_.ValueIndex(padded, head, row, d)] = ToBf16(Uniform(-1, 1));
        }
      }
    }
  }

  KvShape shape_;
  int32_t heads_;
  std::mt19937 generator_;
  std::vector<float> cosine_, sine_;
  std::vector<std::unique_ptr<SequenceKv>> sequences_;
  RowBatch batch_;
  std::vector<float> queries_;
};

}  // namespace epic

#endif  // EPIC_ENGINE_CPU_SEGMENT_ATTENTION_TESTING_H_
