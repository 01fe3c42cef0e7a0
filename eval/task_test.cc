// The loaders of data files. Texts are written by hand here; digests and orders come from other programs (sha256sum,
// and a separate implementation of the generators).
#include "eval/task.h"

#include <algorithm>
#include <set>

#include "eval/task_random.h"
#include "eval/task_testing.h"
#include "fmt/format.h"
#include "gmock/gmock.h"

namespace epic::eval {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

constexpr char kBookLine[] =
    R"({"input": "Who wrote it?", "context": "Passage 1:\nA Book\nAnn wrote it.\n\nPassage 2:\nA Lake\nIt is deep.", )"
    R"("answers": ["Ann"], "length": 12, "dataset": "hotpotqa", "_id": "q7"})"
    "\n";

// One example a passage text, in LongBench's schema.
std::string Context(std::string_view escaped_context, std::string_view id = "a") {
  return fmt::format(R"({{"input": "Why?", "context": "{}", "answers": ["yes"], "_id": "{}"}})"
                     "\n",
                     escaped_context, id);
}

std::string Contexts(std::string_view passages) {
  return fmt::format(R"([{{"question": "Why?", "answers": ["yes"], "ctxs": {}}}])", passages);
}

std::string Dialogues(int count) {
  std::string lines;
  for (int i = 1; i <= count; ++i) {
    lines += fmt::format(R"({{"id": "d{0}", "dialogue": "Ann: word{0}\r\nBob: ok", "summary": "Sum{0}."}})"
                         "\n",
                         i);
  }
  return lines;
}

std::string MessageOf(const absl::StatusOr<Task>& task) { return std::string(task.status().message()); }

TEST_F(TaskTest, NamesAreTheSixTasks) {
  EXPECT_THAT(TaskNames(), ElementsAre("2wikimqa", "musique", "hotpotqa", "samsum", "multi_news", "needle"));
}

TEST_F(TaskTest, LongBenchQuestion) {
  const absl::StatusOr<Task> task = LoadText("hotpotqa", kBookLine);
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_EQ(task->name, "hotpotqa");
  EXPECT_EQ(task->metric, Metric::kF1);
  EXPECT_EQ(task->output_tokens_max, 32);
  EXPECT_FALSE(task->scores_first_line);
  EXPECT_EQ(task->data_digest, "b0ba8a14865dee4af51268f130cfa069112e1c69977111ae9c03eac6df7104da");
  EXPECT_THAT(task->skipped, IsEmpty());
  ASSERT_THAT(task->examples, SizeIs(1));
  const Example& example = task->examples[0];
  EXPECT_EQ(example.id, "q7");
  EXPECT_THAT(example.documents, ElementsAre("A Book\nAnn wrote it.\n\n", "A Lake\nIt is deep.\n\n"));
  EXPECT_THAT(example.question, testing::EndsWith("\n\nQuestion: Who wrote it?\nAnswer:"));
  EXPECT_THAT(example.golds, ElementsAre("Ann"));
  EXPECT_TRUE(example.answer_in_documents);
  // The template is the prompt with names for its parts.
  std::string expected = example.preface + "{documents}\n\n" + example.question;
  expected.replace(expected.find("Who wrote it?"), 13, "{question}");
  EXPECT_EQ(task->prompt_template, expected);
}

TEST_F(TaskTest, LengthsAndMetricsAreLongBenchs) {
  const auto summary =
      LoadText("multi_news",
               R"({"input": "", "context": "Passage 1:\nx", "answers": ["s"], "_id": "a", "dataset": "multi_news"})");
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->output_tokens_max, 512);
  EXPECT_EQ(summary->metric, Metric::kRougeL);
  EXPECT_FALSE(summary->scores_first_line);
  const auto dialogue = LoadText("samsum", Dialogues(9));
  ASSERT_TRUE(dialogue.ok()) << dialogue.status();
  EXPECT_EQ(dialogue->output_tokens_max, 128);
  EXPECT_EQ(dialogue->metric, Metric::kRougeL);
  EXPECT_TRUE(dialogue->scores_first_line);
}

