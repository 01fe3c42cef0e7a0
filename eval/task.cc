#include "eval/task.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <span>

#include "core/nearest_name.h"
#include "core/sha256.h"
#include "core/status_macros.h"
#include "core/utf8.h"
#include "engine/files/file_error.h"
#include "engine/files/json_file.h"
#include "eval/metrics.h"
#include "eval/task_internal.h"
#include "eval/task_random.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace epic::eval {
namespace internal {
namespace {

// Short and plain, so that models of 135 million parameters can follow. What is asked stands behind the documents,
// where every linker recomputes it.
TaskKind QuestionKind(const char* name) {
  return {.name = name,
          .kind = Kind::kQuestion,
          .metric = Metric::kF1,
          .output_tokens_max = 32,
          .preface = "Read these passages. A question follows them.\n\n",
          .before_asked =
              "Answer the question from the passages above. Write only the answer, in a few words, and nothing else."
              "\n\nQuestion: ",
          .asked = "question",
          .after_asked = "\nAnswer:"};
}

const std::vector<TaskKind>& TaskKinds() {
  static const std::vector<TaskKind> kKinds = {
      QuestionKind("2wikimqa"),
      QuestionKind("musique"),
      QuestionKind("hotpotqa"),
      {.name = "samsum",
       .kind = Kind::kFewShot,
       .metric = Metric::kRougeL,
       .output_tokens_max = 128,
       .preface = "Sum up a dialogue in one or two short sentences. These are examples.\n\n",
       .before_asked = "Sum up this dialogue in the same way. Write only the summary.\n\nDialogue: ",
       .asked = "dialogue",
       .after_asked = "\nSummary:"},
      {.name = "multi_news",
       .kind = Kind::kSummary,
       .metric = Metric::kRougeL,
       .output_tokens_max = 512,
       .preface = "Read these news articles about one story.\n\n",
       .before_asked = "Write a summary of all the articles above, about one page long.\n\nSummary:",
       .asked = nullptr,
       .after_asked = ""},
      {.name = "needle",
       .kind = Kind::kNeedle,
       .metric = Metric::kF1,
       .output_tokens_max = 32,
       .preface = "Read this text. It tells the magic number of a city.\n\n",
       .before_asked = "What is the magic number of ",
       .asked = "city",
       .after_asked = "? The text above tells it. Write only the number.\nAnswer:"},
  };
  return kKinds;
}

enum class Schema { kLongBench, kContexts, kDialogues };

struct SchemaKeys {
  Schema schema;
  const char* text;  // for messages
  std::array<const char*, 2> keys;
};

// A file's first object is of the first schema whose keys it has; what else a record needs is judged for each one.
constexpr std::array<SchemaKeys, 3> kSchemas = {{
    {Schema::kLongBench, "{input, context}", {"input", "context"}},
    {Schema::kContexts, "{question, ctxs}", {"question", "ctxs"}},
    {Schema::kDialogues, "{dialogue, summary}", {"dialogue", "summary"}},
}};

bool HasKeys(const nlohmann::json& record, const SchemaKeys& schema) {
  return std::all_of(schema.keys.begin(), schema.keys.end(), [&](const char* key) { return record.contains(key); });
}

std::string KeysOf(const nlohmann::json& record) {
  constexpr size_t kKeysShown = 12;
  std::vector<std::string> keys;
  for (const auto& [key, value] : record.items()) {
    if (keys.size() == kKeysShown) {
      keys.push_back(fmt::format("and {} more", record.size() - kKeysShown));
      break;
    }
    keys.push_back(Quoted(key));
  }
  return fmt::format("{}", fmt::join(keys, ", "));
}

// Reads a file's records one after the other; what each means depends on the first.
class FileReader {
 public:
  FileReader(const TaskKind& kind, std::string path) : kind_(kind), path_(std::move(path)) {}

  absl::Status Read(const std::vector<Record>& records) {
    for (const Record& record : records) {
      ++number_;
      EPIC_RETURN_IF_ERROR(ReadRecord(record));
    }
    if (!sources_.empty()) return absl::OkStatus();
    if (records.empty()) {
      return BrokenFile(path_, "holds no example, expected one JSON object a line or one array of objects");
    }
    return BrokenFile(path_, "none of its {} examples can be asked: {}", records.size(), DescribeSkips(skipped_));
  }

  bool HasDialogues() const { return schema_ != nullptr && schema_->schema == Schema::kDialogues; }
  std::vector<Source>& sources() { return sources_; }
  std::vector<Skip>& skipped() { return skipped_; }

