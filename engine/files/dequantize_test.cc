// DequantizeRows against gguf.quants.dequantize, bit for bit. The references and the script that made them are in
// tests/golden/.
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "engine/files/gguf.h"
#include "engine/files/model_file.h"
#include "engine/files/tensor_layout.h"
#include "engine/files/tiny_model_for_test.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

// As the script writes them.
int64_t RowElementsOf(TensorType type) {
  const int64_t block_elements = BlockLayoutOf(type).elements;
  return block_elements == 1 ? 64 : 2 * block_elements;
}

struct Golden {
  std::string blocks;
  std::vector<float> floats;
};

Golden LoadGolden(TensorType type) {
  const char* source_dir = std::getenv("EPIC_SOURCE_DIR");
  if (source_dir == nullptr) ADD_FAILURE() << "EPIC_SOURCE_DIR is not set; run this test through ctest";
  const std::string prefix =
      std::string(source_dir == nullptr ? "." : source_dir) + "/tests/golden/dequantize/" + TensorTypeName(type);
  Golden golden{.blocks = ReadFile(prefix + ".blocks.bin"), .floats = {}};
  const std::string raw = ReadFile(prefix + ".floats.bin");
  golden.floats.resize(raw.size() / sizeof(float));
  std::memcpy(golden.floats.data(), raw.data(), raw.size());
  return golden;
}

TensorView ViewOf(TensorType type, const std::string& blocks, int64_t rows) {
  return {.name = "golden",
          .type = type,
          .shape = {rows, RowElementsOf(type)},
          .bytes = std::as_bytes(std::span(blocks.data(), blocks.size()))};
}

class DequantizeTest : public testing::TestWithParam<TensorType> {};

TEST_P(DequantizeTest, EqualsTheReferenceBitForBit) {
  const Golden golden = LoadGolden(GetParam());
  const auto rows = static_cast<int64_t>(golden.floats.size()) / RowElementsOf(GetParam());
  ASSERT_GE(rows, 8);
  const TensorView tensor = ViewOf(GetParam(), golden.blocks, rows);
  ASSERT_EQ(TensorByteCount(GetParam(), tensor.shape), static_cast<int64_t>(golden.blocks.size()));
  std::vector<float> out(golden.floats.size());
  DequantizeRows(tensor, 0, rows, out);
  for (size_t i = 0; i < out.size(); ++i) {
    ASSERT_EQ(std::memcmp(&out[i], &golden.floats[i], sizeof(float)), 0)
        << "element " << i << ": " << out[i] << " instead of " << golden.floats[i];
  }
}

TEST_P(DequantizeTest, AnyRangeOfRowsAtAnyAlignment) {
  const Golden golden = LoadGolden(GetParam());
  const auto rows = static_cast<int64_t>(golden.floats.size()) / RowElementsOf(GetParam());
  const std::string shifted = "x" + golden.blocks;  // safetensors does not align its tensors
  TensorView tensor = ViewOf(GetParam(), shifted, rows);
  const int64_t row_elements = tensor.RowLength();
  tensor.bytes = tensor.bytes.subspan(1);
  for (int64_t begin = 0; begin <= rows; begin += 3) {
    for (int64_t end = begin; end <= rows; end += 2) {
      std::vector<float> out(static_cast<size_t>((end - begin) * row_elements));
      DequantizeRows(tensor, begin, end, out);
      ASSERT_TRUE(out.empty() ||
                  std::memcmp(out.data(), golden.floats.data() + begin * row_elements, out.size() * sizeof(float)) == 0)
          << "rows " << begin << " to " << end;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllTypes, DequantizeTest, testing::ValuesIn(RunTensorTypes().begin(), RunTensorTypes().end()),
                         [](const testing::TestParamInfo<TensorType>& parameter) {
                           return TensorTypeName(parameter.param);
                         });

TEST(DequantizeF16Test, RowsThatAreNoMultipleOfTheVectorWidth) {
  const std::vector<uint16_t> halves = {0x3c00, 0xbc00, 0x0001, 0x7bff, 0x4000, 0x4200,
                                        0x4400, 0x4500, 0x4600, 0x4700, 0x0000};
  const TensorView tensor{
      .name = "odd", .type = TensorType::kF16, .shape = {1, 11}, .bytes = std::as_bytes(std::span(halves))};
  std::vector<float> out(11);
  DequantizeRows(tensor, 0, 1, out);
  EXPECT_EQ(out, (std::vector<float>{1, -1, 5.9604645e-08f, 65504, 2, 3, 4, 5, 6, 7, 0}));
}

TEST(TensorTypeTest, NumbersAndNamesAreThoseOfTheFormat) {
  for (const TensorType type : RunTensorTypes()) {
    int matches = 0;
    for (uint32_t number = 0; number < 64; ++number) {
      if (TensorTypeFromGguf(number) != type) continue;
      EXPECT_EQ(GgufTensorTypeName(number), TensorTypeName(type));
      ++matches;
    }
    EXPECT_EQ(matches, 1) << TensorTypeName(type);
  }
  EXPECT_EQ(TensorTypeFromGguf(9), std::nullopt);  // Q8_1, which no file of weights has
  EXPECT_EQ(RunTensorTypesText(), "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K and Q6_K");
}

TEST(TensorByteCountTest, RefusesWhatCannotBe) {
  EXPECT_EQ(TensorByteCount(TensorType::kQ4_1, std::vector<int64_t>{2, 64}), 80);
  EXPECT_EQ(TensorByteCount(TensorType::kQ4_1, std::vector<int64_t>{2, 48}), std::nullopt);
  EXPECT_EQ(TensorByteCount(TensorType::kQ6_K, std::vector<int64_t>{2, 512}), 840);
  EXPECT_EQ(TensorByteCount(TensorType::kQ6_K, std::vector<int64_t>{2, 320}), std::nullopt);
  EXPECT_EQ(TensorByteCount(TensorType::kF32, std::vector<int64_t>{}), std::nullopt);
  EXPECT_EQ(TensorByteCount(TensorType::kF32, std::vector<int64_t>{4, 0}), std::nullopt);
  EXPECT_EQ(TensorByteCount(TensorType::kF32, std::vector<int64_t>{-4, 4}), std::nullopt);
  EXPECT_EQ(TensorByteCount(TensorType::kF32, std::vector<int64_t>{int64_t{1} << 40, int64_t{1} << 40}), std::nullopt);
}

}  // namespace
}  // namespace epic
