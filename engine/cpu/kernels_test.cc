// Every kernel of every instruction set that this processor runs, against naive double-precision references.
#include "engine/cpu/kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "engine/cpu/packed_matrix.h"

namespace epic {
namespace {

class KernelsTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    kernels_ = CpuKernelsByName(GetParam());
    if (kernels_ == nullptr) GTEST_SKIP() << "this processor does not run " << GetParam();
  }
  float Uniform(float low, float high) { return std::uniform_real_distribution<float>(low, high)(generator_); }
  int Integer(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator_); }
  std::vector<float> Random(size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = Uniform(-1, 1);
    return values;
  }

  const CpuKernels* kernels_ = nullptr;
  std::mt19937 generator_{12345};
};

TEST_P(KernelsTest, ProductsEqualTheReferenceForEveryTileShape) {
  for (const int rows : {1, 2, 3, 5, 6, 7, 12, 13, 25, 96}) {
    for (const int outputs : {16, 32, 48, 64, 80, 144}) {
      const int inner = Integer(1, 200);
      PackedMatrix matrix(outputs, inner);
      std::vector<float> weights = Random(static_cast<size_t>(outputs) * inner);
      for (float& weight : weights) weight = FromBf16(ToBf16(weight));
      for (int o = 0; o < outputs; ++o) matrix.SetRow(o, weights.data() + static_cast<size_t>(o) * inner);
      const std::vector<float> a = Random(static_cast<size_t>(rows) * inner);
      const std::vector<float> before = Random(static_cast<size_t>(rows) * outputs);
      for (const bool accumulate : {false, true}) {
        std::vector<float> c = before;
        kernels_->multiply(a.data(), inner, rows, matrix.Panel(0), inner, matrix.panels(), c.data(), outputs,
                           accumulate);
        for (int r = 0; r < rows; ++r) {
          for (int o = 0; o < outputs; ++o) {
            double expected = accumulate ? before[r * outputs + o] : 0;
            for (int k = 0; k < inner; ++k) {
              expected += static_cast<double>(a[static_cast<size_t>(r) * inner + k]) *
                          weights[static_cast<size_t>(o) * inner + k];
            }
            ASSERT_NEAR(c[r * outputs + o], expected, 1e-4) << rows << " rows, " << outputs << " outputs, " << inner;
          }
        }
      }
    }
  }
}

TEST_P(KernelsTest, ARowOfAProductDoesNotDependOnTheOthers) {
  constexpr int kInner = 331, kOutputs = 144, kRows = 40;
  PackedMatrix matrix(kOutputs, kInner);
  for (int o = 0; o < kOutputs; ++o) matrix.SetRow(o, Random(kInner).data());
  const std::vector<float> a = Random(kRows * kInner);
  std::vector<float> together(kRows * kOutputs);
  kernels_->multiply(a.data(), kInner, kRows, matrix.Panel(0), kInner, matrix.panels(), together.data(), kOutputs,
                     false);
  for (const int count : {1, 2, 3, 7, 11}) {
    for (int begin = 0; begin + count <= kRows; begin += count) {
      std::vector<float> alone(count * kOutputs);
      kernels_->multiply(a.data() + begin * kInner, kInner, count, matrix.Panel(0), kInner, matrix.panels(),
                         alone.data(), kOutputs, false);
      for (int i = 0; i < count * kOutputs; ++i) ASSERT_EQ(alone[i], together[begin * kOutputs + i]);
    }
  }
}

TEST_P(KernelsTest, NormAndActivationEqualTheReference) {
  for (const int width : {16, 33, 96, 576}) {
    const std::vector<float> x = Random(width), weight = Random(width), up = Random(width);
    std::vector<float> out(width);
    kernels_->rms_norm(x.data(), weight.data(), width, 1e-5f, out.data());
    double squares = 0;
    for (const float v : x) squares += static_cast<double>(v) * v;
    for (int i = 0; i < width; ++i) {
      ASSERT_NEAR(out[i], x[i] / std::sqrt(squares / width + 1e-5) * weight[i], 1e-5);
    }
    std::vector<float> gate(width);
    for (float& g : gate) g = Uniform(-100, 100);
    kernels_->silu_multiply(gate.data(), up.data(), width, out.data());
    for (int i = 0; i < width; ++i) {
      const double expected = gate[i] / (1 + std::exp(-static_cast<double>(gate[i]))) * up[i];
      ASSERT_NEAR(out[i], expected, 1e-5 * (1 + std::abs(expected)));
    }
  }
}

