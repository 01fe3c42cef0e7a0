#include "eval/outcome.h"

#include "core/status_macros.h"
#include "eval/json_members.h"

namespace epic::eval {
namespace {

constexpr char kExample[] = "example";
constexpr char kSkipped[] = "skipped";

// Calls `visit` with the name and the member of everything that a record of an outcome has, in this order.
template <typename Record, typename Visit>
void VisitMembers(Record& o, const Visit& visit) {
  visit(kExample, o.example);
  visit("linker", o.linker);
  visit("engine_linker", o.engine_linker);
  visit("answer", o.answer);
  visit("token_ids", o.token_ids);
  visit("stopped", o.stopped);
  visit("score", o.score);
  visit("names_gold", o.names_gold);
  visit("answer_in_documents", o.answer_in_documents);
  visit("first_token_agrees", o.first_token_agrees);
  visit("mean_kl", o.mean_kl);
  visit("positions", o.positions);
  visit("rouge_l_to_full", o.rouge_l_to_full);
  visit("prompt_tokens", o.usage.prompt_tokens);
  visit("cached_tokens", o.usage.cached_tokens);
  visit("selected_tokens", o.usage.selected_tokens);
  visit("recomputed_tokens", o.usage.recomputed_tokens);
  visit("reused_tokens", o.usage.reused_tokens);
  visit("lookup_us", o.timing.lookup_us);
  visit("load_us", o.timing.load_us);
  visit("compile_us", o.timing.compile_us);
  visit("link_us", o.timing.link_us);
  visit("first_token_us", o.timing.first_token_us);
  visit("ttft_us", o.timing.ttft_us);
}

}  // namespace

nlohmann::ordered_json ToJson(const Outcome& outcome) {
  nlohmann::ordered_json json;
  VisitMembers(outcome, [&](const char* name, const auto& member) { json[name] = member; });
  return json;
}

nlohmann::ordered_json ToJson(const Skip& skip) { return {{kExample, skip.id}, {kSkipped, skip.reason}}; }

bool IsSkip(const JsonObject& line) { return line.Find(kSkipped) != nullptr; }

absl::StatusOr<Outcome> OutcomeFromJson(const JsonObject& line) {
  Outcome outcome;
  absl::Status status;
  VisitMembers(outcome, [&](const char* name, auto& member) { status.Update(TakeMember(line, name, member)); });
  if (!status.ok()) return status;
  return outcome;
}

absl::StatusOr<Skip> SkipFromJson(const JsonObject& line) {
  Skip skip;
  EPIC_RETURN_IF_ERROR(TakeMember(line, kExample, skip.id));
  EPIC_RETURN_IF_ERROR(TakeMember(line, kSkipped, skip.reason));
  return skip;
}

}  // namespace epic::eval
