#include "client/eval_subject.h"

#include <chrono>
#include <span>
#include <utility>
#include <vector>

#include "core/sha256.h"
#include "core/status_macros.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace epic::client {
namespace {

// What an evaluation that was cut off leaves behind expires by itself.
constexpr std::chrono::hours kDocumentLifetime{24};
constexpr size_t kDigestCharacters = 32;

}  // namespace

absl::StatusOr<std::unique_ptr<EvalSubject>> EvalSubject::Create(const ClientOptions& options, const std::string& model,
                                                                 const std::string& via) {
  EPIC_ASSIGN_OR_RETURN(std::unique_ptr<Client> client, Client::Connect(options));
  EPIC_ASSIGN_OR_RETURN(const ClusterStatus status, client->GetStatus());
  EPIC_ASSIGN_OR_RETURN(const std::vector<ModelDescription> models, client->ListModels());
  const ModelDescription* chosen = nullptr;
  std::vector<std::string> names;
  for (const ModelDescription& known : models) {
    names.push_back(known.name);
    if (model.empty() ? models.size() == 1 : known.name == model || known.fingerprint == model) chosen = &known;
  }
  if (chosen == nullptr) {
    return absl::FailedPreconditionError(fmt::format(
        "{}; it has: {}. Name one with --model",
        model.empty() ? fmt::format("{} serves {} models, and an evaluation is of one", options.server, models.size())
                      : fmt::format("{} has no model \"{}\"", options.server, model),
        fmt::join(names, ", ")));
  }
  std::unique_ptr<EvalSubject> subject(new EvalSubject(std::move(client)));
  subject->description_ = {chosen->name, chosen->fingerprint, status.version,
                           via,          chosen->vocab_size,  chosen->context_length};
  return subject;
}

absl::StatusOr<std::string> EvalSubject::Register(const std::string& text) {
  NewDocument document;
  document.id = "eval-" + Sha256Hex(std::as_bytes(std::span(text))).substr(0, kDigestCharacters);
  document.text = text;
  document.time_to_live = kDocumentLifetime;
  document.recipe = "plain";  // whatever the node's default is: linkers ask for others by name
  bool created = false;
  EPIC_RETURN_IF_ERROR(client_->CreateDocument(document, &created).status());
  if (created) made_.insert(document.id);
  EPIC_RETURN_IF_ERROR(client_->WaitUntilReady(document.id, nullptr));
  return document.id;
}

absl::Status EvalSubject::Forget(const std::string& document_id) {
  if (made_.erase(document_id) == 0) return absl::OkStatus();
  return client_->DeleteDocument(document_id);
}

absl::StatusOr<eval::TrialResult> EvalSubject::Ask(const eval::Trial& trial) {
  Question question;
  question.preface = trial.preface;
  question.document_ids = trial.document_ids;
  question.text = trial.question;
  question.linker = trial.linker;
  question.model = description_.fingerprint;
  question.output_tokens_max = trial.output_tokens_max;
  question.afresh = trial.afresh;
  question.continuation = trial.continuation;
  question.top_logprobs = trial.top_logprobs;
  EPIC_ASSIGN_OR_RETURN(Answer answer, client_->Ask(question, nullptr));
  eval::TrialResult result;
  result.text = std::move(answer.text);
  result.token_ids = std::move(answer.token_ids);
  result.stopped = answer.finish_reason == "stop";
  for (const std::vector<TokenLogprob>& top : answer.top_logprobs) {
    std::vector<TokenProbability>& taken = result.top.emplace_back();
    for (const TokenLogprob& token : top) taken.push_back({token.id, token.logprob});
  }
  result.usage = {answer.prompt_tokens, answer.cached_tokens, answer.selected_tokens, answer.recomputed_tokens,
                  answer.reused_tokens};
  result.timing = {answer.timing.lookup_us, answer.timing.load_us,        answer.timing.compile_us,
                   answer.timing.link_us,   answer.timing.first_token_us, answer.timing.ttft_us};
  return result;
}

}  // namespace epic::client
