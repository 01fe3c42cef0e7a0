// What is asked in an evaluation: a data set as a list of prompts with gold answers, and how an answer is scored.
//
// A prompt is one user message: `preface`, the documents directly one after the other, `question`. Each document is
// registered by itself, so that its chunks do not depend on what stands beside it: it has its own separator at its end
// and nothing that tells its place (no passage number). Every linker gets the same prompts.
//
// Tasks: 2wikimqa, musique and hotpotqa (questions over passages, F1), samsum (a dialogue behind solved examples,
// ROUGE-L), multi_news (a summary of articles, ROUGE-L), needle (one sentence hidden in long text, F1). The metrics and
// the lengths of answers are LongBench's (arXiv 2308.14508, config/dataset2maxlen.json of its code); the prompts follow
// its outline in other words, so that scores stand beside its own with that difference.
//
// A data file is JSON, one object a line or one array of objects, in one of three schemas, told by the first object:
//   LongBench   {input, context, answers, _id?}: passages behind lines `Passage N:`, or for samsum examples that
//               begin with `Dialogue:` and hold a `Summary:`, become one document each.
//   contexts    {question, ctxs: [{title?, text}], answers, id?}: one document for each of ctxs.
//   dialogues   {dialogue, summary, id?} (samsum only): eight other dialogues with their summaries, chosen by the seed,
//               are the documents.
// needle reads a folder of texts (*.txt, in the order of their names). An example's text is one document, which the
// node cuts into chunks as it cuts any.
//
// An example that cannot be asked (invalid UTF-8, no answer, nothing to read, an empty passage, ...) is not an error:
// it is left out and counted in Task::skipped. Anything that makes the file doubtful as a whole is an error. A file is
// read whole, at most kDataBytesMax; a passage longer than a model's context is for the caller to refuse.
//
// The same bytes, options and seed give the same task on every machine. Pure but for reading, safe from any thread.
#ifndef EPIC_EVAL_TASK_H_
#define EPIC_EVAL_TASK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace epic::eval {

inline constexpr int64_t kDataBytesMax = int64_t{1} << 30;  // of a file, or of all texts of a folder
inline constexpr int32_t kNeedleExamplesMax = 10'000;
inline constexpr int32_t kNeedleWordsMax = 10'000'000;
inline constexpr int32_t kFewShotExamples = 8;  // documents of a prompt made from plain dialogues

enum class Metric { kF1, kRougeL };
// "F1" or "ROUGE-L".
const char* MetricName(Metric metric);
// The score of an answer: the best F1 over the gold answers, or ROUGE-L against the best of them. In [0, 1].
double Score(Metric metric, const std::string& answer, const std::vector<std::string>& golds);

struct Example {
  // Unique in its task: the data's own, with `#2`, `#3`, ... behind one that was there before; `<task>-<n>` for the
  // n-th object of a file without ids (or with ids that cannot be printed or are longer than 128 bytes).
  std::string id;
  std::string preface;
  std::vector<std::string> documents;  // at least one, none empty, UTF-8
  std::string question;
  std::vector<std::string> golds;  // at least one, none empty
  // Whether some gold answer stands in some document, both after NormaliseAnswer. In a set of questions a false one
  // can hardly be answered from what is there; of a summary it says nothing.
  bool answer_in_documents = false;
};

// An example of the data file that cannot be asked, and why.
struct Skip {
  std::string id;      // of the example; of needle's texts the file's name
  std::string reason;  // what is wrong, then in brackets where it was seen
};

struct Task {
  std::string name;
  Metric metric = Metric::kF1;
  int32_t output_tokens_max = 32;
  std::string prompt_template;  // the prompt with its parts named in braces, for reports
  // LongBench scores only the first line of an answer that follows solved examples, behind which models go on to
  // invent the next one.
  bool scores_first_line = false;
  std::string data_digest;  // SHA-256 over what was read, hexadecimal; of a folder over each name, size and text
  std::vector<Example> examples;
  std::vector<Skip> skipped;  // in the order of the file, however many examples are taken
};

struct TaskOptions {
  std::string name;          // one of TaskNames()
  std::string data;          // file; for needle a folder of texts
  int32_t examples_max = 0;  // 0: all
  uint64_t seed = 1;         // which examples, in which order, and where needles stand
  // Needle: tokens cannot be counted here, so lengths are in words. Every length with every depth is one example; where
  // more examples are asked than that, the grid is repeated with other needles and other stretches of text.
  std::vector<int32_t> needle_words = {500, 1000, 2000};              // 1 .. kNeedleWordsMax
  std::vector<int32_t> needle_depths_percent = {0, 25, 50, 75, 100};  // 0 .. 100
};

std::vector<std::string> TaskNames();

// The examples are shuffled by the seed, then the first examples_max are taken: fewer examples are the beginning of
// more. INVALID_ARGUMENT for an unknown name (with the nearest known one), options out of range, a file or folder where
// the other is expected, a file that is too long, is no JSON, is of another schema or for another task (with the line
// and what was expected), a folder with fewer words than were asked, or data without a single example that can be asked
// (with the counts of why); NOT_FOUND for a path that is not there; FAILED_PRECONDITION for one that cannot be read.
absl::StatusOr<Task> LoadTask(const TaskOptions& options);

// The score of an answer in its task: Score, of its first line alone where the task says so.
double ScoreAnswer(const Task& task, const Example& example, const std::string& answer);

// "2 x no answers, 1 x invalid UTF-8": the reasons without what is in brackets, each with its count, the most frequent
// first. Empty for none.
std::string DescribeSkips(const std::vector<Skip>& skipped);

}  // namespace epic::eval

#endif  // EPIC_EVAL_TASK_H_
