#include "core/kv_block.h"

#include <array>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "core/kv_block_testing.h"
#include "core/split_mix.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "xxhash.h"

namespace epic {
namespace {

using ::testing::HasSubstr;

std::vector<int32_t> TestTokens(int count) {
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) ids.push_back(i * 7 + 1);
  return ids;
}

// One block of a shape that gives several layer groups: two of two and three layers.
class KvBlockTest : public testing::Test {
 protected:
  KvBlockTest() : info_(MakeTestBlockInfo({.layers = 5, .kv_heads = 2, .head_dim = 64}, TestTokens(300))) {}

  // Changes a field of the header and makes the header's checksum right again: what a hostile sender can do.
  static void Forge(std::span<std::byte> block, size_t offset, uint64_t value, size_t bytes) {
    uint32_t header_bytes = 0;
    std::memcpy(&header_bytes, block.data() + 12, sizeof(header_bytes));
    std::memcpy(block.data() + offset, &value, bytes);
    const uint64_t checksum = XXH3_64bits(block.data(), header_bytes - 8);
    std::memcpy(block.data() + header_bytes - 8, &checksum, 8);
  }
  void Forge(size_t offset, uint64_t value, size_t bytes) { Forge(memory_.span(), offset, value, bytes); }

  const KvBlockInfo info_;
  PageAlignedBytes memory_{KvBlockBytes(info_)};
  const uint64_t edition_ = WriteTestBlock(info_, memory_.span());
};

TEST_F(KvBlockTest, RoundTrip) {
  const KvBlockView view = KvBlockView::Parse(memory_.span()).value();
  EXPECT_EQ(view.info().shape, info_.shape);
  EXPECT_EQ(view.info().model_fingerprint_hex, info_.model_fingerprint_hex);
  EXPECT_EQ(view.info().key, info_.key);
  EXPECT_EQ(view.info().recipe_id, info_.recipe_id);
  EXPECT_EQ(view.info().first_position, info_.first_position);
  EXPECT_EQ(view.info().token_ids, info_.token_ids);
  EXPECT_EQ(view.edition(), edition_);
  EXPECT_EQ(view.bytes().size(), KvBlockBytes(info_));
  EXPECT_EQ(view.header_bytes() % 64, 0u);
  ASSERT_EQ(view.groups().size(), 2u);
  EXPECT_EQ(view.groups()[0].layer_count, 2);
  EXPECT_EQ(view.groups()[1].layer_count, 3);
  EXPECT_TRUE(view.VerifyPayload().ok());
  const int padded = view.padded_tokens();
  for (int layer = 0; layer < 5; ++layer) {
    for (int head = 0; head < 2; ++head) {
      for (int token = 0; token < 300; ++token) {
        for (int dimension = 0; dimension < 64; ++dimension) {
          ASSERT_EQ(view.Keys(layer)[info_.shape.KeyIndex(padded, head, token, dimension)],
                    TestKeyBits(layer, head, token, dimension));
          ASSERT_EQ(view.Values(layer)[info_.shape.ValueIndex(padded, head, token, dimension)],
                    TestValueBits(layer, head, token, dimension));
        }
      }
    }
  }
}

TEST_F(KvBlockTest, Int8RoundTrip) {
  KvShape shape = info_.shape;
  shape.dtype = KvDtype::kInt8;
  const KvBlockInfo info = MakeTestBlockInfo(shape, TestTokens(300));
  const PageAlignedBytes memory(KvBlockBytes(info));
  const uint64_t edition = WriteTestBlock(info, memory.span());
  const KvBlockView view = KvBlockView::Parse(memory.span()).value();
  EXPECT_EQ(view.info().shape, shape);
  EXPECT_EQ(view.edition(), edition);
  EXPECT_TRUE(view.VerifyPayload().ok());
  const int padded = view.padded_tokens();
  for (int layer = 0; layer < shape.layers; ++layer) {
    ForEachElement(info, [&](int head, int token, int dimension) {
      ASSERT_EQ(view.KeyCodes(layer)[shape.KeyIndex(padded, head, token, dimension)],
                TestKeyCode(layer, head, token, dimension));
      ASSERT_EQ(view.ValueCodes(layer)[shape.ValueIndex(padded, head, token, dimension)],
                TestValueCode(layer, head, token, dimension));
      ASSERT_EQ(view.KeyScales(layer)[shape.KeyScaleIndex(head, dimension)], TestKeyScale(layer, head, dimension));
      ASSERT_EQ(view.ValueScales(layer)[KvShape::ValueScaleIndex(padded, head, token)],
                TestValueScale(layer, head, token));
    });
    // Each part at a multiple of a cache line.
    for (const void* part :
         {static_cast<const void*>(view.KeyCodes(layer)), static_cast<const void*>(view.KeyScales(layer)),
          static_cast<const void*>(view.ValueCodes(layer)), static_cast<const void*>(view.ValueScales(layer))}) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(part) % 64, 0u);
    }
  }
  // Scales are under the checksums as everything else is.
  for (const void* scale :
       {static_cast<const void*>(view.KeyScales(2)), static_cast<const void*>(view.ValueScales(2))}) {
    std::byte& byte = memory.span()[static_cast<const std::byte*>(scale) - memory.span().data()];
    byte ^= std::byte{1};
    EXPECT_EQ(view.VerifyPayload().code(), absl::StatusCode::kDataLoss);
    byte ^= std::byte{1};
  }
}

