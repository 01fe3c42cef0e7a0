#include "storage/manifest_keys.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace epic {
namespace {

constexpr ManifestKeyKind kKind = ManifestKeyKind::kDocument;

// Names of the bytes that the encoding treats specially and of their neighbours.
std::string RandomName(std::mt19937& random) {
  static constexpr char kBytes[] = {'\0', '\1', '\2', 'a', '\xfe', '\xff'};
  std::string name;
  const size_t length = random() % 5;
  for (size_t i = 0; i < length; ++i) name.push_back(kBytes[random() % sizeof(kBytes)]);
  return name;
}

TEST(ManifestKeysTest, KeysRoundTripAndKeepTheOrderOfTheirNames) {
  std::mt19937 random(3);
  for (int i = 0; i < 20'000; ++i) {
    const std::vector<std::string> a = {RandomName(random), RandomName(random)};
    const std::vector<std::string> b = {RandomName(random), RandomName(random)};
    const std::string key_a = ManifestKey(kKind, {a[0], a[1]});
    const std::string key_b = ManifestKey(kKind, {b[0], b[1]});
    ASSERT_EQ(ParseManifestKey(kKind, key_a), a);
    ASSERT_EQ(key_a < key_b, a < b);
    ASSERT_EQ(key_a == key_b, a == b);
    // The beginning for one name belongs to the keys of that very name.
    ASSERT_EQ(key_b.starts_with(ManifestKey(kKind, {a[0]})), a[0] == b[0]);
  }
}

TEST(ManifestKeysTest, OtherKindsAndBrokenKeysAreNoKeys) {
  const std::string key = ManifestKey(kKind, {"tenant", "id"});
  EXPECT_EQ(ParseManifestKey(ManifestKeyKind::kChunkList, key), std::nullopt);
  EXPECT_EQ(ParseManifestKey(kKind, ""), std::nullopt);
  EXPECT_EQ(ParseManifestKey(kKind, key.substr(0, key.size() - 1)), std::nullopt);
  EXPECT_EQ(ParseManifestKey(kKind, key + "x"), std::nullopt);
  EXPECT_EQ(ParseManifestKey(kKind, key + std::string("\0\2", 2)), std::nullopt);
  EXPECT_EQ(ParseManifestKey(ManifestKeyKind::kFormatVersion, "V"), std::vector<std::string>());
}

}  // namespace
}  // namespace epic
