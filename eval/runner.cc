#include "eval/runner.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "core/status_macros.h"
#include "engine/linker.h"
#include "eval/metrics.h"
#include "fmt/format.h"

namespace epic::eval {
namespace {

constexpr std::chrono::milliseconds kFirstPause{500};
constexpr char kFull[] = "full";
// Runs what full runs, and keeps its rows.
constexpr char kReferenceLinker[] = "prefix";

bool IsTransient(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable || status.code() == absl::StatusCode::kResourceExhausted;
}

// One example of a run.
class ExampleRun {
 public:
  ExampleRun(const Task& task, const Example& example, Subject& subject, RunFolder& folder, const RunHooks& hooks)
      : task_(task), example_(example), subject_(subject), folder_(folder), hooks_(hooks) {}
  ~ExampleRun() {
    // What cannot be forgotten now expires by itself (see the subject).
    for (const std::string& id : std::set<std::string>(document_ids_.begin(), document_ids_.end())) {
      subject_.Forget(id).IgnoreError();
    }
  }
  ExampleRun(const ExampleRun&) = delete;
  ExampleRun& operator=(const ExampleRun&) = delete;

  // INVALID_ARGUMENT: the model cannot take this example.
  absl::Status Prepare();
  absl::Status Run(const EvalLinker& linker);

 private:
  template <typename Call>
  auto Persistently(const Call& call) -> decltype(call()) {
    std::chrono::milliseconds pause = kFirstPause;
    for (int attempt = 1;; ++attempt, pause *= 4) {
      auto result = call();
      if (result.ok() || !IsTransient(result.status()) || attempt == kAttemptsMax) return result;
      hooks_.pause(pause);
    }
  }
  Trial NewTrial(const std::string& linker) const;
  absl::StatusOr<TrialResult> Ask(const Trial& trial) {
    return Persistently([&] { return subject_.Ask(trial); });
  }
  absl::Status ScoreReference();
  absl::StatusOr<std::vector<std::vector<TokenProbability>>> Distributions(const std::string& linker);
  absl::StatusOr<std::string> EngineName(const EvalLinker& linker) const;

