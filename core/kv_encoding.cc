#include "core/kv_encoding.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {
namespace {

constexpr std::array<std::pair<KvDtype, std::string_view>, 3> kDtypeNames = {
    {{KvDtype::kBf16, "bf16"}, {KvDtype::kFp16, "fp16"}, {KvDtype::kInt8, "int8"}}};

constexpr uint32_t kFloatSign = 0x80000000u;
constexpr uint16_t kBf16Infinity = 0x7f80;
constexpr uint16_t kFp16Infinity = 0x7c00;
constexpr float kCodeMax = 127;
constexpr float kBf16Max = 0x1.fep127F;
// The least magnitude that rounds to no finite fp16: half a step above 65,504.
constexpr uint32_t kFp16OverflowBits = std::bit_cast<uint32_t>(65520.0F);

// All loops below are plain ones over contiguous arrays, without branches, for the compiler to vectorise. Magnitudes
// are compared as integers, which order as the floats do; comparing floats would have to mind NaN.

float FromBf16(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

float FromFp16(uint16_t bits) {
  // Moving the exponent by a product is exact and makes normal numbers of fp16's subnormal ones.
  const float magnitude = std::bit_cast<float>(static_cast<uint32_t>(bits & 0x7fff) << 13) * 0x1p112F;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | static_cast<uint32_t>(bits & 0x8000) << 16);
}

uint16_t ToBf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

uint16_t ToFp16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & ~kFloatSign;
  // Below fp16's normal numbers its step is 2^-24, the step of float32 from 0.5 on: that sum rounds as fp16 would.
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3f000000u;
  const uint32_t normal = (magnitude + 0xfff + (magnitude >> 13 & 1) - (112u << 23)) >> 13;
  const uint32_t is_normal = -static_cast<uint32_t>(magnitude >= 0x38800000u);  // 2^-14
  return static_cast<uint16_t>((normal & is_normal) | (subnormal & ~is_normal) | (bits >> 16 & 0x8000));
}

// Nearest integer, ties to even, of a number below 2^22: adding 1.5 x 2^23 leaves no bits for a fraction.
int32_t RoundToInteger(float value) {
  return static_cast<int32_t>(std::bit_cast<uint32_t>(value + 0x1.8p23F) - std::bit_cast<uint32_t>(0x1.8p23F));
}

bool AllFinite(const uint16_t* from, size_t count, uint16_t infinity) {
  int16_t largest = 0;
  for (size_t i = 0; i < count; ++i) largest = std::max(largest, static_cast<int16_t>(from[i] & 0x7fff));
  return largest < infinity;
}

int8_t LeastCode(const int8_t* from, size_t count) {
  int8_t least = 0;
  for (size_t i = 0; i < count; ++i) least = std::min(least, from[i]);
  return least;
}

uint32_t LargestBits(const float* from, size_t count) {
  uint32_t largest = 0;
  for (size_t i = 0; i < count; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(from[i]));
  return largest;
}

void ToFloats(KvDtype dtype, const uint16_t* from, size_t count, float* to) {
  if (dtype == KvDtype::kBf16) {
    for (size_t i = 0; i < count; ++i) to[i] = FromBf16(from[i]);
  } else {
    for (size_t i = 0; i < count; ++i) to[i] = FromFp16(from[i]);
  }
}

void FromFloats(KvDtype dtype, const float* from, size_t count, uint16_t* to) {
  if (dtype == KvDtype::kBf16) {
    for (size_t i = 0; i < count; ++i) to[i] = ToBf16(from[i]);
  } else {
    for (size_t i = 0; i < count; ++i) to[i] = ToFp16(from[i]);
  }
}

// Raises each of `largest` to the bits of the magnitude beside it.
void RaiseToMagnitudes(const float* from, size_t count, int32_t* largest) {
  for (size_t i = 0; i < count; ++i) {
    largest[i] = std::max(largest[i], static_cast<int32_t>(std::bit_cast<uint32_t>(from[i]) & ~kFloatSign));
  }
}

float ScaleOf(int32_t largest_bits) { return std::bit_cast<float>(largest_bits) / kCodeMax; }
// With scale 0 every value is 0.
float DivisorOf(float scale) { return scale == 0 ? 1 : scale; }

// The quotient is at most 127 and the last bits of two roundings, so that no code is beyond 127.
void Quantise(const float* from, const float* divisors, size_t count, int8_t* to) {
  for (size_t i = 0; i < count; ++i) to[i] = static_cast<int8_t>(RoundToInteger(from[i] / divisors[i]));
}

void Dequantise(const int8_t* from, const float* scales, size_t count, float* to) {
  for (size_t i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]) * scales[i];
}

// One block on its way to another dtype. Works on runs that hold each scale in one place: 16 keys of a head, which lie
// [dimension / 2][16][2], and two values of a head, which lie [dimension][2].
class BlockEncoder {
 public:
  BlockEncoder(const KvBlockView& source, KvDtype target, KvBlockWriter* writer)
      : source_(source),
        writer_(*writer),
        from_(source.info().shape.dtype),
        to_(target),
        heads_(source.info().shape.kv_heads),
        head_dim_(source.info().shape.head_dim),
        padded_tokens_(source.padded_tokens()),
        key_run_(static_cast<size_t>(kTokensPerKeyRow) * head_dim_),
        value_run_(2 * static_cast<size_t>(head_dim_)),
        floats_(key_run_),
        scales_(key_run_),
        largest_(key_run_) {}

