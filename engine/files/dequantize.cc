// The conversions behind DequantizeRows. The loops are written for the vectoriser: fixed trip counts, no branches, no
// aliasing. The product of a half and a small integer is exact in float, so that only the sum in Q4_1 rounds, and the
// result is the same whether the compiler fuses it with the product or not.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "engine/files/model_file.h"
#include "engine/files/tensor_layout.h"

namespace epic {

namespace {

constexpr int64_t kBlockElements = 32;  // of every quantised type here

inline float FloatFromHalf(const uint8_t* bytes) {
  uint16_t half = 0;
  std::memcpy(&half, bytes, sizeof(half));
  return _cvtsh_ss(half);
}

void ConvertF16(const uint8_t* __restrict source, int64_t count, float* __restrict out) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + 2 * i));
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(halves));
  }
  for (; i < count; ++i) out[i] = FloatFromHalf(source + 2 * i);
}

void ConvertBF16(const uint8_t* __restrict source, int64_t count, float* __restrict out) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t upper = 0;
    std::memcpy(&upper, source + 2 * i, sizeof(upper));
    const uint32_t bits = uint32_t{upper} << 16;
    std::memcpy(out + i, &bits, sizeof(bits));
  }
}

// Block: scale (half), 32 signed bytes.
void ConvertQ8_0(const uint8_t* __restrict source, int64_t blocks, float* __restrict out) {
  for (int64_t block = 0; block < blocks; ++block, source += 34, out += kBlockElements) {
    const float scale = FloatFromHalf(source);
    for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(static_cast<int8_t>(source[2 + i])) * scale;
  }
}

// Block: scale (half), 16 bytes whose low nibbles are elements 0-15 and whose high nibbles are elements 16-31, biased
// by 8.
void ConvertQ4_0(const uint8_t* __restrict source, int64_t blocks, float* __restrict out) {
  for (int64_t block = 0; block < blocks; ++block, source += 18, out += kBlockElements) {
    const float scale = FloatFromHalf(source);
    for (int i = 0; i < 16; ++i) out[i] = scale * static_cast<float>((source[2 + i] & 0x0f) - 8);
    for (int i = 0; i < 16; ++i) out[16 + i] = scale * static_cast<float>((source[2 + i] >> 4) - 8);
  }
}

// Block: scale (half), minimum (half), 16 bytes with the nibbles laid out as in Q4_0, not biased.
void ConvertQ4_1(const uint8_t* __restrict source, int64_t blocks, float* __restrict out) {
  for (int64_t block = 0; block < blocks; ++block, source += 20, out += kBlockElements) {
    const float scale = FloatFromHalf(source);
    const float minimum = FloatFromHalf(source + 2);
    for (int i = 0; i < 16; ++i) out[i] = scale * static_cast<float>(source[4 + i] & 0x0f) + minimum;
    for (int i = 0; i < 16; ++i) out[16 + i] = scale * static_cast<float>(source[4 + i] >> 4) + minimum;
  }
}

}  // namespace

void DequantizeRows(const TensorView& tensor, int64_t row_begin, int64_t row_end, std::span<float> out) {
  const BlockLayout block = BlockLayoutOf(tensor.type);
  const int64_t row_bytes = tensor.RowLength() / block.elements * block.bytes;
  const auto* source = reinterpret_cast<const uint8_t*>(tensor.bytes.data()) + row_begin * row_bytes;
  const int64_t elements = (row_end - row_begin) * tensor.RowLength();
  if (elements == 0) return;
  switch (tensor.type) {
    case TensorType::kF32:
      std::memcpy(out.data(), source, static_cast<size_t>(elements) * sizeof(float));
      return;
    case TensorType::kF16:
      return ConvertF16(source, elements, out.data());
    case TensorType::kBF16:
      return ConvertBF16(source, elements, out.data());
    case TensorType::kQ8_0:
      return ConvertQ8_0(source, elements / block.elements, out.data());
    case TensorType::kQ4_0:
      return ConvertQ4_0(source, elements / block.elements, out.data());
    case TensorType::kQ4_1:
      return ConvertQ4_1(source, elements / block.elements, out.data());
  }
}

}  // namespace epic
