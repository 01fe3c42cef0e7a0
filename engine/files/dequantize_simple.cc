// Blocks of 32 elements. The loops are written for the vectoriser: fixed trip counts, no branches, no aliasing.
#include "engine/files/dequantize_blocks.h"

namespace epic {

namespace {

constexpr int64_t kBlockElements = 32;

// The fifth bit of element `i`, at its place above the nibble.
inline int FifthBit(uint32_t fifth_bits, int i) { return static_cast<int>((fifth_bits >> i) & 1) << 4; }

inline uint32_t Load32(const uint8_t* bytes) {
  uint32_t value = 0;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

}  // namespace

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

// Block: scale (half), the elements' fifth bits (32, element 0 lowest), 16 bytes as in Q4_0, biased by 16.
void ConvertQ5_0(const uint8_t* __restrict source, int64_t blocks, float* __restrict out) {
  for (int64_t block = 0; block < blocks; ++block, source += 22, out += kBlockElements) {
    const float scale = FloatFromHalf(source);
    const uint32_t fifth = Load32(source + 2);
    for (int i = 0; i < 16; ++i) {
      out[i] = scale * static_cast<float>(((source[6 + i] & 0x0f) | FifthBit(fifth, i)) - 16);
    }
    for (int i = 0; i < 16; ++i) {
      out[16 + i] = scale * static_cast<float>(((source[6 + i] >> 4) | FifthBit(fifth, 16 + i)) - 16);
    }
  }
}

// Block: scale (half), minimum (half), fifth bits and nibbles as in Q5_0, not biased.
void ConvertQ5_1(const uint8_t* __restrict source, int64_t blocks, float* __restrict out) {
  for (int64_t block = 0; block < blocks; ++block, source += 24, out += kBlockElements) {
    const float scale = FloatFromHalf(source);
    const float minimum = FloatFromHalf(source + 2);
    const uint32_t fifth = Load32(source + 4);
    for (int i = 0; i < 16; ++i) {
      out[i] = scale * static_cast<float>((source[8 + i] & 0x0f) | FifthBit(fifth, i)) + minimum;
    }
    for (int i = 0; i < 16; ++i) {
      out[16 + i] = scale * static_cast<float>((source[8 + i] >> 4) | FifthBit(fifth, 16 + i)) + minimum;
    }
  }
}

}  // namespace epic
