#include "core/chunk_key.h"

#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using ::testing::HasSubstr;

std::string RepeatedByte(const std::string& two_digits) {
  std::string hex;
  for (int i = 0; i < 32; ++i) hex += two_digits;
  return hex;
}

// The expected keys come from Python's hashlib, written from the header's description:
//
//   def s(b): return struct.pack('<I', len(b)) + b
//   def ints(v): return struct.pack('<I', len(v)) + b''.join(struct.pack('<i', x) for x in v)
//   def key(fingerprint, recipe, prefix, salt, tokens):
//     return hashlib.sha256(s(fingerprint) + s(recipe) + ints(prefix) + s(salt) + ints(tokens)).hexdigest()
TEST(ChunkKeyTest, MatchesTestVectors) {
  // key(b'ab' * 32, b'plain', [], b'', [1, 2, 3])
  EXPECT_EQ(ComputeChunkKey(RepeatedByte("ab"), {"plain", {}}, "", std::vector<int32_t>{1, 2, 3}).Hex(),
            "6855daedd6e1f93d219f33c4a9f1a146022c5bed8af589f3e430fcb7d527129b");
  // key(b'ab' * 32, b'plain', [1], b'', [1, 2, 3])
  EXPECT_EQ(ComputeChunkKey(RepeatedByte("ab"), {"plain", {1}}, "", std::vector<int32_t>{1, 2, 3}).Hex(),
            "0c7ed688819dc0ba4bbdcfcba8e4e37e5aab0beaa4d88e4e8a7d32c625753a3f");
  // key(b'00' * 32, b'sink4', [1, 9690, 198, 2683], b'salt\0of tenant', range(0, 49152, 1234))
  std::vector<int32_t> tokens;
  for (int32_t id = 0; id < 49152; id += 1234) tokens.push_back(id);
  EXPECT_EQ(ComputeChunkKey(RepeatedByte("00"), {"sink4", {1, 9690, 198, 2683}},
                            std::string_view("salt\0of tenant", 14), tokens)
                .Hex(),
            "1c089414e26cb058209fde75e662bc37da3f5c08f1017629453b0aacbb879499");
  // key(b'', b'', [], b'', [])
  EXPECT_EQ(ComputeChunkKey("", {}, "", {}).Hex(), "de47c9b27eb8d300dbb5f2c353e632c393262cf06340c4fa7f1b40c4cbd36f90");
}

TEST(ChunkKeyTest, EveryPartCountsAndPartsDoNotRunIntoEachOther) {
  const std::vector<int32_t> tokens = {7, 8, 9};
  std::set<ChunkKey> keys;
  keys.insert(ComputeChunkKey("ab", {"plain", {1}}, "salt", tokens));
  keys.insert(ComputeChunkKey("ac", {"plain", {1}}, "salt", tokens));
  keys.insert(ComputeChunkKey("ab", {"sink4", {1}}, "salt", tokens));
  keys.insert(ComputeChunkKey("ab", {"plain", {2}}, "salt", tokens));
  keys.insert(ComputeChunkKey("ab", {"plain", {1}}, "pepper", tokens));
  keys.insert(ComputeChunkKey("ab", {"plain", {1}}, "salt", std::vector<int32_t>{7, 8}));
  // The same bytes, divided otherwise.
  keys.insert(ComputeChunkKey("abp", {"lain", {1}}, "salt", tokens));
  keys.insert(ComputeChunkKey("ab", {"plain", {1, 7}}, "salt", std::vector<int32_t>{8, 9}));
  keys.insert(ComputeChunkKey("ab", {"plains", {1}}, "alt", tokens));
  EXPECT_EQ(keys.size(), 9u);
}

TEST(RecipeTest, ContextComesBehindThePrefixUnderAnotherName) {
  const Recipe plain{"plain", {1}};
  EXPECT_EQ(RecipeBehind(plain, {}), plain);
  const Recipe behind = RecipeBehind(plain, std::vector<int32_t>{7, 8});
  EXPECT_EQ(behind, (Recipe{"document", {1, 7, 8}}));
  EXPECT_EQ(behind.first_position(), 3);
}

TEST(ChunkKeyTest, HexAndBytesRoundTrip) {
  const ChunkKey key = ComputeChunkKey("ab", {"plain", {}}, "", std::vector<int32_t>{1});
  EXPECT_EQ(ChunkKey::FromHex(key.Hex()).value(), key);
  EXPECT_EQ(ChunkKey::FromBytes(key.AsBytes()).value(), key);
  EXPECT_EQ(ChunkKey::FromHex(RepeatedByte("AF")).value().Hex(), RepeatedByte("af"));
}

TEST(ChunkKeyTest, RefusesWhatIsNoKey) {
  for (const std::string& hex : {std::string(), std::string(63, 'a'), std::string(65, 'a'), std::string(63, 'a') + "g",
                                 "0x" + std::string(62, 'a')}) {
    EXPECT_EQ(ChunkKey::FromHex(hex).status().code(), absl::StatusCode::kInvalidArgument) << hex;
  }
  EXPECT_THAT(std::string(ChunkKey::FromHex("abc").status().message()), HasSubstr("64"));
  EXPECT_EQ(ChunkKey::FromBytes(std::string(31, 'x')).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ChunkKey::FromBytes(std::string(33, 'x')).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace epic