 private:
  absl::Status ReadRecord(const Record& record) {
    const std::string place = fmt::format("{}, line {}", path_, record.line);
    if (const std::optional<size_t> broken = FindInvalidUtf8(record.text)) {
      skipped_.push_back({UniqueId(""), fmt::format("invalid UTF-8 (line {}, byte {} of the file)", record.line,
                                                    record.offset + *broken)});
      return absl::OkStatus();
    }
    const absl::StatusOr<nlohmann::json> parsed = ParseJson(record.text, place);
    if (!parsed.ok()) {
      // Python writes such escapes for bytes that were no UTF-8 when it read them: the same fault in other clothes.
      if (const std::optional<size_t> broken = FindLoneSurrogateEscape(record.text)) {
        skipped_.push_back({UniqueId(""), fmt::format("half a surrogate pair (line {}, byte {} of the file)",
                                                      record.line, record.offset + *broken)});
        return absl::OkStatus();
      }
      return absl::InvalidArgumentError(fmt::format("{}; a data file is one JSON object a line or one array of objects",
                                                    std::string(parsed.status().message())));
    }
    if (!parsed->is_object()) return BrokenFile(place, "expected a JSON object, found {}", JsonText(*parsed));
    EPIC_RETURN_IF_ERROR(CheckSchema(*parsed, record.line, place));
    Source source;
    source.id = UniqueId(OwnId(*parsed));
    if (Refusal refusal = ReadSource(*parsed, source)) {
      skipped_.push_back({source.id, *std::move(refusal)});
    } else {
      sources_.push_back(std::move(source));
    }
    return absl::OkStatus();
  }

  absl::Status CheckSchema(const nlohmann::json& record, int64_t line, const std::string& place) {
    if (schema_ == nullptr) {
      const auto* const found = std::find_if(kSchemas.begin(), kSchemas.end(),
                                             [&](const SchemaKeys& schema) { return HasKeys(record, schema); });
      if (found == kSchemas.end()) {
        return BrokenFile(place, "expected an object with the keys {}, {} or {}, found {}", kSchemas[0].text,
                          kSchemas[1].text, kSchemas[2].text, KeysOf(record));
      }
      if (found->schema == Schema::kDialogues && kind_.kind != Kind::kFewShot) {
        return BrokenFile(place, "has the keys {}, which task samsum reads; task {} expected {} or {}", found->text,
                          kind_.name, kSchemas[0].text, kSchemas[1].text);
      }
      schema_ = found;
      schema_line_ = line;
    } else if (!HasKeys(record, *schema_)) {
      return BrokenFile(place, "expected an object with the keys {} as in line {}, found {}", schema_->text,
                        schema_line_, KeysOf(record));
    }
    return CheckDataset(record, place);
  }

  // LongBench's files say what they are, so a score cannot be reported under another set's name.
  absl::Status CheckDataset(const nlohmann::json& record, const std::string& place) const {
    const auto member = record.find("dataset");
    if (member == record.end() || !member->is_string()) return absl::OkStatus();
    std::string name = member->get<std::string>();
    if (name.ends_with("_e")) name.resize(name.size() - 2);  // LongBench-E
    const std::vector<std::string> known = TaskNames();
    if (name == kind_.name || std::find(known.begin(), known.end(), name) == known.end()) return absl::OkStatus();
    return BrokenFile(place, "belongs to the data set {}, the task is {}", Quoted(name), kind_.name);
  }

  Refusal ReadSource(const nlohmann::json& record, Source& source) const {
    switch (schema_->schema) {
      case Schema::kLongBench:
        return ReadLongBench(record, kind_, source);
      case Schema::kContexts:
        return ReadContexts(record, kind_, source);
      case Schema::kDialogues:
        return ReadDialogue(record, source);
    }
    return "an unknown schema";
  }