TEST_F(KvBlockTest, EveryFlippedHeaderByteIsFound) {
  const size_t header_bytes = KvBlockView::Parse(memory_.span())->header_bytes();
  for (size_t i = 0; i < header_bytes; ++i) {
    for (const std::byte mask : {std::byte{1}, std::byte{0x80}, std::byte{0xff}}) {
      memory_.span()[i] ^= mask;
      ASSERT_EQ(KvBlockView::Parse(memory_.span()).status().code(), absl::StatusCode::kDataLoss) << "byte " << i;
      memory_.span()[i] ^= mask;
    }
  }
  EXPECT_TRUE(KvBlockView::Parse(memory_.span()).ok());
}

TEST_F(KvBlockTest, EveryTruncationIsFound) {
  const size_t header_bytes = KvBlockView::Parse(memory_.span())->header_bytes();
  for (size_t length = 0; length <= header_bytes; ++length) {
    ASSERT_EQ(KvBlockView::Parse(memory_.span().first(length)).status().code(), absl::StatusCode::kDataLoss) << length;
  }
  for (const size_t missing : {size_t{1}, size_t{64}, size_t{4096}, memory_.span().size() / 2}) {
    const absl::Status status = KvBlockView::Parse(memory_.span().first(memory_.span().size() - missing)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr("820736"));
  }
}

TEST_F(KvBlockTest, FlippedPayloadBitNamesItsGroup) {
  const KvBlockView view = KvBlockView::Parse(memory_.span()).value();
  for (size_t group = 0; group < view.groups().size(); ++group) {
    const LayerGroup& entry = view.groups()[group];
    for (const size_t position : {entry.offset, entry.offset + entry.bytes / 2, entry.offset + entry.bytes - 1}) {
      memory_.span()[position] ^= std::byte{0x10};
      const absl::Status status = view.VerifyPayload();
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
      EXPECT_THAT(std::string(status.message()), HasSubstr("layer group " + std::to_string(group) + " "));
      EXPECT_THAT(std::string(status.message()), HasSubstr(info_.key.Hex()));
      for (size_t other = 0; other < view.groups().size(); ++other) {
        EXPECT_EQ(view.VerifyGroup(other).ok(), other != group);
      }
      memory_.span()[position] ^= std::byte{0x10};
    }
  }
}

