#include "engine/text/bpe.h"

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace epic {
namespace {

// Bytes are their own tokens; merged tokens count up from 256.
struct Merges {
  std::map<std::pair<int32_t, int32_t>, std::pair<int32_t, int32_t>> by_pair;  // to (rank, merged)
  BytePairMerger merger;

  void Add(int32_t left, int32_t right, int32_t merged) {
    const auto rank = static_cast<int32_t>(by_pair.size());
    const bool is_new = by_pair.emplace(std::pair(left, right), std::pair(rank, merged)).second;
    ASSERT_EQ(merger.AddMerge(left, right, merged), is_new);
  }
};

// The definition, word for word: the lowest rank anywhere, the leftmost of equals, one merge at a time.
std::vector<int32_t> EncodeByDefinition(const Merges& merges, const std::string& piece) {
  std::vector<int32_t> ids;
  for (const char byte : piece) ids.push_back(static_cast<uint8_t>(byte));
  while (true) {
    std::pair<int32_t, int32_t> best = {INT32_MAX, 0};
    size_t best_position = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = merges.by_pair.find({ids[i], ids[i + 1]});
      if (found != merges.by_pair.end() && found->second.first < best.first) {
        best = found->second;
        best_position = i;
      }
    }
    if (best.first == INT32_MAX) return ids;
    ids[best_position] = best.second;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(best_position) + 1);
  }
}

std::vector<int32_t> Encode(const Merges& merges, const std::string& piece) {
  std::vector<BytePairMerger::Token> tokens;
  for (size_t i = 0; i < piece.size(); ++i) tokens.push_back({static_cast<uint8_t>(piece[i]), i + 1});
  merges.merger.Merge(tokens);
  std::vector<int32_t> ids;
  size_t end = 0;
  for (const auto& token : tokens) {
    EXPECT_GT(token.end, end);
    end = token.end;
    ids.push_back(token.id);
  }
  EXPECT_EQ(end, piece.size());
  return ids;
}

TEST(BytePairMergerTest, MergesLowestRankFirstAndLeftmostOfEquals) {
  Merges merges;
  merges.Add('b', 'c', 256);
  merges.Add('a', 'b', 257);
  merges.Add('a', 256, 258);
  merges.Add('a', 'a', 259);
  EXPECT_EQ(Encode(merges, "abc"), (std::vector<int32_t>{258}));
  EXPECT_EQ(Encode(merges, "abd"), (std::vector<int32_t>{257, 'd'}));
  EXPECT_EQ(Encode(merges, "aaa"), (std::vector<int32_t>{259, 'a'}));
  EXPECT_EQ(Encode(merges, ""), std::vector<int32_t>{});
  EXPECT_EQ(Encode(merges, "\xFF"), (std::vector<int32_t>{0xFF}));
}

TEST(BytePairMergerTest, RefusesAPairTwice) {
  Merges merges;
  EXPECT_TRUE(merges.merger.AddMerge('a', 'b', 256));
  EXPECT_FALSE(merges.merger.AddMerge('a', 'b', 257));
  EXPECT_EQ(Encode(merges, "ab"), (std::vector<int32_t>{256}));
}

// Short pieces are scanned, long ones use a heap; both must be the definition. Lengths lie around the border.
TEST(BytePairMergerTest, EqualsTheDefinitionOnRandomMergesAndPieces) {
  std::mt19937 random(7);
  const auto below = [&random](size_t limit) { return static_cast<int32_t>(random() % limit); };
  for (int round = 0; round < 30; ++round) {
    Merges merges;
    if (round % 2 == 1) merges.merger.KeepNear(10 + round);  // some tokens near, some not
    std::vector<int32_t> tokens = {'a', 'b', 'c'};
    for (int32_t merged = 256; merged < 256 + 40; ++merged) {
      const int32_t left = tokens[below(tokens.size())];
      const int32_t right = tokens[below(tokens.size())];
      if (merges.by_pair.contains({left, right})) continue;
      merges.Add(left, right, merged);
      tokens.push_back(merged);
    }
    for (const size_t length : {1, 2, 5, 17, 47, 48, 49, 50, 200, 700}) {
      std::string piece;
      for (size_t i = 0; i < length; ++i) piece.push_back(static_cast<char>('a' + below(i % 7 == 0 ? 4 : 3)));
      EXPECT_EQ(Encode(merges, piece), EncodeByDefinition(merges, piece)) << piece;
    }
  }
}

}  // namespace
}  // namespace epic
