#include "core/kv_encoding.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "core/kv_block_testing.h"
#include "core/sha256.h"
#include "core/split_mix.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using ::testing::HasSubstr;

constexpr std::array<KvDtype, 3> kDtypes = {KvDtype::kBf16, KvDtype::kFp16, KvDtype::kInt8};

// bf16 and fp16 by the book, in double: what the encoder's tricks with bits are judged by.
double Bf16ToDouble(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }
double Fp16ToDouble(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int fraction = bits & 1023;
  const double magnitude = exponent == 31  ? (fraction == 0 ? INFINITY : NAN)
                           : exponent == 0 ? std::ldexp(fraction, -24)
                                           : std::ldexp(1024 + fraction, exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}
double ToDouble(KvDtype dtype, uint16_t bits) {
  return dtype == KvDtype::kBf16 ? Bf16ToDouble(bits) : Fp16ToDouble(bits);
}

// One key (kind 0) or value (kind 1) of a view, in double.
double ElementOf(const KvBlockView& view, int kind, int layer, int head, int token, int dimension) {
  const KvShape& shape = view.info().shape;
  const int padded = view.padded_tokens();
  const size_t index =
      kind == 0 ? shape.KeyIndex(padded, head, token, dimension) : shape.ValueIndex(padded, head, token, dimension);
  if (shape.dtype == KvDtype::kInt8) {
    if (kind == 0) {
      return static_cast<double>(view.KeyCodes(layer)[index]) *
             view.KeyScales(layer)[shape.KeyScaleIndex(head, dimension)];
    }
    return static_cast<double>(view.ValueCodes(layer)[index]) *
           view.ValueScales(layer)[KvShape::ValueScaleIndex(padded, head, token)];
  }
  return ToDouble(shape.dtype, kind == 0 ? view.Keys(layer)[index] : view.Values(layer)[index]);
}

using BitsOf = std::function<uint16_t(int kind, int layer, int head, int token, int dimension)>;

// A sealed block in memory of its own.
class Block {
 public:
  explicit Block(const KvBlockInfo& info) : memory_(KvBlockBytes(info)) {}
  explicit Block(PageAlignedBytes memory) : memory_(std::move(memory)) {}
  std::span<std::byte> span() const { return memory_.span(); }
  KvBlockView view() const { return KvBlockView::Parse(span()).value(); }

 private:
  PageAlignedBytes memory_;
};

Block MakeBlock(const KvBlockInfo& info, const BitsOf& bits) {
  Block block(info);
  KvBlockWriter writer = KvBlockWriter::Create(info, block.span()).value();
  const int padded = PaddedTokens(static_cast<int>(info.token_ids.size()));
  for (int layer = 0; layer < info.shape.layers; ++layer) {
    ForEachElement(info, [&](int head, int token, int dimension) {
      writer.Keys(layer)[info.shape.KeyIndex(padded, head, token, dimension)] = bits(0, layer, head, token, dimension);
      writer.Values(layer)[info.shape.ValueIndex(padded, head, token, dimension)] =
          bits(1, layer, head, token, dimension);
    });
  }
  writer.Seal();
  return block;
}

KvBlockInfo InfoAs(KvBlockInfo info, KvDtype dtype) {
  info.shape.dtype = dtype;
  return info;
}

absl::StatusOr<Block> Encode(const KvBlockView& source, KvDtype target) {
  Block block(InfoAs(source.info(), target));
  const absl::Status status = EncodeKvBlock(source, target, block.span());
  if (!status.ok()) {
    EXPECT_FALSE(KvBlockView::Parse(block.span()).ok()) << "an error left a block behind";
    return status;
  }
  return block;
}

std::string BytesOf(const KvBlockView& view) {
  return {reinterpret_cast<const char*>(view.bytes().data()), view.bytes().size()};
}

KvBlockInfo TestInfo(KvDtype dtype, KvShape shape = {.layers = 3, .kv_heads = 2, .head_dim = 10}, int tokens = 45) {
  shape.dtype = dtype;
  std::vector<int32_t> ids;
  for (int i = 0; i < tokens; ++i) ids.push_back(3 * i);
  return MakeTestBlockInfo(shape, ids);
}

// Finite bits of many magnitudes: up to 2^15 in fp16, up to 2^40 in bf16 where `wide`.
BitsOf RandomBits(KvDtype dtype, bool wide, uint64_t seed) {
  return [=](int kind, int layer, int head, int token, int dimension) {
    const uint64_t place = (((uint64_t(kind) * 64 + layer) * 64 + head) * 4096 + token) * 1024 + dimension;
    const uint64_t random = SplitMix(seed + place * kSplitMixStep);
    const auto sign = static_cast<uint16_t>(random >> 63 << 15);
    if (dtype == KvDtype::kFp16) return static_cast<uint16_t>(sign | random % 0x7800);
    const uint64_t exponent = wide ? random % 167 : 110 + random % 32;
    return static_cast<uint16_t>(sign | exponent << 7 | (random >> 20 & 127));
  };
}

// ---- Precision, against double.

TEST(KvEncodingTest, SixteenBitsRoundToNearest) {
  for (const bool wide : {false, true}) {
    const Block bf16 = MakeBlock(TestInfo(KvDtype::kBf16), RandomBits(KvDtype::kBf16, false, 1));
    const Block fp16 = MakeBlock(TestInfo(KvDtype::kFp16), RandomBits(KvDtype::kFp16, wide, 2));
    const Block from_bf16 = Encode(bf16.view(), KvDtype::kFp16).value();
    const Block from_fp16 = Encode(fp16.view(), KvDtype::kBf16).value();
    for (int kind = 0; kind < 2; ++kind) {
      for (int layer = 0; layer < 3; ++layer) {
        ForEachElement(bf16.view().info(), [&](int head, int token, int dimension) {
          const double x = ElementOf(bf16.view(), kind, layer, head, token, dimension);
          const double y = ElementOf(from_bf16.view(), kind, layer, head, token, dimension);
          ASSERT_LE(std::abs(y - x), std::max(std::abs(x) / 2048, std::ldexp(1, -25))) << x;
          const double u = ElementOf(fp16.view(), kind, layer, head, token, dimension);
          const double v = ElementOf(from_fp16.view(), kind, layer, head, token, dimension);
          ASSERT_LE(std::abs(v - u), std::abs(u) / 256) << u;
        });
      }
    }
  }
}

// Bits of the number nearest to a magnitude, the even one of two, among `choices`: the numbers whose bits are 0, 1, 2,
// …
size_t NearestBits(const std::vector<double>& choices, double magnitude) {
  const auto above = std::lower_bound(choices.begin(), choices.end(), magnitude);
  const size_t bits = above - choices.begin();
  if (above == choices.end()) return bits - 1;  // between the largest number and half a step above it
  if (*above == magnitude) return bits;
  const double to_below = magnitude - *(above - 1);
  const double to_above = *above - magnitude;
  return to_below < to_above || (to_below == to_above && bits % 2 == 1) ? bits - 1 : bits;
}

std::vector<double> FiniteMagnitudes(KvDtype dtype) {
  std::vector<double> magnitudes;
  for (uint32_t bits = 0; std::isfinite(ToDouble(dtype, bits)); ++bits) magnitudes.push_back(ToDouble(dtype, bits));
  return magnitudes;
}

// Every finite fp16 becomes the bf16 nearest to it, the even one of two, and every bf16 within range the nearest fp16.
TEST(KvEncodingTest, EveryNumberOf16BitsRoundsByTheBook) {
  // 64 tokens of 1,024 dimensions: as many keys as there are patterns.
  const KvShape shape{.layers = 1, .kv_heads = 1, .head_dim = 1024};
  for (const auto& [from, to] :
       {std::pair(KvDtype::kBf16, KvDtype::kFp16), std::pair(KvDtype::kFp16, KvDtype::kBf16)}) {
    const std::vector<double> choices = FiniteMagnitudes(to);
    const auto in_range = [&](uint16_t bits) {
      const double x = ToDouble(from, bits);
      return std::isfinite(x) && std::abs(x) < (to == KvDtype::kFp16 ? 65520 : INFINITY);
    };
    const auto pattern = [&](int token, int dimension) {
      const auto bits = static_cast<uint16_t>(token * 1024 + dimension);
      return in_range(bits) ? bits : uint16_t{0};
    };
    const Block source = MakeBlock(TestInfo(from, shape, 64), [&](int kind, int, int, int token, int dimension) {
      return kind == 0 ? pattern(token, dimension) : uint16_t{0};
    });
    const Block encoded = Encode(source.view(), to).value();
    const KvBlockView view = encoded.view();
    for (int token = 0; token < 64; ++token) {
      for (int dimension = 0; dimension < 1024; ++dimension) {
        const uint16_t bits = pattern(token, dimension);
        const double x = std::abs(ToDouble(from, bits));
        ASSERT_EQ(view.Keys(0)[view.info().shape.KeyIndex(64, 0, token, dimension)],
                  NearestBits(choices, x) | (bits & 0x8000))
            << KvDtypeName(from) << " bits " << bits;
      }
    }
  }
}

// Products of scale and code have more bits than either dtype of 16: ties among them, and carries into the exponent.
TEST(KvEncodingTest, DecodedNumbersRoundByTheBook) {
  const KvBlockInfo info = TestInfo(KvDtype::kInt8, {.layers = 1, .kv_heads = 1, .head_dim = 1024}, 32);
  const Block int8(info);
  KvBlockWriter writer = KvBlockWriter::Create(info, int8.span()).value();
  for (int dimension = 0; dimension < 1024; ++dimension) {
    writer.KeyScales(0)[dimension] = static_cast<float>(3072 + dimension) / 2048;
    for (int token = 0; token < 32; ++token) {
      writer.KeyCodes(0)[info.shape.KeyIndex(32, 0, token, dimension)] = static_cast<int8_t>(4 * token - 63);
    }
  }
  writer.Seal();
  const KvBlockView source = int8.view();
  for (const KvDtype to : {KvDtype::kBf16, KvDtype::kFp16}) {
    const std::vector<double> choices = FiniteMagnitudes(to);
    const Block decoded = Encode(source, to).value();
    const KvBlockView view = decoded.view();
    for (int token = 0; token < 32; ++token) {
      for (int dimension = 0; dimension < 1024; ++dimension) {
        const double x = ElementOf(source, 0, 0, 0, token, dimension);
        ASSERT_EQ(view.Keys(0)[info.shape.KeyIndex(32, 0, token, dimension)],
                  NearestBits(choices, std::abs(x)) | (x < 0 ? 0x8000 : 0))
            << x;
      }
    }
  }
}

TEST(KvEncodingTest, Int8IsWithinHalfAStepOfItsScale) {
  for (const KvDtype from : {KvDtype::kBf16, KvDtype::kFp16}) {
    for (const bool wide : {false, true}) {
      const Block source = MakeBlock(TestInfo(from), RandomBits(from, wide, 3));
      const KvBlockView view = source.view();
      const Block int8 = Encode(view, KvDtype::kInt8).value();
      const KvBlockView codes = int8.view();
      const KvShape& shape = codes.info().shape;
      const int padded = codes.padded_tokens();
      for (int layer = 0; layer < shape.layers; ++layer) {
        ForEachElement(codes.info(), [&](int head, int token, int dimension) {
          double largest_key = 0;
          for (int t = 0; t < 45; ++t) {
            largest_key = std::max(largest_key, std::abs(ElementOf(view, 0, layer, head, t, dimension)));
          }
          double largest_value = 0;
          for (int d = 0; d < shape.head_dim; ++d) {
            largest_value = std::max(largest_value, std::abs(ElementOf(view, 1, layer, head, token, d)));
          }
          const double key_scale = codes.KeyScales(layer)[shape.KeyScaleIndex(head, dimension)];
          const double value_scale = codes.ValueScales(layer)[KvShape::ValueScaleIndex(padded, head, token)];
          ASSERT_NEAR(key_scale, largest_key / 127, largest_key * 1e-8);
          ASSERT_NEAR(value_scale, largest_value / 127, largest_value * 1e-8);
          for (const auto& [kind, scale] : {std::pair(0, key_scale), std::pair(1, value_scale)}) {
            const double x = ElementOf(view, kind, layer, head, token, dimension);
            const double y = ElementOf(codes, kind, layer, head, token, dimension);
            ASSERT_LE(std::abs(y - x), scale * (0.5 + 1e-5)) << x;
          }
        });
      }
      for (const KvDtype to : {KvDtype::kBf16, KvDtype::kFp16}) {
        const absl::StatusOr<Block> back = Encode(codes, to);
        if (wide && from == KvDtype::kBf16 && to == KvDtype::kFp16) {
          EXPECT_EQ(back.status().code(), absl::StatusCode::kOutOfRange);
          continue;
        }
        ASSERT_TRUE(back.ok()) << back.status();
        for (int layer = 0; layer < shape.layers; ++layer) {
          ForEachElement(codes.info(), [&](int head, int token, int dimension) {
            for (int kind = 0; kind < 2; ++kind) {
              const double x = ElementOf(codes, kind, layer, head, token, dimension);
              const double y = ElementOf(back->view(), kind, layer, head, token, dimension);
              const double bound = to == KvDtype::kBf16 ? std::abs(x) / 256 : std::max(std::abs(x) / 2048, 0x1p-25);
              ASSERT_LE(std::abs(y - x), bound * (1 + 1e-6));
            }
          });
        }
      }
    }
  }
}

TEST(KvEncodingTest, ZerosAndTheSmallestAndLargestNumbersSurviveInt8) {
  // Channel 0 of K and token 0 of V are zeros; channel 1 and token 1 have the smallest bf16, 2 and 3 the largest.
  const auto bits = [](int kind, int, int, int token, int dimension) -> uint16_t {
    const int scaled = kind == 0 ? dimension : token;
    const auto sign = static_cast<uint16_t>((token + dimension) % 2 << 15);
    return sign | (scaled == 0 ? 0 : scaled == 1 ? 1 : scaled == 2 ? 0x7f7f : 0x3f80);
  };
  const Block source = MakeBlock(TestInfo(KvDtype::kBf16), bits);
  const Block int8 = Encode(source.view(), KvDtype::kInt8).value();
  const KvBlockView codes = int8.view();
  const KvShape& shape = codes.info().shape;
  EXPECT_EQ(codes.KeyScales(1)[shape.KeyScaleIndex(1, 0)], 0);
  EXPECT_EQ(codes.ValueScales(1)[KvShape::ValueScaleIndex(codes.padded_tokens(), 1, 0)], 0);
  const Block back = Encode(codes, KvDtype::kBf16).value();
  for (int kind = 0; kind < 2; ++kind) {
    for (int layer = 0; layer < shape.layers; ++layer) {
      ForEachElement(source.view().info(), [&](int head, int token, int dimension) {
        ASSERT_EQ(ElementOf(back.view(), kind, layer, head, token, dimension),
                  ElementOf(source.view(), kind, layer, head, token, dimension));
      });
    }
  }
}

TEST(KvEncodingTest, PaddingIsZeroInEveryDtype) {
  const Block source = MakeBlock(TestInfo(KvDtype::kBf16), RandomBits(KvDtype::kBf16, false, 4));
  for (const KvDtype to : kDtypes) {
    const Block encoded = Encode(source.view(), to).value();
    for (int kind = 0; kind < 2; ++kind) {
      for (int token = 45; token < encoded.view().padded_tokens(); ++token) {
        for (int dimension = 0; dimension < 10; ++dimension) {
          ASSERT_EQ(ElementOf(encoded.view(), kind, 2, 1, token, dimension), 0);
        }
      }
    }
    if (to != KvDtype::kInt8) continue;
    const KvBlockView view = encoded.view();
    for (int token = 45; token < view.padded_tokens(); ++token) {
      EXPECT_EQ(view.ValueScales(2)[KvShape::ValueScaleIndex(view.padded_tokens(), 1, token)], 0);
    }
  }
}

TEST(KvEncodingTest, KeepsEverythingButTheDtypeAndGivesAnEditionOfItsOwn) {
  const Block source = MakeBlock(TestInfo(KvDtype::kBf16), RandomBits(KvDtype::kBf16, false, 5));
  std::vector<uint64_t> editions;
  for (const KvDtype to : kDtypes) {
    const Block encoded = Encode(source.view(), to).value();
    const KvBlockView view = encoded.view();
    EXPECT_TRUE(view.VerifyPayload().ok());
    EXPECT_EQ(view.info().shape, InfoAs(source.view().info(), to).shape);
    EXPECT_EQ(view.info().key, source.view().info().key);
    EXPECT_EQ(view.info().model_fingerprint_hex, source.view().info().model_fingerprint_hex);
    EXPECT_EQ(view.info().recipe_id, source.view().info().recipe_id);
    EXPECT_EQ(view.info().first_position, source.view().info().first_position);
    EXPECT_EQ(view.info().token_ids, source.view().info().token_ids);
    EXPECT_THAT(editions, ::testing::Not(::testing::Contains(view.edition())));
    editions.push_back(view.edition());
    const Block copy = Encode(view, to).value();
    EXPECT_EQ(BytesOf(copy.view()), BytesOf(view));
  }
}

// ---- What is refused.

TEST(KvEncodingTest, NumbersThatAreNotFiniteAreRefusedByLayer) {
  for (const auto& [from, bad] : {std::pair(KvDtype::kBf16, 0x7f80), std::pair(KvDtype::kBf16, 0xffc0),
                                  std::pair(KvDtype::kFp16, 0xfc00), std::pair(KvDtype::kFp16, 0x7c01)}) {
    for (int bad_kind = 0; bad_kind < 2; ++bad_kind) {
      const auto bits = [&, bad_bits = bad](int kind, int layer, int head, int token, int dimension) {
        const bool is_bad = kind == bad_kind && layer == 1 && head == 1 && token == 44 && dimension == 9;
        return static_cast<uint16_t>(is_bad ? bad_bits : 0);
      };
      const Block source = MakeBlock(TestInfo(from), bits);
      for (const KvDtype to : kDtypes) {
        if (to == from) continue;
        const absl::Status status = Encode(source.view(), to).status();
        EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
        EXPECT_THAT(std::string(status.message()), HasSubstr("layer 1 of chunk " + source.view().info().key.Hex()));
      }
    }
  }
}

TEST(KvEncodingTest, MagnitudesBeyondFp16AreRefusedByLayerAndTheLargestWithinKept) {
  const auto with = [](uint16_t bits) {
    return MakeBlock(TestInfo(KvDtype::kBf16), [bits](int kind, int layer, int, int token, int) {
      return kind == 1 && layer == 2 && token == 44 ? bits : uint16_t{0};
    });
  };
  const Block largest = with(0xc77f);  // -65,280
  EXPECT_EQ(ElementOf(Encode(largest.view(), KvDtype::kFp16)->view(), 1, 2, 0, 44, 0), -65280);
  const absl::Status status = Encode(with(0xc780).view(), KvDtype::kFp16).status();  // -65,536
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(status.message()), HasSubstr("layer 2"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("65536"));
  EXPECT_TRUE(Encode(with(0xc780).view(), KvDtype::kInt8).ok());
}

TEST(KvEncodingTest, HostileCodesAndScalesAreRefusedByLayer) {
  const KvBlockInfo info = TestInfo(KvDtype::kInt8);
  const auto encode_with = [&](const std::function<void(KvBlockWriter*)>& spoil) {
    const Block block(info);
    KvBlockWriter writer = KvBlockWriter::Create(info, block.span()).value();
    spoil(&writer);
    writer.Seal();
    return Encode(block.view(), KvDtype::kBf16).status();
  };
  EXPECT_TRUE(encode_with([](KvBlockWriter* writer) { writer->KeyCodes(1)[3] = -127; }).ok());
  const float largest = 0x1.fep127F / 127;
  EXPECT_TRUE(encode_with([&](KvBlockWriter* writer) {
                writer->KeyScales(1)[0] = largest;
                writer->KeyCodes(1)[0] = -127;
              }).ok());
  const std::vector<std::function<void(KvBlockWriter*)>> spoils = {
      [](KvBlockWriter* writer) { writer->KeyCodes(1)[3] = -128; },
      [](KvBlockWriter* writer) { writer->ValueCodes(1)[1279] = -128; },
      [](KvBlockWriter* writer) { writer->KeyScales(1)[19] = -1; },
      [](KvBlockWriter* writer) { writer->KeyScales(1)[19] = INFINITY; },
      [](KvBlockWriter* writer) { writer->ValueScales(1)[127] = NAN; },
      [](KvBlockWriter* writer) { writer->ValueScales(1)[127] = -NAN; },
      [&](KvBlockWriter* writer) { writer->ValueScales(1)[0] = std::nextafter(largest, INFINITY); },
  };
  for (const auto& spoil : spoils) {
    const absl::Status status = encode_with(spoil);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr("layer 1"));
  }
}

