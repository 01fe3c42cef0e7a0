#include "engine/text/score_merges.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <tuple>

#include "absl/status/status.h"
#include "engine/text/vocabulary.h"
#include "fmt/format.h"

namespace epic {
namespace {

// Trying every cut of a token takes time that grows with the square of its length.
constexpr size_t kTokenBytesMax = 1024;

struct Split {
  float score;
  int32_t left_characters;
  int32_t right_characters;
  int32_t left;
  int32_t right;
};

bool IsContinuation(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; }

int32_t CountCharacters(std::string_view text) {
  return static_cast<int32_t>(std::count_if(text.begin(), text.end(), [](char byte) { return !IsContinuation(byte); }));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> MergesFromScores(const std::vector<std::string>& tokens,
                                                          const std::vector<TokenKind>& kinds,
                                                          const std::vector<float>& scores) {
  if (scores.size() != tokens.size()) {
    return absl::InvalidArgumentError(
        fmt::format("the vocabulary has {} tokens but {} scores", tokens.size(), scores.size()));
  }
  IdsByString ids;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (kinds[id] == TokenKind::kNormal) ids.emplace(tokens[id], static_cast<int32_t>(id));
  }
  std::vector<Split> splits;
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string_view token = tokens[id];
    if (kinds[id] != TokenKind::kNormal) continue;
    if (!std::isfinite(scores[id])) {
      return absl::InvalidArgumentError(
          fmt::format("the score of token {} ({}) is {}, expected a finite number", id, ShownToken(token), scores[id]));
    }
    if (token.size() > kTokenBytesMax) {
      return absl::InvalidArgumentError(fmt::format("token {} ({}) has {} bytes; at most {} are allowed without merges",
                                                    id, ShownToken(token), token.size(), kTokenBytesMax));
    }
    const int32_t characters = CountCharacters(token);
    int32_t left_characters = 0;
    const size_t first_of_token = splits.size();
    for (size_t cut = 1; cut < token.size(); ++cut) {
      if (IsContinuation(token[cut])) continue;
      ++left_characters;
      const auto left = ids.find(token.substr(0, cut));
      if (left == ids.end()) continue;
      const auto right = ids.find(token.substr(cut));
      if (right == ids.end()) continue;
      splits.push_back({scores[id], left_characters, characters - left_characters, left->second, right->second});
    }
    std::sort(splits.begin() + static_cast<ptrdiff_t>(first_of_token), splits.end(),
              [](const Split& a, const Split& b) { return std::tie(a.left, a.right) < std::tie(b.left, b.right); });
  }
  std::stable_sort(splits.begin(), splits.end(), [](const Split& a, const Split& b) {
    return std::tie(a.score, a.left_characters, a.right_characters) >
           std::tie(b.score, b.left_characters, b.right_characters);
  });
  std::vector<std::string> merges;
  merges.reserve(splits.size());
  for (const Split& split : splits) merges.push_back(tokens[split.left] + " " + tokens[split.right]);
  return merges;
}

}  // namespace epic