  absl::Status EncodeLayer(int32_t layer) {
    if (from_ == to_) {
      const std::span<const std::byte> bytes = source_.LayerBytes(layer);
      std::memcpy(writer_.LayerBytes(layer).data(), bytes.data(), bytes.size());
      return absl::OkStatus();
    }
    EPIC_RETURN_IF_ERROR(CheckLayer(layer));
    if (from_ == KvDtype::kInt8) return DecodeLayer(layer);
    if (to_ == KvDtype::kInt8) {
      for (int32_t head = 0; head < heads_; ++head) {
        QuantiseKeys(layer, head);
        QuantiseValues(layer, head);
      }
      return absl::OkStatus();
    }
    const size_t elements = HeadElements() * heads_;
    EPIC_RETURN_IF_ERROR(Convert(layer, source_.Keys(layer), elements, writer_.Keys(layer)));
    return Convert(layer, source_.Values(layer), elements, writer_.Values(layer));
  }

 private:
  size_t HeadElements() const { return static_cast<size_t>(padded_tokens_) * head_dim_; }

  absl::Status LayerError(absl::StatusCode code, int32_t layer, std::string_view what) const {
    return absl::Status(
        code, fmt::format("layer {} of chunk {} in {} {}", layer, source_.info().key.Hex(), KvDtypeName(from_), what));
  }

  // The values of the layer are finite, and stay so in bf16.
  absl::Status CheckLayer(int32_t layer) const {
    const size_t elements = HeadElements() * heads_;
    if (from_ != KvDtype::kInt8) {
      const uint16_t infinity = from_ == KvDtype::kBf16 ? kBf16Infinity : kFp16Infinity;
      if (AllFinite(source_.Keys(layer), elements, infinity) && AllFinite(source_.Values(layer), elements, infinity)) {
        return absl::OkStatus();
      }
      return LayerError(absl::StatusCode::kDataLoss, layer, "holds an infinity or NaN; compile the chunk again");
    }
    // The bits of what is negative or not finite are above those of each good scale.
    const uint32_t largest_scale =
        std::max(LargestBits(source_.KeyScales(layer), static_cast<size_t>(heads_) * head_dim_),
                 LargestBits(source_.ValueScales(layer), static_cast<size_t>(heads_) * padded_tokens_));
    if (largest_scale > std::bit_cast<uint32_t>(kBf16Max / kCodeMax)) {
      return LayerError(absl::StatusCode::kDataLoss, layer,
                        fmt::format("has the scale {}, expected one from 0 to {}; compile the chunk again",
                                    std::bit_cast<float>(largest_scale), kBf16Max / kCodeMax));
    }
    if (LeastCode(source_.KeyCodes(layer), elements) == -128 ||
        LeastCode(source_.ValueCodes(layer), elements) == -128) {
      return LayerError(absl::StatusCode::kDataLoss, layer,
                        "has the code -128, expected -127 to 127; compile the chunk again");
    }
    return absl::OkStatus();
  }

  absl::Status Convert(int32_t layer, const uint16_t* from, size_t count, uint16_t* to) {
    for (size_t done = 0; done < count; done += key_run_) {  // whole runs: tokens are padded
      ToFloats(from_, from + done, key_run_, floats_.data());
      EPIC_RETURN_IF_ERROR(Store(layer, key_run_, to + done));
    }
    return absl::OkStatus();
  }

  absl::Status Store(int32_t layer, size_t count, uint16_t* to) {
    if (to_ == KvDtype::kFp16) {
      int32_t largest = 0;
      for (size_t i = 0; i < count; ++i) {
        largest = std::max(largest, static_cast<int32_t>(std::bit_cast<uint32_t>(floats_[i]) & ~kFloatSign));
      }
      if (static_cast<uint32_t>(largest) >= kFp16OverflowBits) {
        return LayerError(absl::StatusCode::kOutOfRange, layer,
                          fmt::format("holds the magnitude {}, fp16 ends at 65504; keep the chunk as bf16 or int8",
                                      std::bit_cast<float>(largest)));
      }
    }
    FromFloats(to_, floats_.data(), count, to);
    return absl::OkStatus();
  }