TEST_F(TaskTest, PassageMarksCountOnlyInSequenceAndAtALinesBeginning) {
  const auto task = LoadText("musique", Context("Before.\\nPassage 3: same line\\r\\nsee Passage 4:\\nPassage 7:\\n"
                                                "Passage 4 says\\nPassage 4:\\nlast"));
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_THAT(task->examples[0].documents,
              ElementsAre("Before.\n\n", "same line\nsee Passage 4:\nPassage 7:\nPassage 4 says\n\n", "last\n\n"));
}

TEST_F(TaskTest, MarkedLineBreaksOfNewsBecomeLineBreaks) {
  const std::string text =
      R"({"input": "", "context": "Passage 1:\nOne. NEWLINE_CHAR NEWLINE_CHAR Two.NEWLINE_CHAR3 NEWLINE_CHAR\nPassage 2:\nB", )"
      R"("answers": ["A NEWLINE_CHAR gold"]})";
  const auto task = LoadText("multi_news", text);
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_THAT(task->examples[0].documents, ElementsAre("One.\n\nTwo.\n3\n\n", "B\n\n"));
  EXPECT_THAT(task->examples[0].golds, ElementsAre("A NEWLINE_CHAR gold"));
  EXPECT_THAT(task->examples[0].question, testing::EndsWith("\n\nSummary:"));
  // Elsewhere it is text as any other.
  const auto other = LoadText("musique", Context("Passage 1:\\na NEWLINE_CHAR b"));
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_THAT(other->examples[0].documents, ElementsAre("a NEWLINE_CHAR b\n\n"));
}

TEST_F(TaskTest, LongBenchFewShotExamplesAreOneDocumentEach) {
  const std::string text =
      R"({"input": "Dialogue: Eve: hi\r\nDan: hey\nSummary: ", "context": "Dialogue: A: x\nDialogue: no\nSummary: One\nmore.\n)"
      R"(Dialogue: B: y\nSummary: Two.\n", "answers": ["They greet."], "_id": "s", "dataset": "samsum_e"})";
  const auto task = LoadText("samsum", text);
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_THAT(task->examples[0].documents, ElementsAre("Dialogue: A: x\nDialogue: no\nSummary: One\nmore.\n\n",
                                                       "Dialogue: B: y\nSummary: Two.\n\n"));
  EXPECT_THAT(task->examples[0].question, testing::EndsWith("\n\nDialogue: Eve: hi\nDan: hey\nSummary:"));
  EXPECT_THAT(task->examples[0].question, Not(HasSubstr("Dialogue: Dialogue:")));
}

TEST_F(TaskTest, ContextsAsArrayAndAsLines) {
  constexpr std::string_view kPassages =
      R"({"question": "Who, [or what}?", "answers": ["The Lake", "x"], "ctxs": [{"title": " T ", "text": "text }],\\\" 1"},)"
      R"( {"title": "", "text": "a  lake\r\n2"}, {"title": null, "text": "3"}, {"text": "4", "score": 1}]})";
  for (const std::string& text :
       {fmt::format("\xEF\xBB\xBF [{0},\n {0} ]\n", kPassages), fmt::format("{0}\n\n{0}", kPassages)}) {
    const auto task = LoadText("2wikimqa", text);
    ASSERT_TRUE(task.ok()) << task.status();
    EXPECT_THAT(Ids(*task), testing::UnorderedElementsAre("2wikimqa-1", "2wikimqa-2"));
    for (const Example& example : task->examples) {
      EXPECT_THAT(example.documents, ElementsAre("T\ntext }],\\\" 1\n\n", "a  lake\n2\n\n", "3\n\n", "4\n\n"));
      EXPECT_THAT(example.question, HasSubstr("Question: Who, [or what}?\n"));
      EXPECT_THAT(example.golds, ElementsAre("The Lake", "x"));
      EXPECT_TRUE(example.answer_in_documents);  // "lake", without article and case
    }
  }
}

TEST_F(TaskTest, ContextsServeDialoguesAndNewsToo) {
  const auto dialogue = LoadText("samsum", Contexts(R"([{"text": "Dialogue: A\nSummary: B"}])"));
  ASSERT_TRUE(dialogue.ok()) << dialogue.status();
  EXPECT_THAT(dialogue->examples[0].question, testing::EndsWith("\n\nDialogue: Why?\nSummary:"));
  const auto news =
      LoadText("multi_news", R"([{"question": "", "answers": ["yes"], "ctxs": [{"text": "a NEWLINE_CHAR b"}]}])");
  ASSERT_TRUE(news.ok()) << news.status();
  EXPECT_THAT(news->examples[0].documents, ElementsAre("a\nb\n\n"));
}

