// Weights in the block layouts of GGUF files, as the decode kernels read them: the file's own bytes, row by row.
//
// The cost of a product of few rows is the bytes of its weights, and a quantised file is the smallest form of them that
// loses nothing. A row of `inner` weights is inner / BlockElements blocks without gaps; rows follow one another without
// gaps; nothing is aligned. The layouts are described beside their decoders in block_impl.h.
#ifndef EPIC_ENGINE_CPU_BLOCK_MATRIX_H_
#define EPIC_ENGINE_CPU_BLOCK_MATRIX_H_

#include <cstddef>

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

}  // namespace epic

#endif  // EPIC_ENGINE_CPU_BLOCK_MATRIX_H_