// Random segment plans: chunks at offsets, with stale heads, skipped rows, padding, first positions, and private pages.
struct RandomSegment {
  int tokens = 0;
  int row_begin = 0;
  int row_end = 0;
  int query_shift = 0;
  std::vector<uint16_t> keys, values;  // one run
  std::vector<uint32_t> skip;
  std::vector<int32_t> limits;
};

class SegmentAttentionTest : public KernelsTest {
 protected:
  static constexpr int kPositions = 4096;

  void BuildRotation(int dim) {
    cosine_.resize(kPositions * dim / 2);
    sine_.resize(cosine_.size());
    for (int p = 0; p < kPositions; ++p) {
      for (int i = 0; i < dim / 2; ++i) {
        const double angle = p * std::pow(10000.0, -2.0 * i / dim);
        cosine_[p * dim / 2 + i] = static_cast<float>(std::cos(angle));
        sine_[p * dim / 2 + i] = static_cast<float>(std::sin(angle));
      }
    }
  }

  RandomSegment MakeSegment(int dim, const std::vector<int32_t>& positions) {
    RandomSegment segment;
    segment.tokens = Integer(1, 150);
    segment.row_end = Integer(1, segment.tokens);
    segment.row_begin = Integer(0, segment.row_end - 1);
    const int padded = (segment.tokens + 31) / 32 * 32;
    segment.keys.assign(static_cast<size_t>(padded) * dim, 0);
    segment.values.assign(static_cast<size_t>(padded) * dim, 0);
    for (int j = 0; j < segment.tokens; ++j) {
      for (int d = 0; d < dim; ++d) {
        segment.keys[static_cast<size_t>(j / 16 * 16) * dim + d * 16 + j % 16] = ToBf16(Uniform(-2, 2));
        segment.values[static_cast<size_t>(j) * dim + d] = ToBf16(Uniform(-1, 1));
      }
    }
    if (Integer(0, 1) == 1) {
      segment.skip.assign(padded / 32, 0);
      for (uint32_t& word : segment.skip) word = generator_();
    }
    segment.query_shift = Integer(-positions.front(), 500);
    int limit = Integer(0, segment.tokens / 2);
    for (size_t r = 0; r < positions.size(); ++r) {
      segment.limits.push_back(std::min(limit, segment.row_end));
      limit += Integer(0, 20);
    }
    return segment;
  }

  // softmax(rotated q . k / sqrt(dim)) v in double, row by row.
  std::vector<double> Reference(const std::vector<float>& query, int dim, int position, size_t row,
                                const std::vector<RandomSegment>& segments) {
    std::vector<double> scores, out(dim, 0);
    std::vector<const uint16_t*> values;
    for (const RandomSegment& segment : segments) {
      for (int j = segment.row_begin; j < std::min(segment.row_end, segment.limits[row]); ++j) {
        if (!segment.skip.empty() && (segment.skip[j / 32] >> (j % 32) & 1u) != 0) continue;
        double score = 0;
        for (int i = 0; i < dim / 2; ++i) {
          const double angle = (position + segment.query_shift) * std::pow(10000.0, -2.0 * i / dim);
          const double low = query[i] * std::cos(angle) - query[i + dim / 2] * std::sin(angle);
          const double high = query[i + dim / 2] * std::cos(angle) + query[i] * std::sin(angle);
          const auto key = [&](int d) {
            return static_cast<double>(
                FromBf16(segment.keys[static_cast<size_t>(j / 16 * 16) * dim + d * 16 + j % 16]));
          };
          score += low * key(i) + high * key(i + dim / 2);
        }
        scores.push_back(score / std::sqrt(dim));
        values.push_back(segment.values.data() + static_cast<size_t>(j) * dim);
      }
    }
    double top = -HUGE_VAL, total = 0;
    for (const double score : scores) top = std::max(top, score);
    for (size_t i = 0; i < scores.size(); ++i) {
      const double weight = std::exp(scores[i] - top);
      total += weight;
      for (int d = 0; d < dim; ++d) out[d] += weight * FromBf16(values[i][d]);
    }
    for (double& value : out) value = total > 0 ? value / total : 0;
    return out;
  }

  std::vector<float> cosine_, sine_;
};

