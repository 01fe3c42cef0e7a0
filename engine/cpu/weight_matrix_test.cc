// Weights in their two forms: every form holds exactly what the file says, and each row of a batch reads the right one.
#include "engine/cpu/weight_matrix.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "engine/cpu/cpu_backend.h"
#include "engine/files/tiny_model_for_test.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

constexpr uint32_t kStoredQ8_0 = 8;

// The tiny model with its matrices rounded to Q8_0.
GgufBuilder QuantisedTiny(const TinyModel& tiny) {
  GgufBuilder builder = tiny.Gguf();
  for (GgufBuilder::Tensor& tensor : builder.tensors) {
    if (tensor.dimensions.size() != 2) continue;
    const auto* values = reinterpret_cast<const float*>(tensor.bytes.data());
    std::string blocks;
    for (size_t begin = 0; begin < tensor.bytes.size() / sizeof(float); begin += 32) {
      AppendRaw(uint16_t{0x2000}, blocks);  // 2^-7 as a half
      for (size_t i = begin; i < begin + 32; ++i) {
        AppendRaw(static_cast<int8_t>(std::clamp(std::lround(values[i] * 128), -127L, 127L)), blocks);
      }
    }
    tensor.type = kStoredQ8_0;
    tensor.bytes = blocks;
  }
  return builder;
}

class WeightMatrixTest : public ::testing::Test {
 protected:
  void Open(const std::string& bytes) {
    const std::string path = FreshFolder("weights") + "/model.gguf";
    WriteFile(path, bytes);
    absl::StatusOr<std::unique_ptr<ModelFile>> file = OpenModelFile(path);
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    memory_ = *WeightMemory::Create(1 << 20);
  }
  // Row `output` of the sources stacked, in the order of the file but for rotation pairs.
  std::vector<float> Expected(const std::vector<WeightSource>& sources, int output) {
    for (const WeightSource& source : sources) {
      const TensorView& tensor = **file_->Tensor(source.tensor);
      const int rows = static_cast<int>(tensor.RowCount());
      if (output >= rows) {
        output -= rows;
        continue;
      }
      for (int r = 0; r < rows; ++r) {
        if ((source.is_rotated ? HalfSplitRow(r, file_->config().head_dim) : r) != output) continue;
        std::vector<float> row(tensor.RowLength());
        DequantizeRows(tensor, r, r + 1, row);
        return row;
      }
    }
    return {};
  }

  const TinyModel tiny_ = MakeTinyModel();
  std::unique_ptr<ModelFile> file_;
  std::unique_ptr<WeightMemory> memory_;
  ThreadPool pool_{2};
};

const std::vector<WeightSource> kQkv = {{"layers.1.q", true}, {"layers.1.k", true}, {"layers.1.v", false}};

TEST_F(WeightMatrixTest, BothFormsHoldTheRowsOfTheFile) {
  Open(QuantisedTiny(tiny_).Build());
  WeightMatrix matrix;
  ASSERT_TRUE(matrix.Load(*file_, kQkv, WeightUse::kAllRows, *memory_, pool_).ok());
  EXPECT_EQ(matrix.bytes(), *WeightMatrix::BytesOf(*file_, kQkv, WeightUse::kAllRows));
  ASSERT_EQ(matrix.outputs(), 64);
  ASSERT_TRUE(matrix.has_panels());
  ASSERT_EQ(matrix.blocks().size(), 3u);
  const CpuKernels* kernels = CpuKernelsByName("avx2");
  ASSERT_NE(kernels, nullptr);
  // A row of the unit matrix picks one column of the weights out of either form.
  for (int column = 0; column < matrix.inner(); ++column) {
    std::vector<float> unit(matrix.inner());
    unit[column] = 1;
    std::vector<float> by_panels(matrix.padded_outputs()), by_blocks(matrix.padded_outputs());
    kernels->multiply(unit.data(), unit.size(), 1, matrix.panels().Panel(0), matrix.inner(), matrix.panels().panels(),
                      by_panels.data(), by_panels.size(), false);
    std::vector<int16_t> values(matrix.inner());
    std::vector<float> scales(values.size() / kActivationGroup), sums(scales.size());
    RoundForBlocks(unit.data(), matrix.inner(), values.data(), scales.data(), sums.data());
    for (const WeightMatrix::BlockPart& part : matrix.blocks()) {
      MultiplyBlocks(part.format, {values.data(), scales.data(), sums.data()}, 1, part.Row(0, matrix.inner()),
                     matrix.inner(), part.outputs, by_blocks.data() + part.first_output, by_blocks.size(), false);
    }
    for (int output = 0; output < matrix.outputs(); ++output) {
      const float expected = Expected(kQkv, output)[column];
      ASSERT_FLOAT_EQ(by_blocks[output], expected) << output << ", " << column;
      ASSERT_EQ(by_panels[output], FromBf16(ToBf16(expected))) << output << ", " << column;
    }
  }
}