  const Task& task_;
  const Example& example_;
  Subject& subject_;
  RunFolder& folder_;
  const RunHooks& hooks_;
  std::vector<std::string> document_ids_;
  std::vector<int32_t> reference_ids_;  // what is scored
  std::vector<std::vector<TokenProbability>> reference_;
};

absl::Status ExampleRun::Prepare() {
  for (const std::string& text : example_.documents) {
    EPIC_ASSIGN_OR_RETURN(std::string id, Persistently([&] { return subject_.Register(text); }));
    document_ids_.push_back(std::move(id));
  }
  return absl::OkStatus();
}

Trial ExampleRun::NewTrial(const std::string& linker) const {
  Trial trial;
  trial.preface = example_.preface;
  trial.document_ids = document_ids_;
  trial.question = example_.question;
  trial.linker = linker;
  return trial;
}

// A distribution stands behind each beginning of full's answer: the empty one, and so on, and where it ended by itself
// the whole of it, where its end was chosen. The token that is scored there may be any.
absl::Status ExampleRun::ScoreReference() {
  if (!reference_.empty()) return absl::OkStatus();
  const Outcome* full = folder_.Find(example_.id, kFull);
  if (full == nullptr) return absl::InternalError("full has not run yet");
  reference_ids_ = full->token_ids;
  if (full->stopped || reference_ids_.empty()) reference_ids_.push_back(0);
  if (reference_ids_.size() > kReferencePositions) reference_ids_.resize(kReferencePositions);
  EPIC_ASSIGN_OR_RETURN(reference_, Distributions(kReferenceLinker));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::vector<TokenProbability>>> ExampleRun::Distributions(const std::string& linker) {
  Trial trial = NewTrial(linker);
  trial.continuation = reference_ids_;
  trial.top_logprobs = std::min(kComparedTokens, subject_.description().vocab_size);
  trial.afresh = false;
  EPIC_ASSIGN_OR_RETURN(TrialResult result, Ask(trial));
  if (result.top.size() == reference_ids_.size() &&
      std::none_of(result.top.begin(), result.top.end(), [](const auto& top) { return top.empty(); })) {
    return std::move(result.top);
  }
  return absl::InternalError(
      fmt::format("{} answered {} distributions for {} positions", linker, result.top.size(), reference_ids_.size()));
}

absl::StatusOr<std::string> ExampleRun::EngineName(const EvalLinker& linker) const {
  if (linker.equal_rows.empty()) return linker.name;
  const Outcome* base = folder_.Find(example_.id, linker.equal_rows);
  if (base == nullptr) return absl::InternalError(fmt::format("{} has not run yet", linker.equal_rows));
  const int32_t fresh = base->usage.prompt_tokens - base->usage.cached_tokens;
  const int32_t rows = base->usage.selected_tokens - fresh;
  // The engine takes the whole part of this share of the chunk tokens: the half makes it `rows` whatever is rounded.
  const double percent = 100.0 * (std::max(rows, 0) + 0.5) / std::max(base->usage.cached_tokens, 1);
  EPIC_ASSIGN_OR_RETURN(Linker chosen, Linker::Parse(fmt::format("{}:{}", linker.family, std::min(percent, 100.0))));
  EPIC_ASSIGN_OR_RETURN(const Linker equal, Linker::Parse(linker.equal_rows));
  chosen.recipe_id = equal.recipe_id;  // the same chunks, too
  return chosen.Name();
}

absl::Status ExampleRun::Run(const EvalLinker& linker) {
  EPIC_ASSIGN_OR_RETURN(const std::string engine_name, EngineName(linker));
  EPIC_ASSIGN_OR_RETURN(const Linker parsed, Linker::Parse(engine_name));
  if (!parsed.RecipeId().empty()) {
    // Registration compiles by the recipe "plain"; others are compiled when they are first asked for.
    EPIC_RETURN_IF_ERROR(Ask(NewTrial(engine_name)).status());
  }
  Trial trial = NewTrial(engine_name);
  trial.output_tokens_max = task_.output_tokens_max;
  trial.afresh = parsed.kind != LinkerKind::kPrefix;
  EPIC_ASSIGN_OR_RETURN(const TrialResult result, Ask(trial));

  Outcome outcome;
  outcome.example = example_.id;
  outcome.linker = linker.name;
  outcome.engine_linker = engine_name;
  outcome.answer = result.text;
  outcome.token_ids = result.token_ids;
  outcome.stopped = result.stopped;
  outcome.score = ScoreAnswer(task_, example_, result.text);
  outcome.names_gold = NamesGold(result.text, example_.golds);
  outcome.answer_in_documents = example_.answer_in_documents;
  outcome.usage = result.usage;
  outcome.timing = result.timing;
  if (linker.name == kFull) {
    outcome.first_token_agrees = true;
    outcome.rouge_l_to_full = 1;
    outcome.positions =
        std::min(kReferencePositions, static_cast<int32_t>(result.token_ids.size()) + (result.stopped ? 1 : 0));
    return folder_.Add(outcome);
  }
  EPIC_RETURN_IF_ERROR(ScoreReference());
  EPIC_ASSIGN_OR_RETURN(const auto distributions, Distributions(engine_name));
  for (size_t i = 0; i < distributions.size(); ++i) {
    outcome.mean_kl += KlDivergence(reference_[i], distributions[i]) / static_cast<double>(distributions.size());
  }
  outcome.positions = static_cast<int32_t>(distributions.size());
  outcome.first_token_agrees = SameFirst(reference_[0], distributions[0]);
  const Outcome* full = folder_.Find(example_.id, kFull);
  outcome.rouge_l_to_full =
      result.token_ids == full->token_ids && result.stopped == full->stopped ? 1 : RougeL(result.text, full->answer);
  return folder_.Add(outcome);
}

}  // namespace

absl::StatusOr<std::vector<EvalLinker>> ParseEvalLinkers(const std::vector<std::string>& names) {
  std::vector<EvalLinker> linkers;
  const auto add = [&](EvalLinker linker) {
    const bool is_known =
        std::any_of(linkers.begin(), linkers.end(), [&](const EvalLinker& known) { return known.name == linker.name; });
    if (!is_known) linkers.push_back(std::move(linker));
  };
  add({kFull, kFull, ""});
  // Before the reference is scored, which leaves its rows to whoever asks for the same prompt.
  if (std::find(names.begin(), names.end(), kReferenceLinker) != names.end())
    add({kReferenceLinker, kReferenceLinker, ""});
  for (const std::string& name : names) {
    EvalLinker linker{name, name.substr(0, name.find(':')), ""};
    if (const size_t equal = name.find(":="); equal != std::string::npos) {
      linker.equal_rows = name.substr(equal + 2);
      const absl::StatusOr<Linker> base = Linker::Parse(linker.equal_rows);
      const bool chooses_share = linker.family == "random" || linker.family == "cacheblend";
      if (!chooses_share || linker.equal_rows.empty() || !base.ok() || base->kind != LinkerKind::kLegoLink ||
          base->legolink_tokens == 0) {
        return absl::InvalidArgumentError(
            fmt::format("linker \"{}\": a number of rows is taken over as in random:=legolink:16 or "
                        "cacheblend:=legolink:16, from legolink:1 upwards",
                        name.substr(0, 64)));
      }
      linker.equal_rows = base->Name();
      linker.name = fmt::format("{}:={}", linker.family, linker.equal_rows);
      add({linker.equal_rows, "legolink", ""});
    } else {
      if (name.empty()) return absl::InvalidArgumentError("a linker without a name; separate them by one comma");
      EPIC_ASSIGN_OR_RETURN(const Linker parsed, Linker::Parse(name));
      linker.name = parsed.Name();
    }
    add(std::move(linker));
  }
  return linkers;
}

absl::Status RunEvaluation(const Task& task, const std::vector<EvalLinker>& linkers, Subject& subject,
                           RunFolder& folder, const RunHooks& hooks) {
  const auto begun = std::chrono::steady_clock::now();
  RunProgress state;
  state.examples = task.examples.size();
  for (const Skip& skip : task.skipped) {
    if (!folder.IsSkipped(skip.id)) EPIC_RETURN_IF_ERROR(folder.Add(skip));
  }
  size_t run_here = 0;
  for (const Example& example : task.examples) {
    const auto is_done = [&](const EvalLinker& linker) { return folder.Find(example.id, linker.name) != nullptr; };
    if (!folder.IsSkipped(example.id) && !std::all_of(linkers.begin(), linkers.end(), is_done)) {
      ExampleRun run(task, example, subject, folder, hooks);
      state.linker = "compiling";
      EPIC_RETURN_IF_ERROR(hooks.progress(state));
      absl::Status status = run.Prepare();
      for (const EvalLinker& linker : linkers) {
        if (!status.ok()) break;
        if (is_done(linker)) continue;
        state.linker = linker.name;
        EPIC_RETURN_IF_ERROR(hooks.progress(state));
        status = run.Run(linker);
        // A prompt that full takes is no longer than any other linker's.
        if (!status.ok() && linker.name != kFull) return status;
      }
      if (status.code() == absl::StatusCode::kInvalidArgument) {
        status = folder.Add(Skip{example.id, std::string(status.message())});
      }
      EPIC_RETURN_IF_ERROR(status);
      ++run_here;
    }
    ++state.examples_done;
    if (run_here > 0) {
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
      state.seconds_left =
          seconds / static_cast<double>(run_here) * static_cast<double>(state.examples - state.examples_done);
    }
  }
  return absl::OkStatus();
}

}  // namespace epic::eval
