// DequantizeRows: plain floats here, blocks in dequantize_simple.cc and dequantize_k.cc.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "engine/files/dequantize_blocks.h"
#include "engine/files/model_file.h"
#include "engine/files/tensor_layout.h"

namespace epic {

namespace {

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

}  // namespace

void DequantizeRows(const TensorView& tensor, int64_t row_begin, int64_t row_end, std::span<float> out) {
  const BlockLayout block = BlockLayoutOf(tensor.type);
  const int64_t row_bytes = tensor.RowLength() / block.elements * block.bytes;
  const auto* source = reinterpret_cast<const uint8_t*>(tensor.bytes.data()) + row_begin * row_bytes;
  const int64_t elements = (row_end - row_begin) * tensor.RowLength();
  if (elements == 0) return;
  const int64_t blocks = elements / block.elements;
  switch (tensor.type) {
    case TensorType::kF32:
      std::memcpy(out.data(), source, static_cast<size_t>(elements) * sizeof(float));
      return;
    case TensorType::kF16:
      return ConvertF16(source, elements, out.data());
    case TensorType::kBF16:
      return ConvertBF16(source, elements, out.data());
    case TensorType::kQ8_0:
      return ConvertQ8_0(source, blocks, out.data());
    case TensorType::kQ4_0:
      return ConvertQ4_0(source, blocks, out.data());
    case TensorType::kQ4_1:
      return ConvertQ4_1(source, blocks, out.data());
    case TensorType::kQ5_0:
      return ConvertQ5_0(source, blocks, out.data());
    case TensorType::kQ5_1:
      return ConvertQ5_1(source, blocks, out.data());
    case TensorType::kQ2_K:
      return ConvertQ2_K(source, blocks, out.data());
    case TensorType::kQ3_K:
      return ConvertQ3_K(source, blocks, out.data());
    case TensorType::kQ4_K:
      return ConvertQ4_K(source, blocks, out.data());
    case TensorType::kQ5_K:
      return ConvertQ5_K(source, blocks, out.data());
    case TensorType::kQ6_K:
      return ConvertQ6_K(source, blocks, out.data());
  }
}

}  // namespace epic
