// Conversions of quantised blocks to float, called by DequantizeRows (model_file.h) alone.
//
// Each function converts `blocks` blocks from `source`, of any alignment, to `out`, which has room for all their
// elements; TensorByteCount in tensor_layout.h says how large a block is.
//
// Every result is exactly that of gguf.quants.dequantize, and does not depend on whether the compiler contracts a
// product and a sum into one fused operation: a scale is a half (11 significant bits), the integers that it is
// multiplied with have 13 at most, so that each product is exact in float's 24, and what rounds is at most one sum.
// Pure functions, safe from any thread.
#ifndef EPIC_ENGINE_FILES_DEQUANTIZE_BLOCKS_H_
#define EPIC_ENGINE_FILES_DEQUANTIZE_BLOCKS_H_

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace epic {

inline float FloatFromHalf(const uint8_t* bytes) {
  uint16_t half = 0;
  std::memcpy(&half, bytes, sizeof(half));
  return _cvtsh_ss(half);
}

// Blocks of 32 elements with one scale.
void ConvertQ8_0(const uint8_t* source, int64_t blocks, float* out);
void ConvertQ4_0(const uint8_t* source, int64_t blocks, float* out);
void ConvertQ4_1(const uint8_t* source, int64_t blocks, float* out);
void ConvertQ5_0(const uint8_t* source, int64_t blocks, float* out);
void ConvertQ5_1(const uint8_t* source, int64_t blocks, float* out);

// Super-blocks of 256 elements: 8 or 16 groups, each with a small integer that scales the block's own scale.
void ConvertQ2_K(const uint8_t* source, int64_t blocks, float* out);
void ConvertQ3_K(const uint8_t* source, int64_t blocks, float* out);
void ConvertQ4_K(const uint8_t* source, int64_t blocks, float* out);
void ConvertQ5_K(const uint8_t* source, int64_t blocks, float* out);
void ConvertQ6_K(const uint8_t* source, int64_t blocks, float* out);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_DEQUANTIZE_BLOCKS_H_