TEST_F(TaskTest, SaysWhetherAnAnswerStandsInTheDocuments) {
  const auto answers = [this](std::string_view golds) {
    const auto task = LoadText(
        "musique",
        fmt::format(
            R"([{{"question": "q", "answers": {}, "ctxs": [{{"text": "No."}}, {{"text": "In New-York, 1990"}}]}}])",
            golds));
    EXPECT_TRUE(task.ok()) << task.status();
    return task.ok() && task->examples[0].answer_in_documents;
  };
  EXPECT_TRUE(answers(R"(["new-york"])"));
  EXPECT_TRUE(answers(R"(["Rome", "1990."])"));
  EXPECT_FALSE(answers(R"(["Rome", "1991"])"));
  EXPECT_FALSE(answers(R"(["The"])"));  // nothing is left of it
}

TEST_F(TaskTest, DialoguesGetOthersAsExamples) {
  // Twelve lines, of which the last repeats the first one's dialogue under another id.
  const std::string text = Dialogues(11) + R"({"id": "again", "dialogue": "Ann: word1\nBob: ok", "summary": "Other."})";
  const auto task = LoadText("samsum", text);
  ASSERT_TRUE(task.ok()) << task.status();
  ASSERT_THAT(task->examples, SizeIs(12));
  std::set<std::string> first_documents;
  for (const Example& example : task->examples) {
    const size_t begin = example.question.rfind("Dialogue: ");
    const std::string asked = example.question.substr(begin, example.question.rfind("\nSummary:") - begin);
    ASSERT_THAT(example.documents, SizeIs(8));
    EXPECT_EQ(std::set<std::string>(example.documents.begin(), example.documents.end()).size(), 8);
    for (const std::string& document : example.documents) {
      EXPECT_THAT(document, AllOf(StartsWith("Dialogue: Ann: word"), HasSubstr("\nBob: ok\nSummary: Sum"),
                                  testing::EndsWith(".\n\n"), Not(StartsWith(asked + "\n"))));
    }
    first_documents.insert(example.documents[0]);
    if (example.id == "again") {
      EXPECT_THAT(example.golds, ElementsAre("Other."));
      EXPECT_EQ(asked, "Dialogue: Ann: word1\nBob: ok");
    }
  }
  EXPECT_GT(first_documents.size(), 3);  // each draws its own
}

TEST_F(TaskTest, ExamplesOfADialogueDoNotDependOnHowManyAreAsked) {
  const auto all = LoadText("samsum", Dialogues(20), 5);
  const auto few = LoadText("samsum", Dialogues(20), 5, 3);
  ASSERT_TRUE(all.ok() && few.ok());
  ASSERT_THAT(few->examples, SizeIs(3));
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(few->examples[i].id, all->examples[i].id);
    EXPECT_EQ(few->examples[i].documents, all->examples[i].documents);
  }
  const auto other = LoadText("samsum", Dialogues(20), 6);
  ASSERT_TRUE(other.ok());
  const auto found = std::find_if(other->examples.begin(), other->examples.end(),
                                  [&](const Example& example) { return example.id == all->examples[0].id; });
  ASSERT_NE(found, other->examples.end());
  EXPECT_NE(found->documents, all->examples[0].documents);
}

TEST_F(TaskTest, TooFewDialogues) {
  const auto task = LoadText("samsum", Dialogues(8) + Dialogues(1));
  EXPECT_EQ(task.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(task), HasSubstr("8 different dialogues that can be used, expected at least 9"));
}

