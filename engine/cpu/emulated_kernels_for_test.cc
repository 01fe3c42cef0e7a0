#include "engine/cpu/emulated_kernels_for_test.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "engine/cpu/kernels_impl.h"
#include "engine/cpu/packed_matrix.h"
#include "engine/cpu/tile_product_impl.h"

namespace epic {
namespace {

// The first of a pair is in the low half.
float First(uint32_t pair) { return FromBf16(static_cast<uint16_t>(pair)); }
float Second(uint32_t pair) { return FromBf16(static_cast<uint16_t>(pair >> 16)); }

struct Emulated {
  static constexpr int kWidth = 16;
  static constexpr int kTileRows = 12;
  static constexpr const char* kName = "emulated_avx512bf16";

  struct V {
    float lane[kWidth];
  };
  struct I {
    uint32_t lane[kWidth];
  };
  template <typename F>
  static V Floats(const F& f) {
    V v;
    for (int i = 0; i < kWidth; ++i) v.lane[i] = f(i);
    return v;
  }
  template <typename F>
  static I Ints(const F& f) {
    I v;
    for (int i = 0; i < kWidth; ++i) v.lane[i] = static_cast<uint32_t>(f(i));
    return v;
  }

  static V Zero() { return Set(0); }
  static V Set(float x) {
    return Floats([&](int) { return x; });
  }
  static V Load(const float* p) {
    return Floats([&](int i) { return p[i]; });
  }
  static void Store(float* p, V v) { std::copy_n(v.lane, kWidth, p); }
  static V LoadBf16(const uint16_t* p) {
    return Floats([&](int i) { return FromBf16(p[i]); });
  }
  static V Add(V a, V b) {
    return Floats([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static V Sub(V a, V b) {
    return Floats([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static V Mul(V a, V b) {
    return Floats([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static V Div(V a, V b) {
    return Floats([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  static V Max(V a, V b) {
    return Floats([&](int i) { return std::max(a.lane[i], b.lane[i]); });
  }
  static V Fma(V a, V b, V c) {
    return Floats([&](int i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
  }
  static V FmaInPlace(V a, V b, V c) { return Fma(a, b, c); }
  static V Exp(V x) {
    return Floats([&](int i) { return x.lane[i] < -87.3365478515625f ? 0.0f : std::exp(x.lane[i]); });
  }
  static V Exp2(V x) {
    return Floats([&](int i) { return x.lane[i] < -126.5f ? 0.0f : std::exp2(x.lane[i]); });
  }
  static V Select(uint32_t bits, V a, V b) {
    return Floats([&](int i) { return (bits >> i & 1u) != 0 ? a.lane[i] : b.lane[i]; });
  }
  static float First(V v) { return v.lane[0]; }
  static float SumLanes(V v) {
    for (int half = kWidth / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) v.lane[i] += v.lane[i + half];
    }
    return v.lane[0];
  }
  static float MaxLanes(V v) { return *std::max_element(v.lane, v.lane + kWidth); }

  static I LoadInts(const void* p) {
    I v;
    std::memcpy(v.lane, p, sizeof(v.lane));
    return v;
  }
  static V FirstOfPairs(I pairs) {
    return Floats([&](int i) { return epic::First(pairs.lane[i]); });
  }
  static V SecondOfPairs(I pairs) {
    return Floats([&](int i) { return Second(pairs.lane[i]); });
  }

  static I SetPair(const uint16_t* p) {
    return Ints([&](int) { return p[0] | static_cast<uint32_t>(p[1]) << 16; });
  }
  // VDPBF16PS: the second of a pair first, each rounded.
  static V DotPairs(I a, I b, V sum) {
    return Floats([&](int i) {
      const float second = std::fma(Second(a.lane[i]), Second(b.lane[i]), sum.lane[i]);
      return std::fma(epic::First(a.lane[i]), epic::First(b.lane[i]), second);
    });
  }
  static void StoreRounded(uint16_t* p, V v) { std::transform(v.lane, v.lane + kWidth, p, ToBf16); }
};

// Eight tiles of up to 16 rows of 64 bytes. Only what is configured is read and written, and nothing after Release.
struct EmulatedTiles {
  struct Tile {
    int rows = 0;
    std::byte bytes[16][64] = {};

    float Sum(int row, int column) const {
      float value = 0;
      std::memcpy(&value, bytes[row] + column * sizeof(float), sizeof(value));
      return value;
    }
    uint32_t Pair(int row, int pair) const {
      uint32_t value = 0;
      std::memcpy(&value, bytes[row] + pair * sizeof(value), sizeof(value));
      return value;
    }
  };
  static thread_local Tile tiles[8];

  static void Configure(int first_rows, int second_rows) {
    const int rows[8] = {first_rows, first_rows, second_rows, second_rows, first_rows, second_rows, 16, 16};
    for (int i = 0; i < 8; ++i) tiles[i] = Tile{rows[i]};
  }
  static void Release() {
    for (Tile& tile : tiles) tile = Tile{};
  }
  template <int kTile>
  static void Zero() {
    tiles[kTile] = Tile{tiles[kTile].rows};
  }
  template <int kTile>
  static void Load(const void* p, size_t row_stride_bytes) {
    for (int r = 0; r < tiles[kTile].rows; ++r) {
      std::memcpy(tiles[kTile].bytes[r], static_cast<const std::byte*>(p) + r * row_stride_bytes, 64);
    }
  }
  template <int kTile>
  static void Store(void* p, size_t row_stride_bytes) {
    for (int r = 0; r < tiles[kTile].rows; ++r) {
      std::memcpy(static_cast<std::byte*>(p) + r * row_stride_bytes, tiles[kTile].bytes[r], 64);
    }
  }
  template <int kSums, int kActivations, int kWeights>
  static void AddProducts() {
    const Tile& a = tiles[kActivations];
    const Tile& b = tiles[kWeights];
    for (int r = 0; r < tiles[kSums].rows; ++r) {
      for (int column = 0; column < 16; ++column) {
        float sum = tiles[kSums].Sum(r, column);
        for (int pair = 0; pair < b.rows; ++pair) {
          sum = std::fma(First(a.Pair(r, pair)), First(b.Pair(pair, column)), sum);
          sum = std::fma(Second(a.Pair(r, pair)), Second(b.Pair(pair, column)), sum);
        }
        std::memcpy(tiles[kSums].bytes[r] + column * sizeof(float), &sum, sizeof(sum));
      }
    }
  }
};
thread_local EmulatedTiles::Tile EmulatedTiles::tiles[8];

constexpr CpuKernels MakeEmulatedAmx() {
  CpuKernels kernels = MakeRoundingKernels<Emulated>();
  kernels.name = "emulated_amx";
  kernels.multiply_rounded = &MultiplyRoundedByTiles<EmulatedTiles>;
  return kernels;
}

constexpr CpuKernels kEmulatedAvx512Bf16Kernels = MakeRoundingKernels<Emulated>();
constexpr CpuKernels kEmulatedAmxKernels = MakeEmulatedAmx();

}  // namespace

const CpuKernels* KernelsForTest(const char* name) {
  for (const CpuKernels* kernels : {&kEmulatedAvx512Bf16Kernels, &kEmulatedAmxKernels}) {
    if (std::strcmp(name, kernels->name) == 0) return kernels;
  }
  return CpuKernelsByName(name);
}

}  // namespace epic