TEST_F(KvBlockTest, AnotherFormatVersionIsRefusedAndNamed) {
  for (const uint32_t version : {0u, 2u, 0x01000000u}) {
    Forge(8, version, sizeof(version));
    const absl::Status status = KvBlockView::Parse(memory_.span()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr("format version " + std::to_string(version) + ", expected 1"));
  }
}

// What version 1 leaves for later: features that a reader must know are refused, what it need not know is passed over.
TEST_F(KvBlockTest, UnknownFeaturesAreRefusedAndReservedBytesPassedOver) {
  for (size_t offset = 200; offset < 256; offset += 8) Forge(offset, 0xfedcba9876543210u, 8);
  EXPECT_TRUE(KvBlockView::Parse(memory_.span()).ok());
  Forge(24, 4, 4);
  const absl::Status status = KvBlockView::Parse(memory_.span()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("features 0x4"));
}

// Header and payload of this block are multiples of 64, 128 and 192 bytes.
TEST_F(KvBlockTest, GroupsAreAlignedToPowersOfTwo) {
  const KvBlockInfo info = MakeTestBlockInfo({.layers = 3, .kv_heads = 3, .head_dim = 8}, TestTokens(10));
  const PageAlignedBytes memory(KvBlockBytes(info));
  WriteTestBlock(info, memory.span());
  for (const auto& [alignment, is_good] : {std::pair(128, true), std::pair(192, false), std::pair(64, true)}) {
    Forge(memory.span(), 28, alignment, 4);
    EXPECT_EQ(KvBlockView::Parse(memory.span()).ok(), is_good) << alignment;
  }
}