TEST_F(TaskTest, OrderFollowsFromTheSeed) {
  std::string text;
  for (int i = 1; i <= 10; ++i) text += Context("Passage 1:\\nx", fmt::format("{}", i));
  const auto first = LoadText("musique", text, 1);
  const auto second = LoadText("musique", text, 2);
  const auto few = LoadText("musique", text, 1, 4);
  const auto more_than_all = LoadText("musique", text, 1, 11);
  ASSERT_TRUE(first.ok() && second.ok() && few.ok() && more_than_all.ok());
  EXPECT_THAT(Ids(*first), ElementsAre("6", "1", "9", "8", "4", "2", "10", "7", "5", "3"));
  EXPECT_THAT(Ids(*second), ElementsAre("5", "10", "9", "6", "1", "8", "7", "3", "4", "2"));
  EXPECT_THAT(Ids(*few), ElementsAre("6", "1", "9", "8"));
  EXPECT_EQ(Ids(*more_than_all), Ids(*first));
}

TEST(TaskRandom, IsTheSameEverywhere) {
  TaskRandom random(7, 3);
  std::vector<uint64_t> drawn;
  for (int i = 0; i < 6; ++i) drawn.push_back(random.Below(1000));
  EXPECT_THAT(drawn, ElementsAre(222, 38, 134, 351, 188, 66));
  // A bound just over half of all values: about every second draw is thrown away.
  TaskRandom wide(7, 3);
  const uint64_t bound = (uint64_t{1} << 63) + 1;
  EXPECT_EQ(wide.Below(bound), 8505618711377202351U);
  EXPECT_EQ(wide.Below(bound), 4995339730096559066U);
  EXPECT_EQ(wide.Below(bound), 422085625200377693U);
}

TEST_F(TaskTest, IdsAreMadeUnique) {
  const std::string text = Context("Passage 1:\\nx", "b") + Context("Passage 1:\\nx", "b#2") +
                           Context("Passage 1:\\nx", "b") + Context("Passage 1:\\nx", "b") +
                           Context("Passage 1:\\nx", "\\n\\u0007x") + Context("Passage 1:\\nx", std::string(129, 'i')) +
                           R"({"input": "q", "context": "Passage 1:\nx", "answers": ["y"], "id": 70})";
  const auto task = LoadText("musique", text);
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_THAT(Ids(*task), testing::UnorderedElementsAre("b", "b#2", "b#3", "b#4", "musique-5", "musique-6", "70"));
}

// --- Examples that are left out.

struct SkipCase {
  const char* name;
  std::string line;
  const char* reason;
};

class SkippedTest : public TaskTest, public testing::WithParamInterface<SkipCase> {};

