// Segment attention of whole batches for every instruction set that this processor runs: against a naive
// double-precision reference over random plans, and bit for bit against itself with other rows beside, other ways
// through the plan and other numbers of threads.
#include "engine/cpu/segment_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "engine/cpu/emulated_kernels_for_test.h"
#include "engine/cpu/segment_attention_testing.h"

namespace epic {
namespace {

constexpr int32_t kPositions = 6000;

class SegmentAttentionTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    kernels_ = KernelsForTest(GetParam());
    if (kernels_ == nullptr) GTEST_SKIP() << "this processor does not run " << GetParam();
  }

  std::vector<float> Run(AttentionWorld& world, const RowBatch& batch, int32_t layer = 0, int threads = 1,
                         size_t partial_bytes_max = SegmentAttention::kPartialBytesMax) {
    ThreadPool pool(threads);
    SegmentAttention attention(world.shape(), world.heads(), kernels_, pool, partial_bytes_max);
    std::vector<float> output(world.queries().size(), 7);
    attention.Plan(batch, layer);
    attention.Run(layer, world.Rows(output.data()));
    return output;
  }
  std::vector<float> Run(AttentionWorld& world) { return Run(world, world.batch()); }

  const CpuKernels* kernels_ = nullptr;
};

// softmax(rotated q . k / sqrt(dim)) v in double for one row and head, over everything that the row sees.
class NaiveRow {
 public:
  NaiveRow(const AttentionWorld& world, const float* query, int32_t head, int32_t layer)
      : world_(world), query_(query), kv_head_(head / (world.heads() / world.shape().kv_heads)), layer_(layer) {}

  void See(const KvPlan& plan, int32_t position) {
    for (const SharedSegment& segment : plan.shared) {
      const KvBlockView& view = segment.chunk->view();
      const std::vector<double> query = Rotated(position - segment.offset + view.info().first_position);
      for (int32_t j = segment.row_begin; j < segment.row_end && segment.offset + j <= position; ++j) {
        if (!segment.skip.empty() && (segment.skip[j / 32] >> (j % 32) & 1u) != 0) continue;
        Add(query, view.Keys(layer_), view.Values(layer_), view.padded_tokens(), j);
      }
    }
    const std::vector<double> query = Rotated(position);
    for (int32_t j = 0; j < plan.rows.size() && plan.rows.positions()[j] <= position; ++j) {
      const KvPage& page = *plan.rows.pages()[j / kPageTokens];
      Add(query, page.Keys(layer_), page.Values(layer_), kPageTokens, j % kPageTokens);
    }
  }

  std::vector<double> Result() const {
    std::vector<double> out(world_.shape().head_dim, 0);
    if (scores_.empty()) return out;
    const double top = *std::max_element(scores_.begin(), scores_.end());
    double total = 0;
    for (size_t i = 0; i < scores_.size(); ++i) {
      const double weight = std::exp(scores_[i] - top);
      total += weight;
      for (size_t d = 0; d < out.size(); ++d) out[d] += weight * values_[i][d];
    }
    for (double& value : out) value /= total;
    return out;
  }

 private:
  std::vector<double> Rotated(int32_t position) const {
    const int32_t half = world_.shape().head_dim / 2;
    std::vector<double> rotated(2 * half);
    for (int32_t i = 0; i < half; ++i) {
      const double cosine = std::cos(position * world_.Frequency(i));
      const double sine = std::sin(position * world_.Frequency(i));
      rotated[i] = query_[i] * cosine - query_[half + i] * sine;
      rotated[half + i] = query_[half + i] * cosine + query_[i] * sine;
    }
    return rotated;
  }

  void Add(const std::vector<double>& query, const uint16_t* keys, const uint16_t* values, int32_t padded,
           int32_t row) {
    const KvShape& shape = world_.shape();
    double score = 0;
    values_.emplace_back();
    for (int32_t d = 0; d < shape.head_dim; ++d) {
      score += query[d] * FromBf16(keys[shape.KeyIndex(padded, kv_head_, row, d)]);
      values_.back().push_back(FromBf16(values[shape.ValueIndex(padded, kv_head_, row, d)]));
    }
    scores_.push_back(score / std::sqrt(shape.head_dim));
  }

  const AttentionWorld& world_;
  const float* query_;
  int32_t kv_head_;
  int32_t layer_;
  std::vector<double> scores_;
  std::vector<std::vector<double>> values_;
};

void ExpectEqualsReference(AttentionWorld& world, const CpuKernels& kernels, const std::vector<float>& output,
                           int32_t layer, const std::string& what) {
  const double tolerance = kernels.rounds_activations ? 2e-2 : 2e-5;
  const int32_t dim = world.shape().head_dim;
  for (const RowGroup& group : world.batch().groups) {
    for (int32_t r = group.row_begin; r < group.row_begin + group.row_count; ++r) {
      for (int32_t head = 0; head < world.heads(); ++head) {
        const size_t at = r * world.query_stride() + static_cast<size_t>(head) * dim;
        NaiveRow naive(world, world.queries().data() + at, head, layer);
        naive.See(group.kv->PlanFor(layer), world.batch().positions[r]);
        const std::vector<double> expected = naive.Result();
        for (int32_t d = 0; d < dim; ++d) {
          ASSERT_NEAR(output[at + d], expected[d], tolerance)
              << what << ", row " << r << " head " << head << " dim " << d;
        }
      }
    }
  }
}

