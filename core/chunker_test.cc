#include "core/chunker.h"

#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using ::testing::ElementsAre;

struct TokenizedText {
  std::string text;
  std::vector<size_t> ends;
  int32_t tokens() const { return static_cast<int32_t>(ends.size()); }
  void Add(const std::string& token) {
    text += token;
    ends.push_back(text.size());
  }
  // `count` words without an end of a sentence or line.
  void AddWords(int count) {
    for (int i = 0; i < count; ++i) Add(" word");
  }
  std::vector<TokenSpan> Chunk(const ChunkerOptions& options) const {
    return ChunkDocument(tokens(), text, ends, options);
  }
};

bool IsContinuationByte(const std::string& text, size_t position) {
  return position < text.size() && (static_cast<unsigned char>(text[position]) & 0xC0) == 0x80;
}

TEST(ChunkerTest, CutsBehindTheFirstSentenceAtOrAfterTheTarget) {
  TokenizedText document;
  document.AddWords(9);
  document.Add(".");  // token 9: before the target
  document.AddWords(2);
  document.Add(".");  // token 12: the first end behind the target
  document.AddWords(1);
  document.Add(".");
  document.AddWords(8);
  EXPECT_THAT(document.Chunk({.target_tokens = 12, .tail_tokens_min = 4}),
              ElementsAre(TokenSpan{0, 13}, TokenSpan{13, 23}));
}

TEST(ChunkerTest, ASentenceMayEndExactlyAtTheTarget) {
  TokenizedText document;
  document.AddWords(9);
  document.Add(".");
  document.AddWords(30);
  EXPECT_EQ(document.Chunk({.target_tokens = 10, .tail_tokens_min = 2}).front(), (TokenSpan{0, 10}));
}

TEST(ChunkerTest, LooksForASentenceAsFarAsOneAndAHalfTargets) {
  for (const bool inside : {true, false}) {
    TokenizedText document;
    document.AddWords(inside ? 14 : 15);
    document.Add(".");  // ends token 15 of 15, or 16
    document.AddWords(30);
    EXPECT_EQ(document.Chunk({.target_tokens = 10, .tail_tokens_min = 2}).front().end, inside ? 15 : 10);
  }
}

TEST(ChunkerTest, FallsBackToALineAsFarAsTwoTargets) {
  for (const bool inside : {true, false}) {
    TokenizedText document;
    document.AddWords(inside ? 19 : 20);
    document.Add("\n-");
    document.AddWords(30);
    // The line ends in front of the token that begins with the line feed.
    EXPECT_EQ(document.Chunk({.target_tokens = 10, .tail_tokens_min = 2}).front().end, inside ? 19 : 20);
  }
  TokenizedText late;
  late.AddWords(21);
  late.Add("\n");
  late.AddWords(30);
  EXPECT_EQ(late.Chunk({.target_tokens = 10, .tail_tokens_min = 2}).front().end, 10);
}

TEST(ChunkerTest, RecognisesEndsOfSentences) {
  const auto cuts_behind = [](const std::string& last, const std::string& next) {
    TokenizedText document;
    document.AddWords(11);
    document.Add(last);
    document.Add(next);
    document.AddWords(40);
    return document.Chunk({.target_tokens = 10, .tail_tokens_min = 2}).front().end == 12;
  };
  EXPECT_TRUE(cuts_behind(".", " Next"));
  EXPECT_TRUE(cuts_behind("!", "\nNext"));
  EXPECT_TRUE(cuts_behind("?\"", " Next"));
  EXPECT_TRUE(cuts_behind(".)", " Next"));
  EXPECT_TRUE(cuts_behind(". ", "Next"));
  EXPECT_TRUE(cuts_behind(".\u201d", " Next"));
  EXPECT_TRUE(cuts_behind("\u2026", " Next"));
  EXPECT_TRUE(cuts_behind("\u3002", "\u6b21"));
  EXPECT_TRUE(cuts_behind("\uff1f\u300d", "\u6b21"));
  EXPECT_TRUE(cuts_behind("\n\n", "Next"));
  EXPECT_TRUE(cuts_behind(" \r\n \r\n", "Next"));
  EXPECT_FALSE(cuts_behind(".", "5"));
  EXPECT_FALSE(cuts_behind("3.", "14"));
  EXPECT_FALSE(cuts_behind(",", " next"));
  EXPECT_FALSE(cuts_behind(")", " next"));
  EXPECT_FALSE(cuts_behind("\"", " next"));
}

