#include <random>
#include <string>
#include <vector>

#include "engine/text/sampler.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

struct Outcome {
  std::string shown;
  bool stopped = false;
  int stop_index = -1;
  bool operator==(const Outcome&) const = default;
};

Outcome Watch(const std::vector<std::string>& stops, const std::vector<std::string>& pushes) {
  StopMatcher matcher(stops);
  Outcome outcome;
  for (const std::string& push : pushes) {
    const StopMatcher::Result result = matcher.Push(push);
    outcome.shown += result.text;
    outcome.stopped = result.stopped;
    outcome.stop_index = result.stop_index;
  }
  outcome.shown += matcher.Finish();
  return outcome;
}

TEST(StopMatcherTest, StopsAcrossPushes) {
  EXPECT_EQ(Watch({"STOP"}, {"go S", "T", "OP and more", "x"}), (Outcome{"go ", true, 0}));
  EXPECT_EQ(Watch({"\n\n", "END"}, {"a\n", "b\n", "\nc"}), (Outcome{"a\nb", true, 0}));
}

TEST(StopMatcherTest, ShowsAtOnceWhatCannotBeginAStop) {
  StopMatcher matcher({"abcd"});
  EXPECT_EQ(matcher.Push("xyzab").text, "xyz");
  EXPECT_EQ(matcher.Push("ab").text, "ab");
  EXPECT_EQ(matcher.Push("c").text, "");
  EXPECT_EQ(matcher.Push("e").text, "abce");
  EXPECT_EQ(matcher.Push("abc").text, "");
  EXPECT_EQ(matcher.Finish(), "abc");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcherTest, TheFirstToEndDecidesAndTheLongestOfThose) {
  EXPECT_EQ(Watch({"abcd", "c"}, {"xabcd"}), (Outcome{"xab", true, 1}));
  EXPECT_EQ(Watch({"c", "abc", "bc"}, {"xabcd"}), (Outcome{"x", true, 1}));
  EXPECT_EQ(Watch({"aab", "ab"}, {"aaaab"}), (Outcome{"aa", true, 0}));
}

TEST(StopMatcherTest, RepeatedBeginnings) {
  EXPECT_EQ(Watch({"aab"}, {"a", "a", "a", "b"}), (Outcome{"a", true, 0}));
  EXPECT_EQ(Watch({"abab"}, {"aba", "bab"}), (Outcome{"", true, 0}));
}

TEST(StopMatcherTest, AfterAStopNothingIsShown) {
  StopMatcher matcher({"x"});
  EXPECT_TRUE(matcher.Push("ax").stopped);
  const StopMatcher::Result again = matcher.Push("more");
  EXPECT_EQ(again.text, "");
  EXPECT_TRUE(again.stopped);
  EXPECT_EQ(again.stop_index, 0);
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcherTest, NoStopsAndEmptyStopsLetEverythingThrough) {
  EXPECT_EQ(Watch({}, {"a", "", "b"}), (Outcome{"ab", false, -1}));
  EXPECT_EQ(Watch({"", "q"}, {"ab", "q"}), (Outcome{"ab", true, 1}));
}

TEST(StopMatcherTest, KeepsCharactersWhole) {
  StopMatcher matcher({"\u00e9\u00e8"});
  EXPECT_EQ(matcher.Push("caf\u00e9").text, "caf");
  EXPECT_EQ(matcher.Push("\u00e9").text, "\u00e9");
  EXPECT_TRUE(matcher.Push("\u00e8").stopped);
}

// One character at a time, by the definition: at the first place where a stop ends, cut at its beginning.
Outcome WatchByDefinition(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    Outcome outcome;
    for (size_t i = 0; i < stops.size(); ++i) {
      const bool ends_here = text.substr(0, end).ends_with(stops[i]);
      if (ends_here && (!outcome.stopped || stops[i].size() > stops[outcome.stop_index].size())) {
        outcome = {text.substr(0, end - stops[i].size()), true, static_cast<int>(i)};
      }
    }
    if (outcome.stopped) return outcome;
  }
  return {text, false, -1};
}

TEST(StopMatcherTest, DoesNotDependOnHowTheTextIsCut) {
  std::mt19937 random(11);
  const auto word = [&random](size_t length) {
    std::string text;
    for (size_t i = 0; i < length; ++i) text.push_back(static_cast<char>('a' + random() % 2));
    return text;
  };
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> stops;
    for (size_t i = 0; i < 1 + random() % 4; ++i) stops.push_back(word(1 + random() % 7));
    const std::string text = word(random() % 30);
    std::vector<std::string> pushes;
    for (size_t begin = 0; begin < text.size();) {
      const size_t length = random() % 5;
      pushes.push_back(text.substr(begin, length));
      begin += pushes.back().size();
    }
    EXPECT_EQ(Watch(stops, pushes), WatchByDefinition(stops, text)) << text;
  }
}

}  // namespace
}  // namespace epic
