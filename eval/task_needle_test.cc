// Needles in a haystack of numbered sentences, from which the place of each piece can be read off.
#include <cstdio>
#include <set>
#include <sstream>

#include "eval/task_testing.h"
#include "fmt/format.h"
#include "gmock/gmock.h"

namespace epic::eval {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

// Sentences of ten words each, the last of which is its number.
std::string Sentences(int first, int count) {
  std::string text;
  for (int i = first; i < first + count; ++i) {
    text += fmt::format("Each of these has nine words before its number s{}.{}", i, i % 3 == 0 ? "\n" : " ");
  }
  return text;
}

int CountOf(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

std::string Joined(const Example& example) {
  std::string text;
  for (const std::string& document : example.documents) text += document;
  return text;
}

int Words(const std::string& text) {
  std::istringstream stream(text);
  int words = 0;
  for (std::string word; stream >> word;) ++words;
  return words;
}

class NeedleTest : public TaskTest {
 protected:
  NeedleTest() {
    Write("b.txt", Sentences(100, 100));
    Write("a.txt", Sentences(0, 100));
    Write("ignored.md", "Nothing of this. ");
    options_.name = "needle";
    options_.data = folder_;
    options_.needle_words = {100, 995};
    options_.needle_depths_percent = {0, 25, 50, 100};
  }
  TaskOptions options_;
};

TEST_F(NeedleTest, GridOfLengthsAndDepths) {
  const auto task = LoadTask(options_);
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_EQ(task->metric, Metric::kF1);
  EXPECT_EQ(task->output_tokens_max, 32);
  EXPECT_THAT(task->prompt_template, AllOf(HasSubstr("{documents}"), HasSubstr("{city}")));
  EXPECT_THAT(Ids(*task),
              testing::UnorderedElementsAre("needle-100-words-0-percent-1", "needle-100-words-25-percent-1",
                                            "needle-100-words-50-percent-1", "needle-100-words-100-percent-1",
                                            "needle-995-words-0-percent-1", "needle-995-words-25-percent-1",
                                            "needle-995-words-50-percent-1", "needle-995-words-100-percent-1"));
}

TEST_F(NeedleTest, DigestIsOfNamesSizesAndTexts) {
  std::filesystem::remove(folder_ + "/b.txt");
  Write("a.txt", "One two three.\n");
  options_.needle_words = {3};
  const auto task = LoadTask(options_);
  ASSERT_TRUE(task.ok()) << task.status();
  // printf 'a.txt\n15\nOne two three.\n' | sha256sum
  EXPECT_EQ(task->data_digest, "a5fa122c94de4d3e60943f836b1fc85738dd3b04ddb5affb937be328b1bc312e");
  std::filesystem::rename(folder_ + "/a.txt", folder_ + "/c.txt");
  EXPECT_NE(LoadTask(options_)->data_digest, task->data_digest);
}

TEST_F(NeedleTest, NeedleStandsAtItsDepthInConsecutiveText) {
  options_.examples_max = 40;
  const auto task = LoadTask(options_);
  ASSERT_TRUE(task.ok()) << task.status();
  std::set<std::string> cities, numbers, beginnings;
  for (const Example& example : task->examples) {
    int asked_words = 0, depth = 0, round = 0;
    ASSERT_EQ(sscanf(example.id.c_str(), "needle-%d-words-%d-percent-%d", &asked_words, &depth, &round), 3);
    // 995 words end within a sentence of ten, which stays whole.
    const int words = asked_words == 995 ? 1000 : asked_words;
    const std::string text = Joined(example);
    ASSERT_THAT(example.golds, SizeIs(1));
    EXPECT_THAT(example.golds[0], SizeIs(5));
    EXPECT_TRUE(example.answer_in_documents);
    const std::string asked = "What is the magic number of ";
    ASSERT_THAT(example.question, testing::StartsWith(asked));
    const std::string city = example.question.substr(asked.size(), example.question.find('?') - asked.size());
    const std::string needle = fmt::format("The magic number of {} is {}.", city, example.golds[0]);
    EXPECT_EQ(CountOf(text, needle), 1) << text;
    EXPECT_EQ(CountOf(text, example.golds[0]), 1);
    EXPECT_EQ(CountOf(text, city), 1);
    EXPECT_EQ(Words(text), words + 7);
    // As many words before it as its depth says, to half a sentence.
    EXPECT_NEAR(Words(text.substr(0, text.find(needle))), words * depth / 100.0, 5);
    // What is left is numbered without a gap.
    std::string rest = text;
    rest.erase(rest.find(needle), needle.size());
    std::istringstream stream(rest);
    int expected = -1;
    for (std::string word; stream >> word;) {
      int number = 0;
      if (sscanf(word.c_str(), "s%d.", &number) != 1) continue;
      EXPECT_TRUE(expected < 0 || number == expected) << number << " after " << expected - 1;
      expected = number + 1;
    }
    cities.insert(city);
    numbers.insert(example.golds[0]);
    beginnings.insert(text.substr(0, 200));
  }
  EXPECT_THAT(task->examples, SizeIs(40));
  EXPECT_GT(cities.size(), 10);
  EXPECT_GT(numbers.size(), 35);
  EXPECT_GT(beginnings.size(), 20);
}

TEST_F(NeedleTest, TheTextIsOneDocumentOfWholeSentences) {
  options_.needle_words = {1000};
  const auto task = LoadTask(options_);
  ASSERT_TRUE(task.ok()) << task.status();
  for (const Example& example : task->examples) {
    ASSERT_THAT(example.documents, SizeIs(1));
    EXPECT_EQ(Words(example.documents[0]), 1007);
    EXPECT_THAT(example.documents[0], testing::EndsWith(".\n\n"));
    EXPECT_THAT(example.documents[0], Not(testing::StartsWith(" ")));
  }
}

TEST_F(NeedleTest, SameSeedSameExamplesAndFewerAreTheFirstOfMore) {
  options_.examples_max = 20;  // two rounds and a half
  const auto task = LoadTask(options_);
  const auto again = LoadTask(options_);
  options_.examples_max = 11;
  const auto fewer = LoadTask(options_);
  options_.seed = 2;
  const auto other = LoadTask(options_);
  ASSERT_TRUE(task.ok() && again.ok() && fewer.ok() && other.ok());
  ASSERT_THAT(task->examples, SizeIs(20));
  ASSERT_THAT(fewer->examples, SizeIs(11));
  const std::vector<std::string> ids = Ids(*task);
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), 20);
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(task->examples[i].documents, again->examples[i].documents);
    EXPECT_EQ(task->examples[i].id, again->examples[i].id);
    if (i < 11) {
      EXPECT_EQ(task->examples[i].documents, fewer->examples[i].documents);
    }
  }
  EXPECT_NE(Ids(*fewer), Ids(*other));
  // The same length and depth, hidden elsewhere.
  for (const Example& example : other->examples) {
    if (example.id == task->examples[0].id) {
      EXPECT_NE(example.documents, task->examples[0].documents);
    }
  }
}