TEST_P(SegmentAttentionTest, EqualsANaiveReferenceForRandomSegmentPlans) {
  for (int round = 0; round < 60; ++round) {
    const int dim = std::vector<int>{16, 32, 48, 64, 128}[Integer(0, 4)];
    const int group = Integer(1, 5);
    BuildRotation(dim);
    std::vector<int32_t> positions{Integer(0, 2000)};
    const int rows = Integer(1, kAttentionRowsMax);
    while (static_cast<int>(positions.size()) < rows) positions.push_back(positions.back() + Integer(1, 50));
    std::vector<RandomSegment> segments;
    const int count = Integer(1, 6);
    for (int s = 0; s < count; ++s) segments.push_back(MakeSegment(dim, positions));

    std::vector<AttentionRun> runs;
    for (const RandomSegment& s : segments) {
      runs.push_back(
          {s.keys.data(), s.values.data(), s.row_begin, s.row_end, 0, s.skip.empty() ? nullptr : s.skip.data()});
    }
    std::vector<AttentionSegment> views;
    for (size_t s = 0; s < segments.size(); ++s)
      views.push_back({&runs[s], 1, segments[s].query_shift, segments[s].limits.data()});
    const std::vector<float> queries = Random(static_cast<size_t>(rows) * group * dim);
    std::vector<float> scaled = queries;
    for (float& q : scaled) q *= 3;
    std::vector<float> output(scaled.size(), 7);
    std::vector<float> scratch(AttentionScratchFloats(group, dim));
    AttentionBlock block;
    block.rows = rows;
    block.group = group;
    block.head_dim = dim;
    block.queries = scaled.data();
    block.output = output.data();
    block.row_stride = block.output_stride = static_cast<size_t>(group) * dim;
    block.positions = positions.data();
    block.rope_cos = cosine_.data();
    block.rope_sin = sine_.data();
    block.segments = views.data();
    block.segment_count = static_cast<int32_t>(views.size());
    block.scratch = scratch.data();
    kernels_->attend(block);
    for (int r = 0; r < rows; ++r) {
      for (int g = 0; g < group; ++g) {
        const size_t at = (static_cast<size_t>(r) * group + g) * dim;
        const std::vector<float> query(scaled.begin() + static_cast<ptrdiff_t>(at),
                                       scaled.begin() + static_cast<ptrdiff_t>(at) + dim);
        const std::vector<double> expected = Reference(query, dim, positions[r], r, segments);
        for (int d = 0; d < dim; ++d) {
          ASSERT_NEAR(output[at + d], expected[d], 2e-5)
              << "round " << round << " row " << r << " head " << g << " dimension " << d;
        }
      }
    }
  }
}

TEST_P(SegmentAttentionTest, ARowDoesNotDependOnTheOthersInItsBlock) {
  constexpr int kDim = 64, kGroup = 3;
  BuildRotation(kDim);
  std::vector<int32_t> positions;
  for (int r = 0; r < kAttentionRowsMax; ++r) positions.push_back(100 + 3 * r);
  std::vector<RandomSegment> segments;
  for (int s = 0; s < 4; ++s) segments.push_back(MakeSegment(kDim, positions));
  const std::vector<float> queries = Random(positions.size() * kGroup * kDim);
  std::vector<float> scratch(AttentionScratchFloats(kGroup, kDim));
  const auto run = [&](int first, int rows) {
    std::vector<AttentionRun> runs;
    std::vector<AttentionSegment> views;
    for (const RandomSegment& s : segments) {
      runs.push_back(
          {s.keys.data(), s.values.data(), s.row_begin, s.row_end, 0, s.skip.empty() ? nullptr : s.skip.data()});
    }
    for (size_t s = 0; s < segments.size(); ++s)
      views.push_back({&runs[s], 1, segments[s].query_shift, segments[s].limits.data() + first});
    std::vector<float> output(static_cast<size_t>(rows) * kGroup * kDim);
    AttentionBlock block;
    block.rows = rows;
    block.group = kGroup;
    block.head_dim = kDim;
    block.queries = queries.data() + static_cast<size_t>(first) * kGroup * kDim;
    block.output = output.data();
    block.row_stride = block.output_stride = static_cast<size_t>(kGroup) * kDim;
    block.positions = positions.data() + first;
    block.rope_cos = cosine_.data();
    block.rope_sin = sine_.data();
    block.segments = views.data();
    block.segment_count = static_cast<int32_t>(views.size());
    block.scratch = scratch.data();
    kernels_->attend(block);
    return output;
  };
  const std::vector<float> together = run(0, kAttentionRowsMax);
  for (int r = 0; r < kAttentionRowsMax; ++r) {
    const std::vector<float> alone = run(r, 1);
    for (size_t i = 0; i < alone.size(); ++i) ASSERT_EQ(alone[i], together[static_cast<size_t>(r) * kGroup * kDim + i]);
  }
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, KernelsTest, ::testing::Values("avx2", "avx512"),
                         [](const auto& param) { return std::string(param.param); });
INSTANTIATE_TEST_SUITE_P(InstructionSets, SegmentAttentionTest, ::testing::Values("avx2", "avx512"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace epic