  void QuantiseKeys(int32_t layer, int32_t head) {
    const uint16_t* from = source_.Keys(layer) + head * HeadElements();
    int8_t* to = writer_.KeyCodes(layer) + head * HeadElements();
    std::fill(largest_.begin(), largest_.end(), 0);
    for (size_t at = 0; at < HeadElements(); at += key_run_) {
      ToFloats(from_, from + at, key_run_, floats_.data());
      RaiseToMagnitudes(floats_.data(), key_run_, largest_.data());
    }
    float* scales = writer_.KeyScales(layer) + static_cast<size_t>(head) * head_dim_;
    for (int32_t dimension = 0; dimension < head_dim_; ++dimension) {
      int32_t largest = 0;
      for (int32_t key = 0; key < kTokensPerKeyRow; ++key) {
        largest = std::max(largest, largest_[KvShape::KeyStep(dimension) + 2 * key]);
      }
      scales[dimension] = ScaleOf(largest);
    }
    SpreadKeyScales(scales);
    for (float& scale : scales_) scale = DivisorOf(scale);
    for (size_t at = 0; at < HeadElements(); at += key_run_) {
      ToFloats(from_, from + at, key_run_, floats_.data());
      Quantise(floats_.data(), scales_.data(), key_run_, to + at);
    }
  }

  void QuantiseValues(int32_t layer, int32_t head) {
    const uint16_t* from = source_.Values(layer) + head * HeadElements();
    int8_t* to = writer_.ValueCodes(layer) + head * HeadElements();
    float* scales = writer_.ValueScales(layer) + static_cast<size_t>(head) * padded_tokens_;
    for (int32_t token = 0; token < padded_tokens_; token += 2) {
      ToFloats(from_, from + token * head_dim_, value_run_, floats_.data());
      std::array<int32_t, 2> largest = {};
      for (int32_t dimension = 0; dimension < head_dim_; ++dimension) {
        RaiseToMagnitudes(floats_.data() + 2 * dimension, 2, largest.data());
      }
      for (int i = 0; i < 2; ++i) scales[token + i] = ScaleOf(largest[i]);
      SpreadValueScales(DivisorOf(scales[token]), DivisorOf(scales[token + 1]));
      Quantise(floats_.data(), scales_.data(), value_run_, to + token * head_dim_);
    }
  }

  absl::Status DecodeLayer(int32_t layer) {
    for (int32_t head = 0; head < heads_; ++head) {
      const size_t head_offset = head * HeadElements();
      SpreadKeyScales(source_.KeyScales(layer) + static_cast<size_t>(head) * head_dim_);
      for (size_t at = head_offset; at < head_offset + HeadElements(); at += key_run_) {
        Dequantise(source_.KeyCodes(layer) + at, scales_.data(), key_run_, floats_.data());
        EPIC_RETURN_IF_ERROR(Store(layer, key_run_, writer_.Keys(layer) + at));
      }
      const float* scales = source_.ValueScales(layer) + static_cast<size_t>(head) * padded_tokens_;
      for (int32_t token = 0; token < padded_tokens_; token += 2) {
        const size_t at = head_offset + static_cast<size_t>(token) * head_dim_;
        SpreadValueScales(scales[token], scales[token + 1]);
        Dequantise(source_.ValueCodes(layer) + at, scales_.data(), value_run_, floats_.data());
        EPIC_RETURN_IF_ERROR(Store(layer, value_run_, writer_.Values(layer) + at));
      }
    }
    return absl::OkStatus();
  }

  // To scales_, each beside the elements that it is of in a run of keys, or of values.
  void SpreadKeyScales(const float* scales) {
    for (int32_t dimension = 0; dimension < head_dim_; ++dimension) {
      float* to = scales_.data() + KvShape::KeyStep(dimension);
      for (int32_t key = 0; key < kTokensPerKeyRow; ++key) to[2 * key] = scales[dimension];
    }
  }
  void SpreadValueScales(float even, float odd) {
    for (int32_t dimension = 0; dimension < head_dim_; ++dimension) {
      scales_[2 * dimension] = even;
      scales_[2 * dimension + 1] = odd;
    }
  }

  const KvBlockView& source_;
  KvBlockWriter& writer_;
  const KvDtype from_;
  const KvDtype to_;
  const int32_t heads_;
  const int32_t head_dim_;
  const int32_t padded_tokens_;
  const size_t key_run_;    // elements
  const size_t value_run_;  // elements; fewer than of a run of keys
  std::vector<float> floats_;
  std::vector<float> scales_;
  std::vector<int32_t> largest_;
};

}  // namespace

absl::Status EncodeKvBlock(const KvBlockView& source, KvDtype target, std::span<std::byte> out) {
  KvBlockInfo info = source.info();
  info.shape.dtype = target;
  EPIC_ASSIGN_OR_RETURN(KvBlockWriter writer, KvBlockWriter::Create(info, out));
  EPIC_RETURN_IF_ERROR(source.VerifyPayload());
  BlockEncoder encoder(source, target, &writer);
  for (int32_t layer = 0; layer < info.shape.layers; ++layer) EPIC_RETURN_IF_ERROR(encoder.EncodeLayer(layer));
  writer.Seal();
  return absl::OkStatus();
}

std::string_view KvDtypeName(KvDtype dtype) {
  for (const auto& [known, name] : kDtypeNames) {
    if (known == dtype) return name;
  }
  return "unknown";
}

absl::StatusOr<KvDtype> ParseKvDtype(std::string_view name) {
  for (const auto& [dtype, known] : kDtypeNames) {
    if (known == name) return dtype;
  }
  return absl::InvalidArgumentError(fmt::format("KV dtype \"{}\" is unknown; there are bf16, fp16 and int8", name));
}

}  // namespace epic
