#include "eval/gate.h"

#include <map>
#include <span>
#include <utility>

#include "core/chunk_key.h"
#include "core/sha256.h"
#include "core/status_macros.h"
#include "core/utf8.h"
#include "engine/files/json_file.h"
#include "engine/linker.h"
#include "eval/summary.h"
#include "fmt/format.h"

namespace epic::eval {
namespace {

constexpr char kQuestions[] = "questions.json";
constexpr char kDocuments[] = "documents";

absl::Status Broken(const std::string& path, const std::string& place, const std::string& expected) {
  return absl::InvalidArgumentError(
      fmt::format("{}: {} is not there or not {}; expected an array of {{\"question\", \"documents\", \"expect\"}}",
                  path, place, expected));
}

// The documents of a gate's folder, each read once.
class Documents {
 public:
  explicit Documents(std::string folder) : folder_(std::move(folder)) {}

  absl::StatusOr<std::string> Text(const std::string& name) {
    if (name.empty() || name.find('/') != std::string::npos) {
      return absl::InvalidArgumentError(
          fmt::format("\"{}\" is no document's name: expected one of {}/*.txt, without the ending", name, folder_));
    }
    const auto known = texts_.find(name);
    if (known != texts_.end()) return known->second;
    const std::string path = fmt::format("{}/{}.txt", folder_, name);
    EPIC_ASSIGN_OR_RETURN(std::string text, ReadTextFile(path));
    if (const auto broken = FindInvalidUtf8(text); broken.has_value()) {
      return absl::InvalidArgumentError(fmt::format("{}: invalid UTF-8 at byte {}", path, *broken));
    }
    if (text.empty()) return absl::InvalidArgumentError(fmt::format("{} is empty", path));
    digested_ += fmt::format("{}\n{}\n", name, text.size()) + text;
    return texts_.emplace(name, std::move(text)).first->second;
  }
  // Of every text so far, in the order of their first use, behind `questions`.
  std::string Digest(const std::string& questions) const {
    const std::string all = questions + digested_;
    return Sha256Hex(std::as_bytes(std::span(all)));
  }

 private:
  const std::string folder_;
  std::map<std::string, std::string> texts_;
  std::string digested_;
};

absl::StatusOr<Example> ReadExample(const JsonObject& object, const std::string& place, Documents& documents) {
  Example example;
  EPIC_ASSIGN_OR_RETURN(const auto question, object.String("question"));
  EPIC_ASSIGN_OR_RETURN(const auto expected, object.String("expect"));
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json* const names, object.Array("documents"));
  if (!question.has_value() || question->empty()) return Broken(object.path(), place + ".question", "a text");
  if (!expected.has_value() || expected->empty()) return Broken(object.path(), place + ".expect", "a text");
  if (names == nullptr || names->empty()) return Broken(object.path(), place + ".documents", "an array of names");
  for (const nlohmann::json& name : *names) {
    if (!name.is_string()) return Broken(object.path(), place + ".documents", "an array of names");
    EPIC_ASSIGN_OR_RETURN(std::string text, documents.Text(name.get<std::string>()));
    example.documents.push_back(std::move(text));
  }
  example.question = *question;
  example.golds = {*expected};
  return example;
}

}  // namespace

absl::StatusOr<Task> LoadGateTask(const std::string& folder) {
  const std::string path = fmt::format("{}/{}", folder, kQuestions);
  EPIC_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, path));
  if (!json.is_array() || json.empty()) return Broken(path, "the file", "an array with entries");
  Documents documents(fmt::format("{}/{}", folder, kDocuments));
  Task task;
  task.name = "gate";
  task.metric = Metric::kF1;
  task.output_tokens_max = 32;
  task.prompt_template = "{documents}\n\n{question}";
  for (size_t i = 0; i < json.size(); ++i) {
    const std::string place = fmt::format("[{}]", i);
    if (!json[i].is_object()) return Broken(path, place, "an object");
    EPIC_ASSIGN_OR_RETURN(Example example, ReadExample(JsonObject(json[i], path, place), place, documents));
    example.id = fmt::format("question-{}", i + 1);
    task.examples.push_back(std::move(example));
  }
  task.data_digest = documents.Digest(text);
  return task;
}

absl::StatusOr<ModelVerdicts> JudgeRun(const RunFolder& folder, const std::vector<EvalLinker>& linkers,
                                       const VerdictThresholds& thresholds) {
  std::vector<std::string> names;
  for (const EvalLinker& linker : linkers) names.push_back(linker.name);
  EPIC_ASSIGN_OR_RETURN(const RunSummary summary, Summarize(folder, names));
  const RunIdentity& run = folder.identity();
  ModelVerdicts verdicts{run.model,     run.fingerprint, run.engine_version, kVerdictKvType,
                         run.processor, run.data_digest, thresholds,         {}};
  for (const LinkerSummary& linker : summary.linkers) {
    if (linker.linker == "full" || linker.linker.find(":=") != std::string::npos) continue;
    EPIC_ASSIGN_OR_RETURN(const Linker parsed, Linker::Parse(linker.linker));
    // The harness registers documents as "plain"; others are asked for by name.
    const std::string recipe_id = parsed.RecipeId().empty() ? kPlainRecipeId : parsed.RecipeId();
    verdicts.linkers.push_back(JudgeLinker(linker.linker, recipe_id, static_cast<int32_t>(summary.examples),
                                           linker.first_token_agreement, linker.kl.mean, thresholds));
  }
  return verdicts;
}

std::string VerdictTable(const ModelVerdicts& verdicts) {
  std::string table =
      fmt::format("{}, {} thresholds: first token agrees in {:.0f} % or more, mean KL {} nats or less\n\n",
                  verdicts.model, verdicts.processor.empty() ? "" : verdicts.processor + ";",
                  100 * verdicts.thresholds.first_token_agreement_min, verdicts.thresholds.mean_kl_max);
  table +=
      fmt::format("{:<24} {:>8} {:>19} {:>10}  {}\n", "linker", "prompts", "first token agrees", "mean KL", "verdict");
  for (const LinkerVerdict& verdict : verdicts.linkers) {
    table += fmt::format("{:<24} {:>8} {:>17.1f} % {:>10.4f}  {}\n", verdict.linker, verdict.prompts,
                         100 * verdict.first_token_agreement, verdict.mean_kl,
                         verdict.passes ? "passes" : "refused: " + verdict.reason);
  }
  return table;
}

}  // namespace epic::eval
