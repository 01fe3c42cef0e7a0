// The processor's tile registers: AMX with bf16.
//
// The instructions are written out because the compiler's intrinsics want the registers as literal numbers. Included by
// the instruction sets' source files only, see kernels_impl.h.
#ifndef EPIC_ENGINE_CPU_TILES_AMX_H_
#define EPIC_ENGINE_CPU_TILES_AMX_H_

#include <cstddef>
#include <cstdint>

namespace epic {
namespace {

struct AmxTiles {
  // Tiles of the first and of the second rows of a product: sums 0, 1 and activations 4 have first_rows rows, sums 2, 3
  // and activations 5 second_rows; weights, 6 and 7, have 16. All have rows of 64 bytes. Clears all tiles.
  static void Configure(int first_rows, int second_rows) {
    struct {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    static_assert(sizeof(config) == 64, "the processor reads 64 bytes");
    const int rows[8] = {first_rows, first_rows, second_rows, second_rows, first_rows, second_rows, 16, 16};
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = 64;
      config.rows[i] = static_cast<uint8_t>(rows[i]);
    }
    __asm__ __volatile__("ldtilecfg %0" : : "m"(config));
  }
  // Gives the registers back, so that the system need not save them.
  static void Release() { __asm__ __volatile__("tilerelease" ::: "memory"); }

  template <int kTile>
  static void Zero() {
    __asm__ __volatile__("tilezero %%tmm%c0" : : "i"(kTile));
  }
  template <int kTile>
  static void Load(const void* p, size_t row_stride_bytes) {
    __asm__ __volatile__("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(row_stride_bytes), "i"(kTile) : "memory");
  }
  template <int kTile>
  static void Store(void* p, size_t row_stride_bytes) {
    __asm__ __volatile__("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(row_stride_bytes), "i"(kTile) : "memory");
  }
  // sums += activations * weights.
  template <int kSums, int kActivations, int kWeights>
  static void AddProducts() {
    __asm__ __volatile__("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kActivations), "i"(kWeights));
  }
};

}  // namespace
}  // namespace epic

#endif  // EPIC_ENGINE_CPU_TILES_AMX_H_