  // Empty where there is none that can be shown in a table.
  static std::string OwnId(const nlohmann::json& record) {
    constexpr size_t kIdBytesMax = 128;
    for (const char* const key : {"_id", "id"}) {
      const auto member = record.find(key);
      if (member == record.end()) continue;
      if (member->is_number_integer()) return member->dump();
      if (!member->is_string()) continue;
      std::string id = CleanText(member->get_ref<const std::string&>());
      const bool is_printable =
          std::none_of(id.begin(), id.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
      if (!id.empty() && id.size() <= kIdBytesMax && is_printable) return id;
    }
    return "";
  }

  std::string UniqueId(const std::string& own) {
    const std::string base = own.empty() ? fmt::format("{}-{}", kind_.name, number_) : own;
    std::string id = base;
    for (int64_t& copies = copies_[base]; !ids_.insert(id).second;) {
      if (copies == 0) copies = 1;
      id = fmt::format("{}#{}", base, ++copies);
    }
    return id;
  }

  const TaskKind& kind_;
  const std::string path_;
  const SchemaKeys* schema_ = nullptr;  // of the first record that could be read
  int64_t schema_line_ = 0;
  int64_t number_ = 0;  // of the record, from 1
  std::set<std::string> ids_;
  std::map<std::string, int64_t> copies_;  // how often an id was there, where more than once
  std::vector<Source> sources_;
  std::vector<Skip> skipped_;
};

absl::StatusOr<Task> LoadFile(const TaskOptions& options, const TaskKind& kind) {
  EPIC_ASSIGN_OR_RETURN(const std::string data,
                        ReadData(options.data, kDataBytesMax, fmt::format("the data file of task {}", kind.name)));
  EPIC_ASSIGN_OR_RETURN(const std::vector<Record> records, SplitRecords(data, options.data));
  FileReader reader(kind, options.data);
  EPIC_RETURN_IF_ERROR(reader.Read(records));
  std::vector<Source>& sources = reader.sources();
  std::vector<size_t> different;
  if (reader.HasDialogues()) {
    different = DifferentDialogues(sources);
    if (different.size() <= kFewShotExamples) {
      return BrokenFile(options.data,
                        "{} different dialogues that can be used, expected at least {}: {} examples and "
                        "the one that is asked{}{}",
                        different.size(), kFewShotExamples + 1, kFewShotExamples,
                        reader.skipped().empty() ? "" : "; left out: ", DescribeSkips(reader.skipped()));
    }
  }
  Task task = EmptyTask(kind);
  task.data_digest = Sha256Hex(std::as_bytes(std::span(data)));
  task.skipped = std::move(reader.skipped());
  std::vector<size_t> order(sources.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  TaskRandom(options.seed).Shuffle(order);
  if (options.examples_max > 0 && order.size() > static_cast<size_t>(options.examples_max)) {
    order.resize(static_cast<size_t>(options.examples_max));
  }
  for (const size_t place : order) {
    Source source = sources[place];
    if (reader.HasDialogues()) source.documents = ComposeFewShotExamples(sources, different, place, options.seed);
    task.examples.push_back(MakeExample(kind, std::move(source)));
  }
  return task;
}

}  // namespace

Example MakeExample(const TaskKind& kind, Source source) {
  Example example;
  example.id = std::move(source.id);
  example.preface = kind.preface;
  example.documents = std::move(source.documents);
  example.question = fmt::format("{}{}{}", kind.before_asked, source.asked, kind.after_asked);
  example.golds = std::move(source.golds);
  std::vector<std::string> golds;
  for (const std::string& gold : example.golds) {
    golds.push_back(NormaliseAnswer(gold));
    // Every text holds the empty one, to which "the" comes down.
    if (golds.back().empty()) golds.pop_back();
  }
  for (const std::string& document : example.documents) {
    if (golds.empty() || example.answer_in_documents) break;
    const std::string normalised = NormaliseAnswer(document);
    example.answer_in_documents = std::any_of(golds.begin(), golds.end(), [&](const std::string& gold) {
      return normalised.find(gold) != std::string::npos;
    });
  }
  return example;
}

Task EmptyTask(const TaskKind& kind) {
  Task task;
  task.name = kind.name;
  task.metric = kind.metric;
  task.output_tokens_max = kind.output_tokens_max;
  // The client puts a blank line before a question (client/client.h, Question).
  task.prompt_template = fmt::format("{}{{documents}}\n\n{}{}{}", kind.preface, kind.before_asked,
                                     kind.asked == nullptr ? "" : fmt::format("{{{}}}", kind.asked), kind.after_asked);
  task.scores_first_line = kind.kind == Kind::kFewShot;
  return task;
}

}  // namespace internal

const char* MetricName(Metric metric) { return metric == Metric::kF1 ? "F1" : "ROUGE-L"; }

double Score(Metric metric, const std::string& answer, const std::vector<std::string>& golds) {
  if (metric == Metric::kF1) return BestAnswerF1(answer, golds);
  double best = 0;
  for (const std::string& gold : golds) best = std::max(best, RougeL(answer, gold));
  return best;
}

double ScoreAnswer(const Task& task, const Example& example, const std::string& answer) {
  if (!task.scores_first_line) return Score(task.metric, answer, example.golds);
  const size_t begin = std::min(answer.find_first_not_of('\n'), answer.size());
  return Score(task.metric, answer.substr(begin, answer.find('\n', begin) - begin), example.golds);
}

std::string DescribeSkips(const std::vector<Skip>& skipped) {
  std::map<std::string, int64_t> counts;
  for (const Skip& skip : skipped) ++counts[skip.reason.substr(0, skip.reason.find(" ("))];
  std::vector<std::pair<std::string, int64_t>> sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string text;
  for (const auto& [reason, count] : sorted) text += fmt::format("{}{} x {}", text.empty() ? "" : ", ", count, reason);
  return text;
}

std::vector<std::string> TaskNames() {
  std::vector<std::string> names;
  for (const internal::TaskKind& kind : internal::TaskKinds()) names.emplace_back(kind.name);
  return names;
}

absl::StatusOr<Task> LoadTask(const TaskOptions& options) {
  const std::vector<internal::TaskKind>& kinds = internal::TaskKinds();
  const auto kind = std::find_if(kinds.begin(), kinds.end(),
                                 [&](const internal::TaskKind& known) { return options.name == known.name; });
  if (kind == kinds.end()) {
    return absl::InvalidArgumentError(
        fmt::format("unknown task {}{}", Quoted(options.name), NameHint(options.name, TaskNames())));
  }
  if (options.examples_max < 0) {
    return absl::InvalidArgumentError(
        fmt::format("{} examples were asked, expected a count or 0 for all", options.examples_max));
  }
  return kind->kind == internal::Kind::kNeedle ? internal::LoadNeedle(options, *kind)
                                               : internal::LoadFile(options, *kind);
}

}  // namespace epic::eval