// A random part of a chunk at a random place behind `offset`.
SharedSegment RandomSegment(AttentionWorld& world, const ChunkKvPtr& chunk, int32_t offset) {
  const int32_t tokens = chunk->view().token_count();
  SharedSegment segment{chunk, 0, tokens, offset + world.Integer(0, 40), {}};
  if (world.Integer(0, 1) == 1) segment.row_begin = world.Integer(0, tokens - 1);
  if (world.Integer(0, 2) == 0) segment.row_end = world.Integer(segment.row_begin + 1, tokens);
  if (world.Integer(0, 2) == 0) {
    segment.skip.resize(PaddedTokens(tokens) / kTokensPerTile);
    for (uint32_t& word : segment.skip) word = world.generator()() & world.generator()();
  }
  return segment;
}

// Sequences that use some of the same chunks at different places; private rows before, inside and behind them.
void AddRandomSequences(AttentionWorld& world, int32_t sequences, int32_t query_rows_max) {
  std::vector<ChunkKvPtr> chunks;
  for (const int32_t tokens : {world.Integer(1, 40), world.Integer(50, 300), world.Integer(500, 1300)}) {
    chunks.push_back(world.MakeChunk(tokens, world.Integer(0, 8)));
  }
  for (int32_t s = 0; s < sequences; ++s) {
    std::vector<SharedSegment> shared;
    int32_t offset = 0;
    for (int32_t i = world.Integer(0, 4); i > 0; --i) {
      const ChunkKvPtr& chunk = chunks[world.Integer(0, 2)];
      shared.push_back(RandomSegment(world, chunk, offset));
      offset = shared.back().offset + chunk->view().token_count();
    }
    std::set<int32_t> positions{offset + 100};
    const int32_t count = world.Integer(0, 3) == 0 ? world.Integer(500, 700) : world.Integer(1, 80);
    while (static_cast<int32_t>(positions.size()) < count) positions.insert(world.Integer(0, offset + 800));
    const std::vector<int32_t> sorted(positions.begin(), positions.end());
    world.AddSequence(std::move(shared), sorted, std::min(count, world.Integer(1, query_rows_max)));
  }
}

TEST_P(SegmentAttentionTest, EqualsANaiveReferenceForRandomBatches) {
  for (const int32_t dim : {16, 32, 48, 64, 80, 96, 128, 256}) {
    for (const int32_t group : {1, 2, 3, 4, 5, 6, 7, 8}) {
      AttentionWorld world({.layers = 1, .kv_heads = 1 + group % 2, .head_dim = dim}, group * (1 + group % 2),
                           kPositions, dim * 100 + group);
      AddRandomSequences(world, 2, 9);
      ExpectEqualsReference(world, *kernels_, Run(world), 0,
                            "dim " + std::to_string(dim) + " group " + std::to_string(group));
    }
  }
}

TEST_P(SegmentAttentionTest, BitsDependOnTheRowsOwnSequenceAlone) {
  for (const int32_t group : {1, 3, 7}) {
    AttentionWorld world({.layers = 2, .kv_heads = 2, .head_dim = 64}, 2 * group, kPositions, 77 + group);
    AddRandomSequences(world, 4, 70);
    const RowBatch& batch = world.batch();
    const std::vector<float> gathered = Run(world, batch, 1);
    for (const int threads : {2, 5}) EXPECT_EQ(Run(world, batch, 1, threads), gathered) << threads << " threads";
    EXPECT_EQ(Run(world, batch, 1, 1, 0), gathered) << "walked";
    EXPECT_EQ(Run(world, batch, 1, 3, size_t{1} << 18), gathered) << "some walked, some gathered";

    // Each sequence alone, and some rows alone.
    const size_t stride = world.query_stride();
    const auto expect_alone = [&](const RowGroup& part, size_t partial_bytes_max) {
      RowBatch alone = batch;
      alone.groups = {part};
      const std::vector<float> output = Run(world, alone, 1, 1, partial_bytes_max);
      const auto begin = static_cast<ptrdiff_t>(part.row_begin * stride);
      const auto end = begin + static_cast<ptrdiff_t>(part.row_count * stride);
      EXPECT_TRUE(std::equal(output.begin() + begin, output.begin() + end, gathered.begin() + begin))
          << part.row_count << " rows from " << part.row_begin;
    };
    for (const RowGroup& part : batch.groups) {
      for (const size_t limit : {SegmentAttention::kPartialBytesMax, size_t{0}}) {
        expect_alone(part, limit);
        for (int32_t r = 0; r < part.row_count; r += 13) expect_alone({part.kv, part.row_begin + r, 1}, limit);
      }
    }
  }
}