TEST_P(SkippedTest, IsCountedWithItsReason) {
  const auto task = LoadText("musique", Context("Passage 1:\\nx", "good") + GetParam().line + "\n");
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_THAT(Ids(*task), ElementsAre("good"));
  ASSERT_THAT(task->skipped, SizeIs(1));
  EXPECT_EQ(task->skipped[0].reason, GetParam().reason);
  // Alone it leaves nothing to ask, which is an error that says why.
  const auto alone = LoadText("musique", GetParam().line);
  EXPECT_EQ(alone.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string reason(GetParam().reason);
  EXPECT_THAT(MessageOf(alone), AllOf(HasSubstr("none of its 1 examples can be asked: 1 x "),
                                      HasSubstr(reason.substr(0, reason.find(" (")))));
}

INSTANTIATE_TEST_SUITE_P(
    Longbench, SkippedTest,
    testing::Values(
        SkipCase{"NoAnswers", R"({"input": "q", "context": "Passage 1:\nx"})", "no answers"},
        SkipCase{"NullAnswers", R"({"input": "q", "context": "Passage 1:\nx", "answers": null})",
                 "answers is no list (it is null)"},
        SkipCase{"EmptyAnswers", R"({"input": "q", "context": "Passage 1:\nx", "answers": []})", "answers is empty"},
        SkipCase{"BlankAnswer", R"({"input": "q", "context": "Passage 1:\nx", "answers": ["a", " "]})",
                 "an empty answer (answers[1])"},
        SkipCase{"NumberAsAnswer", R"({"input": "q", "context": "Passage 1:\nx", "answers": [5]})",
                 "an answer is no text (answers[0] is number)"},
        SkipCase{"NoQuestion", R"({"input": " \n", "context": "Passage 1:\nx", "answers": ["a"]})", "empty input"},
        SkipCase{"EmptyContext", R"({"input": "q", "context": "", "answers": ["a"]})", "empty context"},
        SkipCase{"ContextIsAList", R"({"input": "q", "context": ["x"], "answers": ["a"]})",
                 "context is no text (it is array)"},
        SkipCase{"NoPassages", R"({"input": "q", "context": "only text", "answers": ["a"]})",
                 "no line `Passage 1:` in context"},
        SkipCase{"EmptyPassage",
                 R"({"input": "q", "context": "Passage 1:\nx\nPassage 2:\n \nPassage 3:\ny", "answers": ["a"]})",
                 "an empty passage (passage 2)"},
        SkipCase{"EmptyLastPassage", R"({"input": "q", "context": "Passage 1:\nx\nPassage 2:\n", "answers": ["a"]})",
                 "an empty passage (passage 2)"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_F(TaskTest, FewShotContextsThatAreNoExamples) {
  const auto line = [](std::string_view context) {
    return fmt::format(R"({{"input": "Dialogue: q\nSummary:", "context": "{}", "answers": ["a"]}})"
                       "\n",
                       context);
  };
  const auto task = LoadText(
      "samsum", line("Dialogue: a\\nSummary: b") + line("only text") + line("Dialogue: a\\nSummary: b\\nDialogue: c") +
                    R"({"input": "Dialogue: \nSummary:", "context": "Dialogue: a\nSummary: b", "answers": ["a"]})");
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_THAT(task->examples, SizeIs(1));
  ASSERT_THAT(task->skipped, SizeIs(3));
  EXPECT_EQ(task->skipped[0].reason, "no line `Dialogue:` in context");
  EXPECT_EQ(task->skipped[1].reason, "an example without a summary (number 2)");
  EXPECT_EQ(task->skipped[2].reason, "empty input");
}

TEST_F(TaskTest, ContextsThatCannotBeAsked) {
  const auto reason = [this](std::string_view passages) {
    const auto task = LoadText("musique", Contexts(passages));
    EXPECT_EQ(task.status().code(), absl::StatusCode::kInvalidArgument);
    const std::string message = MessageOf(task);
    return message.substr(message.find("1 x "));
  };
  EXPECT_EQ(reason("[]"), "1 x ctxs is empty");
  EXPECT_EQ(reason("{}"), "1 x ctxs is no list");
  EXPECT_EQ(reason(R"([{"title": "t", "text": "x"}, {"title": "t", "text": " "}])"), "1 x an empty passage");
  EXPECT_EQ(reason(R"([{"title": "t"}])"), "1 x an empty passage");
  EXPECT_EQ(reason(R"(["text"])"), "1 x a passage is no object");
  EXPECT_EQ(reason(R"([{"title": 3, "text": "x"}])"), "1 x a title is no text");
}

TEST_F(TaskTest, DialoguesThatCannotBeUsed) {
  const auto task = LoadText("samsum", Dialogues(9) + R"({"id": "x", "dialogue": "", "summary": "s"})"
                                                      "\n"
                                                      R"({"id": "y", "dialogue": "d", "summary": null})");
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_THAT(task->examples, SizeIs(9));
  ASSERT_THAT(task->skipped, SizeIs(2));
  EXPECT_EQ(task->skipped[0].id, "x");
  EXPECT_EQ(task->skipped[0].reason, "empty dialogue");
  EXPECT_EQ(task->skipped[1].reason, "summary is no text (it is null)");
}

TEST_F(TaskTest, InvalidUtf8SpoilsOneExampleOnly) {
  const std::string good = R"({"question": "q", "answers": ["a"], "ctxs": [{"text": "x"}]})";
  // The first byte of a character of two, then a quote that still ends the string.
  const std::string bad = "{\"question\": \"q\xC3\", \"answers\": [\"a\"], \"ctxs\": [{\"text\": \"x\"}]}";
  const auto array = LoadText("musique", "[" + good + ",\n" + bad + "," + good + "]");
  ASSERT_TRUE(array.ok()) << array.status();
  EXPECT_THAT(array->examples, SizeIs(2));
  ASSERT_THAT(array->skipped, SizeIs(1));
  EXPECT_EQ(array->skipped[0].id, "musique-2");
  EXPECT_EQ(array->skipped[0].reason, fmt::format("invalid UTF-8 (line 2, byte {} of the file)", good.size() + 18));
  // In the first line of lines, so that the schema is told by the second.
  const auto lines = LoadText("musique", bad + "\n" + good);
  ASSERT_TRUE(lines.ok()) << lines.status();
  EXPECT_EQ(lines->skipped[0].reason, "invalid UTF-8 (line 1, byte 15 of the file)");
}

TEST_F(TaskTest, HalfASurrogatePairSpoilsOneExampleOnly) {
  const std::string good = R"({"question": "\ud83d\ude00 \\ud800", "answers": ["a"], "ctxs": [{"text": "x"}]})";
  for (const char* const half : {R"(\ud83d)", R"(\uDE00)", R"(\ud83d\ud83d)", R"(\ud83d\n)"}) {
    const std::string bad = fmt::format(R"({{"question": "{}", "answers": ["a"], "ctxs": [{{"text": "x"}}]}})", half);
    const auto task = LoadText("musique", fmt::format("{}\n{}", good, bad));
    ASSERT_TRUE(task.ok()) << task.status();
    EXPECT_THAT(task->examples[0].question, HasSubstr("Question: \U0001F600 \\ud800\n"));
    ASSERT_THAT(task->skipped, SizeIs(1));
    EXPECT_EQ(task->skipped[0].reason,
              fmt::format("half a surrogate pair (line 2, byte {} of the file)", good.size() + 15));
  }
  // A whole pair before it is passed over.
  const auto behind_pair = LoadText("musique", fmt::format("{}\n{{\"question\": \"\\ud83d\\ude00\\ud83d\"}}", good));
  ASSERT_TRUE(behind_pair.ok()) << behind_pair.status();
  ASSERT_THAT(behind_pair->skipped, SizeIs(1));
  EXPECT_EQ(behind_pair->skipped[0].reason,
            fmt::format("half a surrogate pair (line 2, byte {} of the file)", good.size() + 15 + 12));
}

TEST_F(TaskTest, SkipsAreCountedOverTheWholeFile) {
  std::string text;
  for (int i = 0; i < 6; ++i) text += Context(i % 2 == 0 ? "Passage 1:\\nx" : "", fmt::format("{}", i));
  const auto task = LoadText("musique", text + Context("no mark"), 1, 1);
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_THAT(task->examples, SizeIs(1));
  EXPECT_EQ(DescribeSkips(task->skipped), "3 x empty context, 1 x no line `Passage 1:` in context");
  EXPECT_EQ(DescribeSkips({}), "");
}

// --- Files that are refused.

struct BrokenCase {
  const char* name;
  std::string text;
  const char* message;
};

class BrokenTest : public TaskTest, public testing::WithParamInterface<BrokenCase> {};

TEST_P(BrokenTest, IsAnErrorThatSaysWhere) {
  const auto task = LoadText("musique", GetParam().text);
  EXPECT_EQ(task.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(task), AllOf(StartsWith(folder_), HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Files, BrokenTest,
    testing::Values(
        BrokenCase{"Empty", "", "holds no example, expected one JSON object a line or one array of objects"},
        BrokenCase{"EmptyArray", "[ ]", "holds no example"},
        BrokenCase{"NoJson", Context("Passage 1:\\nx") + "\n{\"input\": \n", "line 3: expected JSON in UTF-8"},
        BrokenCase{
            "OtherSchema", R"({"data": [], "version": 1})",
            R"(line 1: expected an object with the keys {input, context}, {question, ctxs} or {dialogue, summary}, )"
            R"(found "data", "version")"},
        BrokenCase{
            "ChangingSchema", Context("Passage 1:\\nx") + R"({"question": "q", "ctxs": []})",
            R"(line 2: expected an object with the keys {input, context} as in line 1, found "ctxs", "question")"},
        BrokenCase{"NoObject", "[\n[1]]", "line 2: expected a JSON object, found an array of 1"},
        BrokenCase{"CutArray", "[{\"question\": \"q\"},\n\n {\"question\": \"",
                   "line 1 has no end: its element 2, in line 3"},
        BrokenCase{"WrongBracket", "[{\"question\": \"q\"}}]", "has no end"},
        BrokenCase{"ArrayEndsInComma", "[1,", "has no end: its element 2"},
        BrokenCase{"BehindTheArray", "[{}]\n[{}]", "line 2 stands behind the end of the array"},
        BrokenCase{"TwoKeys", R"({"input": "a", "input": "b", "context": ""})", "\"input\" stands twice"},
        BrokenCase{"Deep", std::string(100000, '['), "has no end"},
        BrokenCase{"DeepInAnElement", "[" + std::string(1000, '[') + std::string(1000, ']') + "]", "nests 1000 deep"},
        BrokenCase{"OtherTask", kBookLine, "line 1: belongs to the data set \"hotpotqa\", the task is musique"},
        BrokenCase{"Dialogues", Dialogues(9), "which task samsum reads; task musique expected"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_F(TaskTest, UnknownTaskNamesTheNearest) {
  const auto task = LoadText("musiqe", "");
  EXPECT_EQ(task.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MessageOf(task), "unknown task \"musiqe\" (did you mean \"musique\"?)");
}

TEST_F(TaskTest, TheEvenlySpreadVariantOfASetIsThatSet) {
  std::string text = kBookLine;
  text.replace(text.find("\"hotpotqa\""), 10, "\"hotpotqa_e\"");
  EXPECT_TRUE(LoadText("hotpotqa", text).ok());
  EXPECT_THAT(MessageOf(LoadText("musique", text)), HasSubstr("belongs to the data set \"hotpotqa\""));
}

TEST_F(TaskTest, PathsThatAreNoFile) {
  const auto missing = LoadTask({.name = "musique", .data = folder_ + "/missing.json"});
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(MessageOf(missing), HasSubstr("missing.json\": no such file, expected the data file of task musique"));
  const auto folder = LoadTask({.name = "musique", .data = folder_});
  EXPECT_EQ(folder.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(folder), HasSubstr("is a folder, expected the data file of task musique"));
  EXPECT_EQ(LoadTask({.name = "musique", .data = ""}).status().code(), absl::StatusCode::kNotFound);
  const auto device = LoadTask({.name = "musique", .data = "/dev/zero"});
  EXPECT_EQ(device.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(TaskTest, AFileOverAGibibyteIsNotRead) {
  const std::string path = Write("large.json", "");
  std::filesystem::resize_file(path, static_cast<uintmax_t>(kDataBytesMax) + 1);  // a hole, no bytes on the disk
  const auto task = LoadTask({.name = "musique", .data = path});
  EXPECT_EQ(task.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(task), HasSubstr("has 1073741825 bytes, at most 1073741824 are read"));
}

TEST_F(TaskTest, NegativeCountIsRefused) {
  const auto task = LoadText("hotpotqa", kBookLine, 1, -1);
  EXPECT_EQ(task.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(task), HasSubstr("-1 examples were asked"));
}

// --- Scores.

TEST(Score, BestOfTheGoldAnswers) {
  EXPECT_STREQ(MetricName(Metric::kF1), "F1");
  EXPECT_STREQ(MetricName(Metric::kRougeL), "ROUGE-L");
  // One word of two is right, all of the gold's one is there: 2 * (1/2 * 1) / (1/2 + 1).
  EXPECT_DOUBLE_EQ(Score(Metric::kF1, "Ann Smith", {"nobody", "ann"}), 2.0 / 3);
  EXPECT_NEAR(Score(Metric::kRougeL, "a cat sat", {"dogs", "a cat sat"}), 1, 1e-6);
  EXPECT_EQ(Score(Metric::kRougeL, "a cat sat", {"dogs", "birds"}), 0);
  EXPECT_EQ(Score(Metric::kF1, "x", {}), 0);
}

TEST(Score, FirstLineOnlyWhereTheTaskSaysSo) {
  Task task;
  task.metric = Metric::kRougeL;
  Example example;
  example.golds = {"They greet"};
  const std::string answer = "\n\nThey greet\nDialogue: A: x";
  EXPECT_LT(ScoreAnswer(task, example, answer), 0.9);
  task.scores_first_line = true;
  EXPECT_NEAR(ScoreAnswer(task, example, answer), 1, 1e-6);
  EXPECT_EQ(ScoreAnswer(task, example, "\n\n"), 0);
  EXPECT_EQ(ScoreAnswer(task, example, ""), 0);
}

}  // namespace
}  // namespace epic::eval