TEST(ChunkerTest, NeverCutsInsideACharacter) {
  // Every character of four bytes is four tokens, as in byte-level BPE for a rare script; there is no sentence or line.
  TokenizedText document;
  for (int i = 0; i < 25; ++i) {
    for (const char byte : std::string("\U0001F600")) document.Add(std::string(1, byte));
  }
  for (int32_t target = 5; target < 40; ++target) {
    for (const TokenSpan span : document.Chunk({.target_tokens = target, .tail_tokens_min = 1})) {
      EXPECT_EQ(span.end % 4, 0) << "target " << target;
    }
  }
}

TEST(ChunkerTest, TheMaximumWinsOverACharacter) {
  TokenizedText document;
  for (const char byte : std::string("\U0001F600\U0001F600")) document.Add(std::string(1, byte));
  for (const TokenSpan span : document.Chunk({.target_tokens = 1, .tail_tokens_min = 1})) {
    EXPECT_LE(span.end - span.begin, 2);
  }
}

TEST(ChunkerTest, AShortTailJoinsItsPredecessorUnlessThatGrowsBeyondTheMaximum) {
  TokenizedText joins;
  joins.AddWords(25);
  EXPECT_THAT(joins.Chunk({.target_tokens = 10, .tail_tokens_min = 6}),
              ElementsAre(TokenSpan{0, 10}, TokenSpan{10, 25}));
  // The end of the text is the end of a line as well: 20 words are left behind the first ten, but not 21.
  joins.AddWords(5);
  EXPECT_THAT(joins.Chunk({.target_tokens = 10, .tail_tokens_min = 6}),
              ElementsAre(TokenSpan{0, 10}, TokenSpan{10, 30}));
  joins.AddWords(6);
  EXPECT_THAT(joins.Chunk({.target_tokens = 10, .tail_tokens_min = 6}),
              ElementsAre(TokenSpan{0, 10}, TokenSpan{10, 20}, TokenSpan{20, 36}));

  TokenizedText tail;
  tail.AddWords(12);
  tail.Add(".");
  tail.AddWords(7);
  EXPECT_THAT(tail.Chunk({.target_tokens = 10, .tail_tokens_min = 7}),
              ElementsAre(TokenSpan{0, 13}, TokenSpan{13, 20}));
  EXPECT_THAT(tail.Chunk({.target_tokens = 10, .tail_tokens_min = 8}), ElementsAre(TokenSpan{0, 20}));
  tail.AddWords(1);
  EXPECT_THAT(tail.Chunk({.target_tokens = 10, .tail_tokens_min = 9}),
              ElementsAre(TokenSpan{0, 13}, TokenSpan{13, 21}));
}

TEST(ChunkerTest, TokenIdsAreCutAtTheTarget) {
  const ChunkerOptions options{.target_tokens = 512, .tail_tokens_min = 64};
  EXPECT_TRUE(ChunkDocument(0, "", {}, options).empty());
  EXPECT_THAT(ChunkDocument(1, "", {}, options), ElementsAre(TokenSpan{0, 1}));
  EXPECT_THAT(ChunkDocument(512, "", {}, options), ElementsAre(TokenSpan{0, 512}));
  EXPECT_THAT(ChunkDocument(575, "", {}, options), ElementsAre(TokenSpan{0, 575}));
  EXPECT_THAT(ChunkDocument(576, "", {}, options), ElementsAre(TokenSpan{0, 512}, TokenSpan{512, 576}));
  EXPECT_THAT(ChunkDocument(1087, "", {}, options), ElementsAre(TokenSpan{0, 512}, TokenSpan{512, 1087}));
}