TEST_P(SegmentAttentionTest, SequencesThatShareAChunkUnlikeEachOtherAreSeenEachInItsOwnWay) {
  AttentionWorld world({.layers = 1, .kv_heads = 1, .head_dim = 64}, 3, kPositions, 5);
  const ChunkKvPtr chunk = world.MakeChunk(1100, 3);
  std::vector<uint32_t> stale(PaddedTokens(1100) / kTokensPerTile, 0x80000001u);
  world.AddSequence({{chunk, 0, 1100, 0, {}}}, std::vector<int32_t>{1100}, 1);
  world.AddSequence({{chunk, 2, 1100, 50, {}}}, std::vector<int32_t>{0, 1150}, 1);
  world.AddSequence({{chunk, 16, 700, 900, {}}, {chunk, 600, 1100, 1700, {}}}, std::vector<int32_t>{5, 3000, 3001}, 2);
  world.AddSequence({{chunk, 0, 1100, 10, stale}}, std::vector<int32_t>{10, 40, 41, 500, 1000, 1110}, 6);
  const std::vector<float> output = Run(world);
  ExpectEqualsReference(world, *kernels_, output, 0, "shared");
  EXPECT_EQ(Run(world, world.batch(), 0, 1, 0), output);
}

TEST_P(SegmentAttentionTest, UnitsOfWhichARowSeesNothingChangeNothing) {
  AttentionWorld world({.layers = 1, .kv_heads = 1, .head_dim = 32}, 2, kPositions, 6);
  const ChunkKvPtr chunk = world.MakeChunk(600, 0);
  const std::vector<uint32_t> all_stale(PaddedTokens(600) / kTokensPerTile, ~0u);
  const std::vector<int32_t> position{4000};
  world.AddSequence({}, position, 1);
  world.AddSequence({}, position, 1);
  // The second row's private row and query are the first one's; around it stand units that it does not see.
  SequenceKv& first = *world.batch().groups[0].kv;
  SequenceKv& second = *world.batch().groups[1].kv;
  second.plans.front().rows = first.plans.front().rows;
  second.plans.front().shared = {{chunk, 0, 600, 100, all_stale}, {chunk, 0, 600, 4001, {}}};
  std::vector<float> queries = world.queries();
  const auto stride = static_cast<ptrdiff_t>(world.query_stride());
  std::copy_n(queries.begin(), stride, queries.begin() + stride);
  ThreadPool pool(1);
  for (const size_t limit : {SegmentAttention::kPartialBytesMax, size_t{0}}) {
    SegmentAttention attention(world.shape(), world.heads(), kernels_, pool, limit);
    std::vector<float> output(queries.size(), 7);
    AttentionRows rows = world.Rows(output.data());
    rows.queries = queries.data();
    attention.Plan(world.batch(), 0);
    attention.Run(0, rows);
    EXPECT_TRUE(std::equal(output.begin(), output.begin() + stride, output.begin() + stride));
    EXPECT_NE(output[0], 0);
  }
  // A row that sees nothing at all: zeros.
  first.plans.front().shared = {{chunk, 0, 600, 100, all_stale}};
  first.plans.front().rows = PrivateRows(world.shape(), 0, 1);
  for (const size_t limit : {SegmentAttention::kPartialBytesMax, size_t{0}}) {
    const std::vector<float> output = Run(world, world.batch(), 0, 1, limit);
    for (ptrdiff_t i = 0; i < stride; ++i) EXPECT_EQ(output[i], 0);
  }
}

TEST_P(SegmentAttentionTest, APlanHoldsForTheLayersThatShareIt) {
  AttentionWorld world({.layers = 5, .kv_heads = 1, .head_dim = 64}, 3, kPositions, 8);
  const ChunkKvPtr chunk = world.MakeChunk(300, 0);
  const std::vector<int32_t> positions{1, 2, 3, 400, 401};
  world.AddSequence({{chunk, 2, 300, 10, {}}}, positions, 2);
  world.AddSequence({}, positions, 3);
  // The first layers of the second sequence have a plan of their own.
  std::vector<KvPlan> plans;
  plans.push_back(world.MakePlan(0, 2, {}, std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 399, 400, 401}));
  plans.push_back(world.MakePlan(2, 5, {{chunk, 0, 300, 20, {}}}, positions));
  world.batch().groups[1].kv->plans = std::move(plans);
  ThreadPool pool(2);
  SegmentAttention attention(world.shape(), world.heads(), kernels_, pool);
  std::vector<int32_t> planned_at;
  for (int32_t layer = 0; layer < 5; ++layer) {
    if (layer == 0 || layer == attention.layer_end()) {
      attention.Plan(world.batch(), layer);
      planned_at.push_back(layer);
    }
    std::vector<float> output(world.queries().size(), 7);
    attention.Run(layer, world.Rows(output.data()));
    ExpectEqualsReference(world, *kernels_, output, layer, "layer " + std::to_string(layer));
  }
  EXPECT_EQ(planned_at, (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(attention.layer_end(), 5);
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, SegmentAttentionTest,
                         ::testing::Values("avx2", "avx512", "avx512bf16", "amx", "emulated_avx512bf16"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace epic