TEST_F(WeightMatrixTest, OneFormIsKeptWhereOneServes) {
  Open(QuantisedTiny(tiny_).Build());
  WeightMatrix few;
  const std::vector<WeightSource> output = {{"output", false}};
  ASSERT_TRUE(few.Load(*file_, output, WeightUse::kFewRows, *memory_, pool_).ok());
  EXPECT_FALSE(few.has_panels());
  EXPECT_TRUE(few.has_blocks());
  EXPECT_EQ(few.bytes(), *WeightMatrix::BytesOf(*file_, output, WeightUse::kFewRows));
  EXPECT_LT(few.bytes(), static_cast<uint64_t>(few.outputs()) * few.inner() * 2);

  Open(tiny_.Gguf().Build());  // float32: no blocks
  WeightMatrix whole;
  ASSERT_TRUE(whole.Load(*file_, kQkv, WeightUse::kAllRows, *memory_, pool_).ok());
  EXPECT_TRUE(whole.has_panels());
  EXPECT_FALSE(whole.has_blocks());
  EXPECT_EQ(whole.bytes(), *WeightMatrix::BytesOf(*file_, kQkv, WeightUse::kAllRows));
}

TEST_F(WeightMatrixTest, MemoryThatIsUsedUpFallsBackToTheHeap) {
  Open(QuantisedTiny(tiny_).Build());
  ASSERT_NE(memory_->Take(2 << 20), nullptr);  // all of it: a mapping is whole huge pages
  EXPECT_EQ(memory_->Take(1), nullptr);
  WeightMatrix matrix;
  ASSERT_TRUE(matrix.Load(*file_, kQkv, WeightUse::kAllRows, *memory_, pool_).ok());
  EXPECT_EQ(matrix.blocks().front().Row(0, matrix.inner()), matrix.blocks().front().bytes.data());
}

// Rows of one sequence through the whole model, the first `decode_rows` of them as next tokens.
std::vector<float> RunModel(CpuBackend& backend, int rows, int decode_rows) {
  SequenceKv kv;
  kv.plans.push_back({0, 2, {}, PrivateRows(backend.kv_shape(), 0, 2)});
  RowBatch batch;
  std::vector<int32_t> ids;
  for (int i = 0; i < rows; ++i) {
    batch.positions.push_back(i);
    ids.push_back(3 + i);
  }
  batch.groups.push_back({&kv, 0, rows});
  batch.decode_rows = decode_rows;
  kv.AppendToAll(batch.positions);
  std::vector<float> hidden(static_cast<size_t>(rows) * backend.config().width);
  backend.Embed(ids, hidden.data());
  backend.RunLayers(batch, 0, 2, false, hidden.data());
  return hidden;
}

TEST_F(WeightMatrixTest, NextTokensReadBlocksAndAllOtherRowsPanels) {
  Open(QuantisedTiny(tiny_).Build());
  const auto backend = CpuBackend::Create(*file_, 2);
  ASSERT_TRUE(backend.ok()) << backend.status();
  constexpr int kRows = 5;
  const std::vector<float> panels = RunModel(**backend, kRows, 0);
  const std::vector<float> blocks = RunModel(**backend, kRows, kRows);
  const std::vector<float> mixed = RunModel(**backend, kRows, 1);
  const auto width = static_cast<size_t>((*backend)->config().width);
  bool differs = false;
  for (size_t i = 0; i < panels.size(); ++i) {
    ASSERT_NEAR(panels[i], blocks[i], 0.02 * (1 + std::abs(panels[i]))) << i;  // bf16 has 8 bits
    differs = differs || panels[i] != blocks[i];
  }
  EXPECT_TRUE(differs) << "both forms gave the same bits: one of them was not used";
  for (size_t i = 0; i < width; ++i) ASSERT_EQ(mixed[i], blocks[i]) << "the first row is a next token";
  EXPECT_FALSE(std::equal(mixed.begin() + static_cast<ptrdiff_t>(width), mixed.end(),
                          blocks.begin() + static_cast<ptrdiff_t>(width)));
}

}  // namespace
}  // namespace epic
