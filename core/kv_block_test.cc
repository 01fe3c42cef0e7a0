#include "core/kv_block.h"

#include <array>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "core/kv_block_testing.h"
#include "core/sha256.h"
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

// The bytes of two blocks were made by a Python program that was written from the header's description with struct,
// hashlib and the `xxhash` package, and hashed there. They change only together with the format version.
TEST_F(KvBlockTest, BytesMatchTestVectors) {
  EXPECT_EQ(memory_.span().size(), 820672u);
  EXPECT_EQ(edition_, 0x7b8846cae1725d50u);
  EXPECT_EQ(Sha256Hex(memory_.span()), "6c3ab34c61f144d19ed2bb9d24a736dd529385c4988400519782c287fe59b5f2");

  const KvBlockInfo small = MakeTestBlockInfo({.layers = 3, .kv_heads = 1, .head_dim = 8}, TestTokens(5));
  const PageAlignedBytes memory(KvBlockBytes(small));
  EXPECT_EQ(WriteTestBlock(small, memory.span()), 0x71bad4c503226c16u);
  EXPECT_EQ(memory.span().size(), 3328u);
  EXPECT_EQ(Sha256Hex(memory.span()), "246ab75b3b31248ca9fc7e8b5682684921f05ba875948d62a0a0c78200958fa2");
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
    EXPECT_THAT(std::string(status.message()), HasSubstr("820672"));
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

// Version 1 had K and V in another order: such a block must not be taken for one of today's.
TEST_F(KvBlockTest, AnotherFormatVersionIsRefusedAndNamed) {
  const uint32_t version = 1;
  std::memcpy(memory_.span().data() + 8, &version, sizeof(version));
  const absl::Status status = KvBlockView::Parse(memory_.span()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("format version 1, expected 2"));
}

// A header whose checksum is right but whose contents are not: what a hostile sender can make.
TEST_F(KvBlockTest, ForgedHeadersAreRefused) {
  const std::vector<std::byte> intact(memory_.span().begin(), memory_.span().end());
  const size_t header_bytes = KvBlockView::Parse(memory_.span())->header_bytes();
  const size_t groups_offset = 160 + 300 * 4;
  struct Forgery {
    const char* name;
    size_t offset;
    uint64_t value;
    size_t bytes;
  };
  const std::array<Forgery, 18> forgeries = {{
      {"block bytes", 16, 820672 - 64, 8},
      {"no layers", 24, 0, 4},
      {"many layers", 24, 1u << 31, 4},
      {"kv heads", 28, 0x7fffffff, 4},
      {"head dimension", 32, 66, 4},
      {"odd head dimension", 32, 63, 4},
      {"dtype", 36, 7, 4},
      {"recipe id length", 104, 33, 4},
      {"empty recipe id", 104, 0, 4},
      {"first position", 140, 0xffffffff, 4},
      {"edition", 144, 1, 8},
      {"token count", 152, 301, 4},
      {"huge token count", 152, 0xffffffff, 4},
      {"group count", 156, 0xffffffff, 4},
      {"token id", 160, 0x80000000, 4},
      {"group's first layer", groups_offset + 32, 1, 4},
      {"group's offset", groups_offset + 32 + 8, 0xffffffffffffffc0, 8},
      {"group's bytes", groups_offset + 16, 0xffffffffffffffc0, 8},
  }};
  for (const Forgery& forgery : forgeries) {
    std::memcpy(memory_.span().data(), intact.data(), header_bytes);
    std::memcpy(memory_.span().data() + forgery.offset, &forgery.value, forgery.bytes);
    const uint64_t checksum = XXH3_64bits(memory_.span().data(), header_bytes - 8);
    std::memcpy(memory_.span().data() + header_bytes - 8, &checksum, 8);
    EXPECT_EQ(KvBlockView::Parse(memory_.span()).status().code(), absl::StatusCode::kDataLoss) << forgery.name;
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

TEST(KvBlockLayoutTest, MatricesOfLayersLieApartAndGroupsAreLongEnough) {
  for (const KvShape shape :
       {KvShape{.layers = 30, .kv_heads = 3, .head_dim = 64}, KvShape{.layers = 7, .kv_heads = 1, .head_dim = 8},
        KvShape{.layers = 1, .kv_heads = 1, .head_dim = 2}}) {
    for (const int tokens : {1, 65, 512}) {
      const KvBlockInfo info = MakeTestBlockInfo(shape, TestTokens(tokens));
      EXPECT_EQ(KvBlockBytes(info), KvBlockBytes(shape, tokens));
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
      const auto* begin = reinterpret_cast<const uint16_t*>(memory.span().data() + view.header_bytes());
      const size_t elements = shape.MatrixBytes(tokens) / sizeof(uint16_t);
      for (int layer = 0; layer < shape.layers; ++layer) {
        EXPECT_EQ(view.Keys(layer), begin + 2 * layer * elements);
        EXPECT_EQ(view.Values(layer), begin + (2 * layer + 1) * elements);
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
