// Super-blocks of 256 elements. The inner loops are written for the vectoriser: 16 or 32 elements that share a scale.
#include <array>

#include "engine/files/dequantize_blocks.h"

namespace epic {

namespace {

constexpr int64_t kBlockElements = 256;

// Scales and minima of eight groups of 32 in 12 bytes, as Q4_K and Q5_K pack them: 6 bits each. Bytes 0-3 and 4-7 hold
// those of groups 0-3 in their low 6 bits; of groups 4-7 the low nibbles are in bytes 8-11 and the high 2 bits on top
// of bytes 0-3 and 4-7.
struct GroupScales {
  std::array<uint8_t, 8> scale;
  std::array<uint8_t, 8> minimum;
};

inline GroupScales UnpackGroupScales(const uint8_t* packed) {
  GroupScales scales{};
  for (size_t i = 0; i < 4; ++i) {
    scales.scale[i] = packed[i] & 0x3f;
    scales.minimum[i] = packed[4 + i] & 0x3f;
    scales.scale[4 + i] = static_cast<uint8_t>((packed[8 + i] & 0x0f) | ((packed[i] >> 2) & 0x30));
    scales.minimum[4 + i] = static_cast<uint8_t>((packed[8 + i] >> 4) | ((packed[4 + i] >> 2) & 0x30));
  }
  return scales;
}

}  // namespace

// Block: 16 bytes of scale (low nibble) and minimum (high nibble) for groups of 16, 64 bytes of 2-bit elements, scale
// and minimum of the block (halves). Each half of the elements takes 32 bytes: elements 0-31 their lowest bits, 32-63
// the next, and so on.
void ConvertQ2_K(const uint8_t* __restrict source, int64_t blocks, float* __restrict out) {
  for (int64_t block = 0; block < blocks; ++block, source += 84, out += kBlockElements) {
    const float block_scale = FloatFromHalf(source + 80);
    const float block_minimum = FloatFromHalf(source + 82);
    for (int group = 0; group < 16; ++group) {
      const float scale = block_scale * static_cast<float>(source[group] & 0x0f);
      const float minimum = block_minimum * static_cast<float>(source[group] >> 4);
      const uint8_t* bits = source + 16 + group / 8 * 32 + group % 2 * 16;
      const int shift = group % 8 / 2 * 2;
      for (int i = 0; i < 16; ++i) {
        out[group * 16 + i] = scale * static_cast<float>((bits[i] >> shift) & 3) - minimum;
      }
    }
  }
}

// Block: 32 bytes of third bits (bit b of byte i is that of element 32 b + i; a clear bit subtracts 4), 64 bytes of
// 2-bit elements as in Q2_K, 12 bytes of sixteen 6-bit scales biased by 32, scale of the block (half). Scales: bytes
// 0-7 hold the low nibbles of 0-7 and 8-15, bytes 8-11 four times 2 high bits each, those of scales 0-3 lowest.
void ConvertQ3_K(const uint8_t* __restrict source, int64_t blocks, float* __restrict out) {
  for (int64_t block = 0; block < blocks; ++block, source += 110, out += kBlockElements) {
    const uint8_t* packed_scales = source + 96;
    const float block_scale = FloatFromHalf(source + 108);
    for (int group = 0; group < 16; ++group) {
      const int low = (packed_scales[group % 8] >> (group / 8 * 4)) & 0x0f;
      const int high = (packed_scales[8 + group % 4] >> (group / 4 * 2)) & 3;
      const float scale = block_scale * static_cast<float>((low | high << 4) - 32);
      const uint8_t* bits = source + 32 + group / 8 * 32 + group % 2 * 16;
      const uint8_t* third_bits = source + group % 2 * 16;
      const int shift = group % 8 / 2 * 2;
      for (int i = 0; i < 16; ++i) {
        const int third = (third_bits[i] >> (group / 2)) & 1;
        out[group * 16 + i] = scale * static_cast<float>(((bits[i] >> shift) & 3) + 4 * third - 4);
      }
    }
  }
}

// Block: scale and minimum (halves), 12 bytes of group scales, 128 bytes of nibbles: of each 32 bytes the low nibbles
// are one group of 32, the high nibbles the next.
void ConvertQ4_K(const uint8_t* __restrict source, int64_t blocks, float* __restrict out) {
  for (int64_t block = 0; block < blocks; ++block, source += 144, out += kBlockElements) {
    const float block_scale = FloatFromHalf(source);
    const float block_minimum = FloatFromHalf(source + 2);
    const GroupScales scales = UnpackGroupScales(source + 4);
    for (int group = 0; group < 8; ++group) {
      const float scale = block_scale * static_cast<float>(scales.scale[static_cast<size_t>(group)]);
      const float minimum = block_minimum * static_cast<float>(scales.minimum[static_cast<size_t>(group)]);
      const uint8_t* nibbles = source + 16 + group / 2 * 32;
      const int shift = group % 2 * 4;
      for (int i = 0; i < 32; ++i) {
        out[group * 32 + i] = scale * static_cast<float>((nibbles[i] >> shift) & 0x0f) - minimum;
      }
    }
  }
}

// Block: as Q4_K, with 32 bytes of fifth bits before the nibbles: bit g of byte i is that of element i in group g.
void ConvertQ5_K(const uint8_t* __restrict source, int64_t blocks, float* __restrict out) {
  for (int64_t block = 0; block < blocks; ++block, source += 176, out += kBlockElements) {
    const float block_scale = FloatFromHalf(source);
    const float block_minimum = FloatFromHalf(source + 2);
    const GroupScales scales = UnpackGroupScales(source + 4);
    const uint8_t* fifth_bits = source + 16;
    for (int group = 0; group < 8; ++group) {
      const float scale = block_scale * static_cast<float>(scales.scale[static_cast<size_t>(group)]);
      const float minimum = block_minimum * static_cast<float>(scales.minimum[static_cast<size_t>(group)]);
      const uint8_t* nibbles = source + 48 + group / 2 * 32;
      const int shift = group % 2 * 4;
      for (int i = 0; i < 32; ++i) {
        const int element = ((nibbles[i] >> shift) & 0x0f) | ((fifth_bits[i] >> group) & 1) << 4;
        out[group * 32 + i] = scale * static_cast<float>(element) - minimum;
      }
    }
  }
}

// Block: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed scales for groups of 16, scale of the block
// (half); elements are biased by 32. Each half of the elements takes 64 bytes of nibbles, the low ones its first 64
// elements, and 32 bytes of pairs, laid out as the elements of Q2_K.
void ConvertQ6_K(const uint8_t* __restrict source, int64_t blocks, float* __restrict out) {
  for (int64_t block = 0; block < blocks; ++block, source += 210, out += kBlockElements) {
    const float block_scale = FloatFromHalf(source + 208);
    for (int group = 0; group < 16; ++group) {
      const float scale = block_scale * static_cast<float>(static_cast<int8_t>(source[192 + group]));
      const int half = group / 8;
      const int within = group % 8;  // of the half's eight groups
      const uint8_t* nibbles = source + half * 64 + within % 4 * 16;
      const int nibble_shift = within / 4 * 4;
      const uint8_t* pairs = source + 128 + half * 32 + within % 2 * 16;
      const int pair_shift = within / 2 * 2;
      for (int i = 0; i < 16; ++i) {
        const int element = ((nibbles[i] >> nibble_shift) & 0x0f) | ((pairs[i] >> pair_shift) & 3) << 4;
        out[group * 16 + i] = scale * static_cast<float>(element - 32);
      }
    }
  }
}

}  // namespace epic
