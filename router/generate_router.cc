#include "router/generate_router.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <utility>

#include "core/identifiers.h"
#include "core/nearest_name.h"
#include "core/status_macros.h"
#include "engine/linker_gate.h"

namespace epic {
namespace {

using Clock = std::chrono::steady_clock;

int64_t MicrosecondsSince(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start).count();
}

// Whether another worker may do better. A worker that is full is no worse than one that is lost.
bool IsWorthAnotherWorker(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable || status.code() == absl::StatusCode::kResourceExhausted;
}

// A linker's kind, for metrics: the numbers in names come from clients and have no bound.
std::string KindOf(const Linker& linker) {
  const std::string name = linker.Name();
  return name.substr(0, name.find(':'));
}

// What the model's worker says of linkers. Names that this router does not know are of a newer version: nobody can ask
// for them here.
LinkerGate GateOf(const v1::GetWorkerStatusResponse& status) {
  std::vector<LinkerVerdict> verdicts;
  for (const v1::LinkerVerdict& verdict : status.linker_verdicts()) {
    verdicts.push_back({verdict.linker(), verdict.recipe_id(), verdict.prompts(), verdict.first_token_agreement(),
                        verdict.mean_kl(), verdict.passes(), verdict.reason()});
  }
  std::vector<std::string> allowed;
  for (const std::string& name : status.allowed_linkers()) {
    if (name == kAllLinkers || (!name.empty() && Linker::Parse(name).ok())) allowed.push_back(name);
  }
  return *LinkerGate::Create(std::move(verdicts), allowed);
}

}  // namespace

// One Generate call from its arrival to its end.
struct GenerateRouter::Run {
  const v1::GenerateRequest& request;
  Linker linker;  // that the request names, or the default, until the model is known
  std::string linker_kind;
  std::string linker_note;
  const Clock::time_point arrival;
  const std::function<bool(const v1::GenerateResponse&)>& write;
  int64_t lookup_us = 0;
  int64_t ttft_us = -1;  // -1: no token yet
  int64_t tokens_sent = 0;
  bool final_sent = false;
};

absl::Status GenerateRouter::Generate(const CallScope& scope, const v1::GenerateRequest& request,
                                      Clock::time_point arrival,
                                      const std::function<bool(const v1::GenerateResponse&)>& write) {
  absl::Status status = ValidateGenerateRequest(request);
  const absl::StatusOr<Linker> linker = Linker::Parse(request.linker());
  std::string kind = linker.ok() ? KindOf(*linker) : "invalid";
  if (status.ok()) {
    metrics_->ChangeRunning(1);
    Run run{.request = request,
            .linker = *linker,
            .linker_kind = kind,
            .linker_note = "",
            .arrival = arrival,
            .write = write};
    status = RunRequest(scope, &run);
    kind = run.linker_kind;
    if (status.code() == absl::StatusCode::kCancelled) {
      // A deadline that passes cancels what runs below, so the two look alike from here.
      status = Clock::now() >= scope.deadline
                   ? absl::DeadlineExceededError("the call's deadline passed before the answer was complete")
                   : absl::CancelledError("the call was cancelled, by its client or because the router stops");
    }
    metrics_->ChangeRunning(-1);
  }
  metrics_->CountRequest(kind, status);
  return status;
}

absl::Status GenerateRouter::RunRequest(const CallScope& scope, Run* run) {
  const Clock::time_point lookup_start = Clock::now();
  EPIC_ASSIGN_OR_RETURN(std::vector<WorkerView> candidates, CandidatesFor(scope, run->request.model()));
  const v1::ModelInfo model = candidates[0].status.model();
  EPIC_ASSIGN_OR_RETURN(const v1::ResolveDocumentsResponse resolved, Resolve(scope, *run, model));
  EPIC_ASSIGN_OR_RETURN(LinkerChoice choice,
                        GateOf(candidates[0].status).Choose(run->request.linker(), RecipesOf(run->request, resolved)));
  run->linker = choice.linker;
  run->linker_kind = KindOf(choice.linker);
  run->linker_note = std::move(choice.note);
  EPIC_ASSIGN_OR_RETURN(ExpandedPrompt prompt, ExpandPrompt(run->request, run->linker, model, resolved));
  if (candidates.size() > 1 && !prompt.distinct_chunks.empty()) {
    workers_->AskForChunks(scope, prompt.distinct_chunks, &candidates);
  }
  run->lookup_us = MicrosecondsSince(lookup_start);

  absl::Status status;
  for (int32_t attempt = 0; attempt < options_.attempts_max && !candidates.empty(); ++attempt) {
    if (attempt > 0) metrics_->CountRetry(status);
    const auto placement = workers_->Place(run->request.context().request_id(), prompt, candidates);
    metrics_->CountPlacement(placement->reason());
    const std::string address = placement->address();
    status = TryWorker(scope, address, placement.get(), model, prompt.request, run);
    if (status.ok()) return status;
    if (status.code() == absl::StatusCode::kUnavailable) {
      workers_->NoteFailure(address, std::string(status.message()));
      status = absl::UnavailableError(fmt::format("worker {} was lost: {}", address, std::string(status.message())));
    }
    if (run->ttft_us >= 0 && status.code() == absl::StatusCode::kUnavailable) {
      return absl::UnavailableError(fmt::format("{}; {} tokens of the answer had been sent, ask again for the whole",
                                                std::string(status.message()), run->tokens_sent));
    }
    if (run->ttft_us >= 0 || !IsWorthAnotherWorker(status)) return status;
    std::erase_if(candidates, [&](const WorkerView& worker) { return worker.address == address; });
  }
  return status;
}

