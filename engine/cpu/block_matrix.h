// Products with weights in the block layouts of GGUF files: the file's own bytes, row by row.
//
// The cost of a product of few rows is the bytes of its weights, and a quantised file is the smallest form of them that
// loses nothing. A row of `inner` weights is inner / BlockElements blocks without gaps; rows follow one another without
// gaps; nothing is aligned. The layouts are described beside their decoders in block_products.cc.
//
// Activations are rounded once a product to 16-bit integers with a scale for every 32 of them, so that the products of
// a group are exact integer arithmetic; what that loses is 1/65534 of a group's largest activation. One implementation,
// for AVX2, serves all instruction sets: memory is the limit.
//
// Pure functions, safe from any thread. They allocate nothing. REQUIRES (all): a processor with AVX2, FMA and F16C.
#ifndef EPIC_ENGINE_CPU_BLOCK_MATRIX_H_
#define EPIC_ENGINE_CPU_BLOCK_MATRIX_H_

#include <cstddef>
#include <cstdint>

namespace epic {

enum class BlockFormat { kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ4_K, kQ5_K, kQ6_K };
inline constexpr BlockFormat kBlockFormats[] = {BlockFormat::kQ4_0, BlockFormat::kQ4_1, BlockFormat::kQ5_0,
                                                BlockFormat::kQ5_1, BlockFormat::kQ8_0, BlockFormat::kQ4_K,
                                                BlockFormat::kQ5_K, BlockFormat::kQ6_K};

constexpr int BlockElements(BlockFormat format) {
  switch (format) {
    case BlockFormat::kQ4_K:
    case BlockFormat::kQ5_K:
    case BlockFormat::kQ6_K:
      return 256;
    default:
      return 32;
  }
}

constexpr size_t BlockBytes(BlockFormat format) {
  switch (format) {
    case BlockFormat::kQ4_0:
      return 18;
    case BlockFormat::kQ4_1:
      return 20;
    case BlockFormat::kQ5_0:
      return 22;
    case BlockFormat::kQ5_1:
      return 24;
    case BlockFormat::kQ8_0:
      return 34;
    case BlockFormat::kQ4_K:
      return 144;
    case BlockFormat::kQ5_K:
      return 176;
    case BlockFormat::kQ6_K:
      return 210;
  }
  return 0;
}

// REQUIRES: `inner` is a multiple of BlockElements(format).
constexpr size_t BlockRowBytes(BlockFormat format, int inner) {
  return static_cast<size_t>(inner / BlockElements(format)) * BlockBytes(format);
}

inline constexpr int kActivationGroup = 32;  // activations with one scale

// Rows of activations, rounded. Row r of a product with inner dimension n stands at values + r * n, its scales and sums
// at scales + r * n / 32 and sums + r * n / 32.
struct BlockActivations {
  const int16_t* values = nullptr;
  const float* scales = nullptr;  // activation = value * scale
  const float* sums = nullptr;    // of a group's activations, as rounded
};

// Rounds one row of `inner` activations, a multiple of kActivationGroup, to nearest and ties to even. A group with an
// infinity or a NaN gets NaN for its scale and sum, and so does every result that it is part of.
void RoundForBlocks(const float* x, int inner, int16_t* values, float* scales, float* sums);

// c[r * c_stride + o] (+)= activations of row r times weights of row o, for `rows` rows of activations and `outputs`
// rows of BlockRowBytes(format, inner) bytes of weights. A result depends on its own row of activations and its own row
// of weights alone, to the last bit: groups are added in ascending order, whatever the number of rows.
// REQUIRES: `inner` is a multiple of BlockElements(format).
void MultiplyBlocks(BlockFormat format, const BlockActivations& activations, int rows, const std::byte* weights,
                    int inner, int outputs, float* c, size_t c_stride, bool accumulate);

}  // namespace epic

#endif  // EPIC_ENGINE_CPU_BLOCK_MATRIX_H_