TEST(KvEncodingTest, DamageGetsNoNewChecksums) {
  for (const KvDtype from : kDtypes) {
    const Block bf16 = MakeBlock(TestInfo(KvDtype::kBf16), RandomBits(KvDtype::kBf16, false, 6));
    const Block source = Encode(bf16.view(), from).value();
    const KvBlockView view = source.view();
    source.span()[view.header_bytes() + 100] ^= std::byte{4};
    for (const KvDtype to : kDtypes) EXPECT_EQ(Encode(view, to).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST(KvEncodingTest, RefusesMemoryThatDoesNotFit) {
  const Block source = MakeBlock(TestInfo(KvDtype::kBf16), RandomBits(KvDtype::kBf16, false, 7));
  EXPECT_EQ(EncodeKvBlock(source.view(), KvDtype::kInt8, Block(source.view().info()).span()).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(EncodeKvBlock(source.view(), static_cast<KvDtype>(9), Block(source.view().info()).span()).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(KvEncodingTest, NamesGoBothWays) {
  for (const KvDtype dtype : kDtypes) EXPECT_EQ(*ParseKvDtype(KvDtypeName(dtype)), dtype);
  EXPECT_EQ(*ParseKvDtype("int8"), KvDtype::kInt8);
  for (const char* name : {"", "BF16", "fp32", "int8 "}) {
    const absl::Status status = ParseKvDtype(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("bf16, fp16 and int8"));
  }
}

// ---- Blocks that tests/golden/kv_block/make_kv_block.py wrote from docs/kv-blocks.md, without this code.

uint16_t GoldenBits(int kind, int layer, int head, int token, int dimension) {
  if (kind == 0 && head == 0 && dimension == 3) return 0x8000;
  if (kind == 1 && head == 1 && token == 5) return 0;
  const uint32_t place = layer * 7919 + head * 104729 + token * 31 + dimension * 17 + kind * 5 + 1;
  const uint32_t mixed = place * 2654435761u;
  if (kind == 0 && head == 1 && dimension == 0 && token % 2 == 0) {
    return static_cast<uint16_t>(0x3680 + (mixed >> 20) % 0x80);
  }
  return static_cast<uint16_t>(mixed >> 31 << 15 | (0x3a00 + (mixed >> 8) % 0x0700));
}

KvBlockInfo GoldenInfo(const KvShape& shape, int tokens) {
  KvBlockInfo info;
  info.shape = shape;
  info.model_fingerprint_hex = Sha256Hex(std::as_bytes(std::span(std::string_view("golden model"))));
  info.key = *ChunkKey::FromHex(Sha256Hex(std::as_bytes(std::span(std::string_view("golden chunk")))));
  info.recipe_id = "document";
  info.first_position = 7;
  for (int i = 0; i < tokens; ++i) info.token_ids.push_back(100 + 13 * i);
  return info;
}

class KvGoldenTest : public testing::Test {
 protected:
  static Block Read(const std::string& name) {
    const char* source_dir = std::getenv("EPIC_SOURCE_DIR");
    const std::string path =
        std::string(source_dir == nullptr ? "." : source_dir) + "/tests/golden/kv_block/" + name + ".kvblock";
    std::ifstream file(path, std::ios::binary);
    EXPECT_TRUE(file.good()) << path;
    const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    PageAlignedBytes memory(bytes.size());
    std::memcpy(memory.span().data(), bytes.data(), bytes.size());
    return Block(std::move(memory));
  }
  static KvBlockInfo SmallInfo(KvDtype dtype) {
    return GoldenInfo({.layers = 3, .kv_heads = 2, .head_dim = 8, .dtype = dtype}, 40);
  }
};

TEST_F(KvGoldenTest, BlocksOfEveryDtypeAreReadAsTheyWereMeant) {
  for (const auto& [name, dtype] :
       {std::pair("bf16", KvDtype::kBf16), std::pair("fp16", KvDtype::kFp16), std::pair("int8", KvDtype::kInt8),
        std::pair("bf16_from_int8", KvDtype::kBf16), std::pair("int8_pages", KvDtype::kInt8)}) {
    SCOPED_TRACE(name);
    const Block block = Read(name);
    const KvBlockView view = block.view();
    const KvBlockInfo expected = SmallInfo(dtype);
    EXPECT_EQ(view.info().shape, expected.shape);
    EXPECT_EQ(view.info().model_fingerprint_hex, expected.model_fingerprint_hex);
    EXPECT_EQ(view.info().key, expected.key);
    EXPECT_EQ(view.info().recipe_id, expected.recipe_id);
    EXPECT_EQ(view.info().first_position, expected.first_position);
    EXPECT_EQ(view.info().token_ids, expected.token_ids);
    EXPECT_TRUE(view.VerifyPayload().ok());
    // Of int8: half a step of the largest magnitude that the contents can have, 8.
    const double tolerance = std::string_view(name).find("int8") == std::string_view::npos ? 0 : 0.5 * 8 / 127;
    for (int kind = 0; kind < 2; ++kind) {
      for (int layer = 0; layer < 3; ++layer) {
        ForEachElement(expected, [&](int head, int token, int dimension) {
          const double x = Bf16ToDouble(GoldenBits(kind, layer, head, token, dimension));
          const double rounding = dtype == KvDtype::kFp16 ? 0x1p-25 : std::abs(x) / 256;
          ASSERT_NEAR(ElementOf(view, kind, layer, head, token, dimension), x,
                      tolerance + (std::string_view(name) == "bf16" ? 0 : rounding));
        });
      }
    }
  }
}

TEST_F(KvGoldenTest, TheSameContentsGiveTheSameBytes) {
  const Block bf16 = MakeBlock(SmallInfo(KvDtype::kBf16), GoldenBits);
  EXPECT_EQ(BytesOf(bf16.view()), BytesOf(Read("bf16").view()));
  EXPECT_EQ(BytesOf(Encode(bf16.view(), KvDtype::kFp16)->view()), BytesOf(Read("fp16").view()));
  const Block int8 = Encode(bf16.view(), KvDtype::kInt8).value();
  EXPECT_EQ(BytesOf(int8.view()), BytesOf(Read("int8").view()));
  EXPECT_EQ(BytesOf(Encode(int8.view(), KvDtype::kBf16)->view()), BytesOf(Read("bf16_from_int8").view()));
}

// The alignment of groups and their number are a writer's choice; encoding makes them ours.
TEST_F(KvGoldenTest, GroupsAtPagesAreReadAndEncodedAsOthers) {
  const Block pages = Read("int8_pages");
  const KvBlockView view = pages.view();
  ASSERT_EQ(view.groups().size(), 2u);
  EXPECT_EQ(view.groups()[1].offset, 8192u);
  EXPECT_EQ(view.groups()[1].layer_count, 2);
  EXPECT_EQ(BytesOf(Encode(view, KvDtype::kInt8)->view()), BytesOf(Read("int8").view()));
  EXPECT_EQ(BytesOf(Encode(view, KvDtype::kBf16)->view()), BytesOf(Read("bf16_from_int8").view()));
  // Padding is under the checksum of its group.
  pages.span()[view.groups()[0].offset + view.groups()[0].bytes - 1] ^= std::byte{1};
  EXPECT_EQ(view.VerifyGroup(0).code(), absl::StatusCode::kDataLoss);
}

TEST_F(KvGoldenTest, LargerBlocksHaveTheScriptsHashes) {
  const Block bf16 = MakeBlock(GoldenInfo({.layers = 5, .kv_heads = 2, .head_dim = 64}, 300), GoldenBits);
  EXPECT_EQ(bf16.view().groups().size(), 2u);
  for (const auto& [dtype, hash] :
       {std::pair(KvDtype::kBf16, "642826f616fc9395cff300560a0f6634119add52a19b5e59e22a37eb0b069372"),
        std::pair(KvDtype::kFp16, "f25b012876ea6b3cbb1abdb7b8e7efc562b6b9050f86eb081dcc504855aba121"),
        std::pair(KvDtype::kInt8, "35c7fb605ff01b29a1398307d9b059dc04f604edf3b8a7243fd1e76a27f53905")}) {
    EXPECT_EQ(Sha256Hex(Encode(bf16.view(), dtype)->span()), hash) << KvDtypeName(dtype);
  }
}

}  // namespace
}  // namespace epic