absl::StatusOr<std::vector<WorkerView>> GenerateRouter::CandidatesFor(const CallScope& scope,
                                                                      const std::string& model) {
  const WorkersSeen seen = workers_->Look(scope);
  if (seen.healthy.empty()) {
    if (Clock::now() >= scope.deadline) {
      return absl::DeadlineExceededError("the deadline passed while the workers were asked for their load");
    }
    return absl::UnavailableError(fmt::format("no worker can take requests now: {}", fmt::join(seen.problems, "; ")));
  }
  return WorkersOfModel(model, options_.default_model, seen.healthy);
}

absl::StatusOr<v1::ResolveDocumentsResponse> GenerateRouter::Resolve(const CallScope& scope, const Run& run,
                                                                     const v1::ModelInfo& model) {
  v1::ResolveDocumentsResponse resolved;
  const std::vector<std::string> ids = DocumentsOf(run.request);
  if (!ids.empty()) {
    v1::ResolveDocumentsRequest request;
    *request.mutable_context() = run.request.context();
    request.mutable_document_ids()->Assign(ids.begin(), ids.end());
    // Where the request names no linker: that of each document, which every default takes.
    request.set_recipe_id(run.linker.RecipeId());
    request.set_model_fingerprint(model.fingerprint());
    EPIC_ASSIGN_OR_RETURN(resolved, documents_->Resolve(scope, request));
  }
  return resolved;
}

absl::Status GenerateRouter::TryWorker(const CallScope& scope, const std::string& address,
                                       WorkerPool::Placement* placement, const v1::ModelInfo& model,
                                       const v1::InferRequest& request, Run* run) {
  v1::InferRequest timed = request;
  timed.set_router_lookup_us(run->lookup_us);
  timed.set_router_elapsed_us(MicrosecondsSince(run->arrival));
  bool write_failed = false;
  const absl::Status status = backends_->Worker(address)->Infer(scope, timed, [&](v1::GenerateResponse* message) {
    if (run->ttft_us < 0 && (message->tokens_size() > 0 || !message->text().empty())) {
      run->ttft_us = MicrosecondsSince(run->arrival);
      metrics_->ObserveTtft(run->linker_kind, static_cast<double>(run->ttft_us) / 1e6);
      placement->Seen();
    }
    run->tokens_sent += message->tokens_size();
    if (message->has_final()) {
      run->final_sent = true;
      v1::GenerateFinal* final_message = message->mutable_final();
      v1::Timing* timing = final_message->mutable_timing();
      timing->set_lookup_us(std::max(timing->lookup_us(), run->lookup_us));
      if (run->ttft_us >= 0) timing->set_ttft_us(run->ttft_us);
      timing->set_total_us(MicrosecondsSince(run->arrival));
      final_message->set_request_id(run->request.context().request_id());
      if (!run->linker_note.empty()) final_message->set_linker_note(run->linker_note);
      if (final_message->linker().empty()) final_message->set_linker(run->linker.Name());
      if (final_message->worker_id().empty()) final_message->set_worker_id(address);
      if (final_message->model().empty()) final_message->set_model(model.name());
    }
    write_failed = !run->write(*message);
    return !write_failed;
  });
  if (write_failed) return absl::CancelledError("the client is gone");
  if (status.ok() && !run->final_sent) {
    return absl::InternalError(fmt::format("worker {} ended the answer without its last message", address));
  }
  return status;
}

absl::StatusOr<v1::ListModelsResponse> GenerateRouter::ListModels(const CallScope& scope) {
  const WorkersSeen seen = workers_->Look(scope);
  if (seen.healthy.empty()) {
    return absl::UnavailableError(fmt::format("no worker answers: {}", fmt::join(seen.problems, "; ")));
  }
  std::map<std::string, const v1::ModelInfo*> by_fingerprint;
  for (const WorkerView& worker : seen.healthy) {
    by_fingerprint.emplace(worker.status.model().fingerprint(), &worker.status.model());
  }
  v1::ListModelsResponse response;
  for (const auto& [fingerprint, model] : by_fingerprint) *response.add_models() = *model;
  return response;
}

absl::StatusOr<std::vector<WorkerView>> WorkersOfModel(const std::string& model, const std::string& default_model,
                                                       const std::vector<WorkerView>& workers) {
  const std::string& wanted = model.empty() ? default_model : model;
  std::map<std::string, std::string> names_by_fingerprint;  // of those that match
  std::vector<std::string> known;
  for (const WorkerView& worker : workers) {
    const v1::ModelInfo& info = worker.status.model();
    if (std::find(known.begin(), known.end(), info.name()) == known.end()) known.push_back(info.name());
    if (wanted.empty() || wanted == info.name() || wanted == info.fingerprint()) {
      names_by_fingerprint[info.fingerprint()] = info.name();
    }
  }
  if (names_by_fingerprint.empty()) {
    return absl::NotFoundError(
        fmt::format("no worker runs model {}{}", QuoteForMessage(wanted), NameHint(wanted, known)));
  }
  if (names_by_fingerprint.size() > 1) {
    std::vector<std::string> choices;
    for (const auto& [fingerprint, name] : names_by_fingerprint)
      choices.push_back(fmt::format("{} ({})", name, fingerprint));
    return absl::InvalidArgumentError(fmt::format("model is {}, which may be any of {}; name one by its fingerprint",
                                                  QuoteForMessage(wanted), fmt::join(choices, ", ")));
  }
  std::vector<WorkerView> chosen;
  for (const WorkerView& worker : workers) {
    if (worker.status.model().fingerprint() == names_by_fingerprint.begin()->first) chosen.push_back(worker);
  }
  return chosen;
}

}  // namespace epic
