// What one linker made of one example, as one line of JSON.
#ifndef EPIC_EVAL_OUTCOME_H_
#define EPIC_EVAL_OUTCOME_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/files/json_file.h"
#include "eval/subject.h"
#include "eval/task.h"
#include "nlohmann/json.hpp"

namespace epic::eval {

struct Outcome {
  std::string example;
  std::string linker;         // as the run was told
  std::string engine_linker;  // as the engine was told: random:=legolink:16 becomes random:<percent>
  std::string answer;
  std::vector<int32_t> token_ids;
  bool stopped = false;
  double score = 0;                  // by the task's metric
  bool names_gold = false;           // a gold answer stands in it, word for word (eval/metrics.h)
  bool answer_in_documents = false;  // of the example (eval/task.h)
  bool first_token_agrees = false;   // its likeliest first token is that of full recompute
  // Nats, of full recompute's next-token distribution to this one's: mean over `positions` positions of full's answer.
  double mean_kl = 0;
  int32_t positions = 0;
  double rouge_l_to_full = 0;  // of its answer, full's being the gold one
  TrialUsage usage;
  TrialTiming timing;
};

nlohmann::ordered_json ToJson(const Outcome& outcome);
// An example that could not be asked.
nlohmann::ordered_json ToJson(const Skip& skip);
// Whether the line is that of an example that could not be asked.
bool IsSkip(const JsonObject& line);
// INVALID_ARGUMENT naming the member that is missing or of another type.
absl::StatusOr<Outcome> OutcomeFromJson(const JsonObject& line);
absl::StatusOr<Skip> SkipFromJson(const JsonObject& line);

}  // namespace epic::eval

#endif  // EPIC_EVAL_OUTCOME_H_