TEST_F(KvBlockTest, UnalignedMemoryIsRefused) {
  const PageAlignedBytes roomy(memory_.span().size() + 4);
  for (const size_t shift : {1, 2, 3}) {
    std::memcpy(roomy.span().data() + shift, memory_.span().data(), memory_.span().size());
    EXPECT_EQ(KvBlockView::Parse(roomy.span().subspan(shift, memory_.span().size())).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

// A header whose checksum is right but whose contents are not.
TEST_F(KvBlockTest, ForgedHeadersAreRefused) {
  const std::vector<std::byte> intact(memory_.span().begin(), memory_.span().end());
  const size_t header_bytes = KvBlockView::Parse(memory_.span())->header_bytes();
  constexpr size_t kGroups = 256;
  constexpr size_t kTokens = kGroups + 2 * 32;
  struct Forgery {
    const char* name;
    size_t offset;
    uint64_t value;
    size_t bytes;
  };
  const std::array<Forgery, 31> forgeries = {{
      {"block bytes", 16, 820736 - 64, 8},
      {"no alignment", 28, 0, 4},
      {"alignment too small", 28, 32, 4},
      {"alignment no power of two", 28, 192, 4},
      {"alignment too large", 28, 8192, 4},
      {"another alignment than the header's", 28, 4096, 4},
      {"no layers", 32, 0, 4},
      {"many layers", 32, 1u << 31, 4},
      {"kv heads", 36, 0x7fffffff, 4},
      {"head dimension", 40, 66, 4},
      {"odd head dimension", 40, 63, 4},
      {"no dtype", 44, 0, 4},
      {"unknown dtype", 44, 4, 4},
      {"fp16 with the edition of bf16", 44, 2, 4},
      {"int8 in the place of bf16", 44, 3, 4},
      {"recipe id length", 112, 33, 4},
      {"empty recipe id", 112, 0, 4},
      {"first position", 148, 0xffffffff, 4},
      {"edition", 152, 1, 8},
      {"token count", 160, 321, 4},
      {"huge token count", 160, 0xffffffff, 4},
      {"group count", 164, 0xffffffff, 4},
      {"key scales", 168, 0xffffffffffffffc0, 8},
      {"values", 176, 64, 8},
      {"value scales", 184, 0, 8},
      {"bytes of a layer", 192, 0xffffffffffffffc0, 8},
      {"group's first layer", kGroups + 32, 1, 4},
      {"group's layers", kGroups + 32 + 4, 0xffffffff, 4},
      {"group's offset", kGroups + 32 + 8, 0xffffffffffffffc0, 8},
      {"group's bytes", kGroups + 16, 0xffffffffffffffc0, 8},
      {"token id", kTokens, 0x80000000, 4},
  }};
  for (const Forgery& forgery : forgeries) {
    std::memcpy(memory_.span().data(), intact.data(), header_bytes);
    Forge(forgery.offset, forgery.value, forgery.bytes);
    EXPECT_EQ(KvBlockView::Parse(memory_.span()).status().code(), absl::StatusCode::kDataLoss) << forgery.name;
  }
}

// Any two fields at once: whatever comes of it is refused or lies inside the block.
TEST_F(KvBlockTest, RandomForgeriesAreRefusedOrHarmless) {
  const KvBlockInfo info = MakeTestBlockInfo({.layers = 3, .kv_heads = 2, .head_dim = 8}, TestTokens(40));
  uint64_t state = 7;
  const auto random = [&state] { return SplitMix(state += kSplitMixStep); };
  const PageAlignedBytes intact(KvBlockBytes(info));
  WriteTestBlock(info, intact.span());
  const size_t header_bytes = KvBlockView::Parse(intact.span())->header_bytes();
  for (int round = 0; round < 20000; ++round) {
    // Memory of exactly its size, so that the address sanitizer sees each step outside.
    std::vector<std::byte> forged(intact.span().begin(), intact.span().end());
    for (int i = 0; i < 2; ++i) {
      const size_t offset = 8 + random() % (header_bytes / 4 - 4) * 4;
      const uint64_t choice = random();
      const uint32_t value = choice % 3 == 0   ? static_cast<uint32_t>(choice >> 32)
                             : choice % 3 == 1 ? static_cast<uint32_t>(choice >> 32) % 128
                                               : 1u << (choice >> 32) % 32;
      std::memcpy(forged.data() + offset, &value, sizeof(value));
    }
    const uint64_t checksum = XXH3_64bits(forged.data(), header_bytes - 8);
    std::memcpy(forged.data() + header_bytes - 8, &checksum, 8);
    const absl::StatusOr<KvBlockView> view = KvBlockView::Parse(forged);
    if (!view.ok()) continue;
    for (int layer = 0; layer < view->info().shape.layers; ++layer) {
      const std::span<const std::byte> bytes = view->LayerBytes(layer);
      EXPECT_GE(bytes.data(), forged.data());
      EXPECT_LE(bytes.data() + bytes.size(), forged.data() + forged.size());
    }
  }
}

TEST_F(KvBlockTest, EditionNamesTheBytes) {
  PageAlignedBytes other(memory_.span().size());
  KvBlockWriter writer = KvBlockWriter::Create(info_, other.span()).value();
  writer.Keys(0)[0] = 1;
  const uint64_t first = writer.Seal();
  EXPECT_NE(first, edition_);
  writer.Keys(0)[0] = 2;
  EXPECT_NE(writer.Seal(), first);
}

TEST_F(KvBlockTest, EditionTellsDtypesWithEqualPayloadsApart) {
  KvBlockInfo fp16 = info_;
  fp16.shape.dtype = KvDtype::kFp16;
  PageAlignedBytes other(memory_.span().size());
  EXPECT_NE(WriteTestBlock(fp16, other.span()), edition_);
}

TEST(KvBlockLayoutTest, IndicesAreDisjointAndCoverTheMatrixWithItsPadding) {
  for (const int tokens : {1, 15, 16, 17, 31, 32, 33, 100}) {
    const KvShape shape{.layers = 1, .kv_heads = 3, .head_dim = 6};
    const int padded = PaddedTokens(tokens);
    std::set<size_t> keys;
    std::set<size_t> values;
    for (int head = 0; head < shape.kv_heads; ++head) {
      for (int token = 0; token < padded; ++token) {
        for (int dimension = 0; dimension < shape.head_dim; ++dimension) {
          keys.insert(shape.KeyIndex(padded, head, token, dimension));
          values.insert(shape.ValueIndex(padded, head, token, dimension));
        }
      }
    }
    const size_t elements = shape.MatrixBytes(tokens) / sizeof(uint16_t);
    EXPECT_EQ(elements, static_cast<size_t>(3 * padded * 6));
    for (const std::set<size_t>& indices : {keys, values}) {
      EXPECT_EQ(indices.size(), elements);
      EXPECT_EQ(*indices.begin(), 0u);
      EXPECT_EQ(*indices.rbegin(), elements - 1);
    }
  }
}

TEST(KvBlockLayoutTest, Int8TakesHalfOfBf16AndItsScales) {
  for (const int head_dim : {2, 8, 64, 128}) {
    for (const int tokens : {1, 32, 512}) {
      const KvShape bf16{.layers = 1, .kv_heads = 3, .head_dim = head_dim};
      KvShape int8 = bf16;
      int8.dtype = KvDtype::kInt8;
      const size_t padded = PaddedTokens(tokens);
      const size_t key_scales = (3 * head_dim * 4 + 63) / 64 * 64;
      const size_t value_scales = 3 * padded * 4;
      const KvLayerLayout layout = int8.LayerLayout(tokens);
      EXPECT_EQ(2 * int8.MatrixBytes(tokens), bf16.MatrixBytes(tokens));
      EXPECT_EQ(layout.key_scales, 3 * padded * head_dim);
      EXPECT_EQ(layout.values, layout.key_scales + key_scales);
      EXPECT_EQ(layout.value_scales, layout.values + 3 * padded * head_dim);
      EXPECT_EQ(layout.bytes, layout.value_scales + value_scales);
      EXPECT_EQ(layout.bytes, bf16.LayerLayout(tokens).bytes / 2 + key_scales + value_scales);
      EXPECT_EQ(bf16.LayerLayout(tokens).bytes, 2 * bf16.MatrixBytes(tokens));
    }
  }
  // Of a chunk of 512 tokens with heads of 128, as in 8B models: 51 % of bf16.
  const KvShape large{.layers = 32, .kv_heads = 8, .head_dim = 128};
  const KvShape large_int8{.layers = 32, .kv_heads = 8, .head_dim = 128, .dtype = KvDtype::kInt8};
  EXPECT_LT(static_cast<double>(KvBlockBytes(large_int8, 512)), 0.511 * static_cast<double>(KvBlockBytes(large, 512)));
}

TEST(KvBlockLayoutTest, MatricesOfLayersLieApartAndGroupsAreLongEnough) {
  for (const KvShape shape :
       {KvShape{.layers = 30, .kv_heads = 3, .head_dim = 64}, KvShape{.layers = 7, .kv_heads = 1, .head_dim = 8},
        KvShape{.layers = 1, .kv_heads = 1, .head_dim = 2},
        KvShape{.layers = 30, .kv_heads = 3, .head_dim = 64, .dtype = KvDtype::kFp16},
        KvShape{.layers = 30, .kv_heads = 3, .head_dim = 64, .dtype = KvDtype::kInt8},
        KvShape{.layers = 7, .kv_heads = 1, .head_dim = 8, .dtype = KvDtype::kInt8}}) {
    for (const int tokens : {1, 65, 512}) {
      const KvBlockInfo info = MakeTestBlockInfo(shape, TestTokens(tokens));
      EXPECT_EQ(KvBlockBytes(info), KvBlockBytes(shape, tokens));
      EXPECT_LE(KvBlockBytes(info), KvBlockBytesMax(shape, tokens));
      const PageAlignedBytes memory(KvBlockBytes(info));
      WriteTestBlock(info, memory.span());
      const KvBlockView view = KvBlockView::Parse(memory.span()).value();
      size_t end = view.header_bytes();
      for (const LayerGroup& group : view.groups()) {
        EXPECT_EQ(group.offset, end);
        EXPECT_EQ(group.offset % 64, 0u);
        if (view.groups().size() > 1) {
          EXPECT_GE(group.bytes, kLayerGroupBytesMin);
        }
        end += group.bytes;
      }
      EXPECT_EQ(end, memory.span().size());
      const std::byte* begin = memory.span().data() + view.header_bytes();
      const KvLayerLayout layout = shape.LayerLayout(tokens);
      for (int layer = 0; layer < shape.layers; ++layer) {
        const std::byte* at = begin + layer * layout.bytes;
        EXPECT_EQ(view.LayerBytes(layer).data(), at);
        EXPECT_EQ(view.LayerBytes(layer).size(), layout.bytes);
        const auto as_bytes = [](const auto* part) { return reinterpret_cast<const std::byte*>(part); };
        if (shape.dtype == KvDtype::kInt8) {
          EXPECT_EQ(as_bytes(view.KeyCodes(layer)), at);
          EXPECT_EQ(as_bytes(view.KeyScales(layer)), at + layout.key_scales);
          EXPECT_EQ(as_bytes(view.ValueCodes(layer)), at + layout.values);
          EXPECT_EQ(as_bytes(view.ValueScales(layer)), at + layout.value_scales);
        } else {
          EXPECT_EQ(as_bytes(view.Keys(layer)), at);
          EXPECT_EQ(as_bytes(view.Values(layer)), at + layout.values);
        }
      }
    }
  }
}

TEST(KvBlockWriterTest, RefusesWhatNoBlockMayHave) {
  const KvBlockInfo good = MakeTestBlockInfo({.layers = 2, .kv_heads = 1, .head_dim = 8}, TestTokens(4));
  const PageAlignedBytes memory(KvBlockBytes(good) + 64);
  const auto create = [&](const KvBlockInfo& info) {
    return KvBlockWriter::Create(info, memory.span().first(KvBlockBytes(good))).status();
  };
  EXPECT_TRUE(create(good).ok());
  const auto expect_refused = [&](auto&& change) {
    KvBlockInfo info = good;
    change(info);
    EXPECT_EQ(create(info).code(), absl::StatusCode::kInvalidArgument);
  };
  expect_refused([](KvBlockInfo& info) { info.shape.layers = 0; });
  expect_refused([](KvBlockInfo& info) { info.shape.kv_heads = -1; });
  expect_refused([](KvBlockInfo& info) { info.shape.head_dim = 4096; });
  expect_refused([](KvBlockInfo& info) { info.shape.dtype = static_cast<KvDtype>(0); });
  expect_refused([](KvBlockInfo& info) { info.shape.dtype = static_cast<KvDtype>(4); });
  expect_refused([](KvBlockInfo& info) { info.shape.dtype = KvDtype::kInt8; });  // of another length
  expect_refused([](KvBlockInfo& info) { info.token_ids.clear(); });
  expect_refused([](KvBlockInfo& info) { info.token_ids[1] = -1; });
  expect_refused([](KvBlockInfo& info) { info.recipe_id = ""; });
  expect_refused([](KvBlockInfo& info) { info.recipe_id = std::string(33, 'x'); });
  expect_refused([](KvBlockInfo& info) { info.recipe_id = "a b"; });
  expect_refused([](KvBlockInfo& info) { info.first_position = -1; });
  expect_refused([](KvBlockInfo& info) { info.model_fingerprint_hex.pop_back(); });
  expect_refused([](KvBlockInfo& info) { info.model_fingerprint_hex[0] = 'A'; });
  EXPECT_EQ(KvBlockWriter::Create(good, memory.span()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(KvBlockWriter::Create(good, memory.span().subspan(4, KvBlockBytes(good))).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace epic