TEST(ChunkerTest, TargetsBelowOneCountAsOne) {
  EXPECT_EQ(ChunkDocument(5, "", {}, {.target_tokens = 0, .tail_tokens_min = 0}).size(), 5u);
  EXPECT_EQ(ChunkDocument(5, "", {}, {.target_tokens = INT32_MAX, .tail_tokens_min = 64}).size(), 1u);
}

// Text of words, marks, line feeds and characters of several bytes, cut into tokens at random bytes.
TokenizedText RandomText(std::mt19937& random) {
  static const std::vector<std::string> kPieces = {" word", ".",      ". ",     "!\n",        "\n",
                                                   "\n\n",  "\u00e9", "\u6f22", "\U0001F680", " \"",
                                                   "?\"",   ",",      "   ",    "\u3002",     " a much longer word",
                                                   "3.14",  "\t"};
  std::string text;
  const int pieces = static_cast<int>(random() % 400);
  const size_t kinds = 1 + random() % kPieces.size();
  for (int i = 0; i < pieces; ++i) text += kPieces[random() % kinds];
  TokenizedText document;
  for (size_t position = 0; position < text.size();) {
    const size_t bytes = std::min<size_t>(1 + random() % 5, text.size() - position);
    document.Add(text.substr(position, bytes));
    position += bytes;
  }
  return document;
}

TEST(ChunkerTest, RandomTextsKeepEveryProperty) {
  std::mt19937 random(20240611);
  for (int round = 0; round < 3000; ++round) {
    const TokenizedText document = RandomText(random);
    const ChunkerOptions options{.target_tokens = static_cast<int32_t>(4 + random() % 60),
                                 .tail_tokens_min = static_cast<int32_t>(random() % 20)};
    const std::vector<TokenSpan> spans = document.Chunk(options);
    ASSERT_EQ(spans, document.Chunk(options));
    int32_t begin = 0;
    for (size_t i = 0; i < spans.size(); ++i) {
      ASSERT_EQ(spans[i].begin, begin);
      const int32_t length = spans[i].end - spans[i].begin;
      ASSERT_GT(length, 0);
      ASSERT_LE(length, 2 * options.target_tokens);
      if (i + 1 < spans.size()) {
        ASSERT_GE(length, options.target_tokens);
        if (IsContinuationByte(document.text, document.ends[spans[i].end - 1])) {
          // Only where the tokens cut characters so badly that no end was allowed and on a boundary.
          ASSERT_EQ(length, 2 * options.target_tokens);
          for (int32_t end = begin + options.target_tokens; end <= spans[i].end; ++end) {
            ASSERT_TRUE(IsContinuationByte(document.text, document.ends[end - 1]));
          }
        }
      } else if (i > 0 && length < options.tail_tokens_min) {
        ASSERT_GT(spans[i].end - spans[i - 1].begin, 2 * options.target_tokens) << "a tail that should have joined";
      }
      begin = spans[i].end;
    }
    ASSERT_EQ(begin, document.tokens());
  }
}

TEST(SectionsTest, TakeChunksWhileTheyFit) {
  const std::vector<TokenSpan> spans = {{0, 4}, {4, 8}, {8, 10}, {10, 13}, {13, 26}, {26, 27}, {27, 36}};
  EXPECT_EQ(SectionBegins(spans, 10), (std::vector<int32_t>{0, 0, 0, 10, 13, 26, 26}));
  EXPECT_EQ(SectionBegins(spans, 100), (std::vector<int32_t>{0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(SectionBegins(spans, 1), (std::vector<int32_t>{0, 4, 8, 10, 13, 26, 27}));
  EXPECT_TRUE(SectionBegins({}, 10).empty());
}

TEST(ChunkerTest, ALongTextOfSpacesIsCutInLinearTime) {
  // Looking back over the whole run at each token would be 10^11 steps here: the test would not end.
  TokenizedText document;
  for (int i = 0; i < 400'000; ++i) document.Add("        ");
  EXPECT_EQ(document.Chunk({}).size(), 781u);
}

}  // namespace
}  // namespace epic