TEST_F(NeedleTest, TheWholeHaystackIsEnough) {
  options_.needle_words = {2000};
  EXPECT_TRUE(LoadTask(options_).ok());
  options_.needle_words = {100, 2001};
  const auto task = LoadTask(options_);
  EXPECT_EQ(task.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(task.status().message(), HasSubstr("its texts have 2000 words, expected at least 2001"));
}

TEST_F(NeedleTest, CitiesAndNumbersOfTheTextsAreNotAsked) {
  // All five-digit numbers but 77777, in runs of ten digits too, and all cities but one.
  std::string text =
      "lisbon NAIROBI Oslo Hanoi Quito Dakar Riga Havana Jakarta Warsaw Lima Helsinki Marseille Osaka "
      "Cairo Dublin Prague Bogota Tbilisi Perth Montreal Kampala Reykjavik Manila Naples Ankara "
      "Casablancas Zagreb Tallinn Santiago Kyoto. ";
  for (int number = 10'000; number < 100'000; ++number) {
    if (number != 77'777) text += fmt::format("{} ", number);
  }
  Write("a.txt", text);
  const auto task = LoadTask(options_);
  ASSERT_TRUE(task.ok()) << task.status();
  for (const Example& example : task->examples) {
    EXPECT_THAT(example.question, HasSubstr("of Mombasa?"));
    EXPECT_THAT(example.golds, ElementsAre("77777"));
  }
  Write("a.txt", text + "1777779");
  EXPECT_THAT(LoadTask(options_).status().message(), HasSubstr("name every five-digit number"));
  Write("a.txt", text + "mombasa");
  EXPECT_THAT(LoadTask(options_).status().message(), HasSubstr("name every city"));
}

TEST_F(NeedleTest, TextWithoutSentenceEndsIsCutAllTheSame) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "word\n";
  Write("a.txt", text + "\n\nHeading\n\nHe said \"yes.\" Then (no?) It went\u201D on.\u201D End");
  options_.needle_words = {2500};
  options_.needle_depths_percent = {50};
  const auto task = LoadTask(options_);
  ASSERT_TRUE(task.ok()) << task.status();
  const std::string documents = Joined(task->examples[0]);
  EXPECT_NEAR(Words(documents.substr(0, documents.find("The magic"))), 1250, 50);
}

TEST_F(NeedleTest, QuotesBracketsAndBlankLinesAroundSentenceEnds) {
  std::filesystem::remove(folder_ + "/b.txt");
  Write("a.txt", "He said \"yes.\" Then (no?) Heading\n\nIt went\u201D on.\u201D End 3.5 of it");
  // Sentences end after 3, 5, 6 and 9 of 13 words: the needle stands nowhere else.
  options_.needle_words = {13};
  options_.needle_depths_percent = {20, 30, 40, 50, 70};
  const auto all = LoadTask(options_);
  ASSERT_TRUE(all.ok()) << all.status();
  for (const Example& example : all->examples) {
    int words = 0, depth = 0;
    ASSERT_EQ(sscanf(example.id.c_str(), "needle-%d-words-%d", &words, &depth), 2);
    const std::string text = Joined(example);
    const int before = Words(text.substr(0, text.find("The magic")));
    EXPECT_EQ(before, depth <= 30 ? 3 : depth == 40 ? 5 : depth == 50 ? 6 : 9) << depth;
  }
}

TEST_F(NeedleTest, BrokenAndEmptyTextsAreLeftOutAndNamed) {
  Write("c.txt", "Good until \xFF here.");
  Write("d.txt", " \n");
  const auto task = LoadTask(options_);
  ASSERT_TRUE(task.ok()) << task.status();
  ASSERT_THAT(task->skipped, SizeIs(2));
  EXPECT_EQ(task->skipped[0].id, "c.txt");
  EXPECT_EQ(task->skipped[0].reason, "invalid UTF-8 (byte 11 of the text)");
  EXPECT_EQ(task->skipped[1].id, "d.txt");
  EXPECT_EQ(task->skipped[1].reason, "an empty text");
  std::filesystem::remove(folder_ + "/a.txt");
  std::filesystem::remove(folder_ + "/b.txt");
  EXPECT_THAT(LoadTask(options_).status().message(),
              HasSubstr("none of its 2 texts can be used: 1 x an empty text, 1 x invalid UTF-8"));
}

TEST_F(NeedleTest, FoldersThatAreNone) {
  options_.data = folder_ + "/missing";
  EXPECT_EQ(LoadTask(options_).status().code(), absl::StatusCode::kNotFound);
  options_.data = folder_ + "/a.txt";
  EXPECT_THAT(LoadTask(options_).status().message(), HasSubstr("is a file, expected a folder of texts"));
  options_.data = folder_ + "/empty";
  std::filesystem::create_directory(options_.data);
  EXPECT_THAT(LoadTask(options_).status().message(), HasSubstr("has no text, expected files *.txt"));
  std::filesystem::create_directory(options_.data + "/x.txt");
  EXPECT_THAT(LoadTask(options_).status().message(), HasSubstr("x.txt: is a folder, expected a text"));
}

TEST_F(NeedleTest, TextsOverAGibibyteTogetherAreNotRead) {
  Write("z.txt", "");
  // With the two others one byte too many; a hole, no bytes on the disk.
  const auto others = std::filesystem::file_size(folder_ + "/a.txt") + std::filesystem::file_size(folder_ + "/b.txt");
  std::filesystem::resize_file(folder_ + "/z.txt", static_cast<uintmax_t>(kDataBytesMax) - others + 1);
  const auto task = LoadTask(options_);
  EXPECT_EQ(task.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(task.status().message(), HasSubstr("z.txt: has 10737"));
}

TEST_F(NeedleTest, GridsOutOfRange) {
  const auto message = [this](std::vector<int32_t> words, std::vector<int32_t> depths, int32_t examples_max = 0) {
    options_.needle_words = std::move(words);
    options_.needle_depths_percent = std::move(depths);
    options_.examples_max = examples_max;
    const auto task = LoadTask(options_);
    EXPECT_EQ(task.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(task.status().message());
  };
  EXPECT_THAT(message({}, {0}), HasSubstr("no lengths in words"));
  EXPECT_THAT(message({10}, {}), HasSubstr("no depths in percent"));
  EXPECT_THAT(message({0}, {0}), HasSubstr("0 is out of range for needles' lengths in words"));
  EXPECT_THAT(message({10}, {101}), HasSubstr("101 is out of range for needles' depths in percent, expected 0 to 100"));
  EXPECT_THAT(message({10}, {-1}), HasSubstr("-1 is out of range"));
  EXPECT_THAT(message({10, 20, 10}, {0}), HasSubstr("10 stands twice"));
  EXPECT_THAT(message({10}, {0}, kNeedleExamplesMax + 1), HasSubstr("10001 needles were asked, at most 10000"));
  std::vector<int32_t> many(5001);
  for (int32_t i = 0; i < 5001; ++i) many[static_cast<size_t>(i)] = i + 1;
  EXPECT_THAT(message(many, {0, 1}), HasSubstr("10002 lengths and depths"));
}

}  // namespace
}  // namespace epic::eval
