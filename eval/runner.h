// Runs an evaluation: every example of a task by every linker, one request at a time, into a run's folder.
//
// For each example its documents are registered and compiled, full recompute answers, and its answer becomes the
// reference: the next-token distributions behind the prompt and each beginning of that answer, up to its end or
// kReferencePositions, whichever comes first. Each linker then answers by itself, with the rows that it chooses run
// afresh, and is scored along the reference (teacher-forced), so that distributions of different linkers are compared
// behind the same text.
//
// The reference's distributions are those of `prefix`, which runs what full runs and keeps its rows: they are the same
// bits (docs/linking.md), and cost one row where `prefix` is among the linkers.
#ifndef EPIC_EVAL_RUNNER_H_
#define EPIC_EVAL_RUNNER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "eval/run_folder.h"
#include "eval/subject.h"
#include "eval/task.h"

namespace epic::eval {

inline constexpr int32_t kReferencePositions = 16;

// A linker as a run is told: what engine/linker.h parses, or `random:=legolink:<k>` and `cacheblend:=legolink:<k>`,
// which choose in each example as many chunk tokens as that LegoLink recomputes in it.
struct EvalLinker {
  std::string name;
  std::string family;      // "full", "random", "cacheblend", ...
  std::string equal_rows;  // the LegoLink whose number of rows is taken; empty: the name is the engine's own
};

// Parses the list, puts `full` first, then `prefix` where it is asked for, and each LegoLink before those that take its
// number of rows; adds what is needed but was not asked for. INVALID_ARGUMENT names what is wrong with which one.
absl::StatusOr<std::vector<EvalLinker>> ParseEvalLinkers(const std::vector<std::string>& names);

struct RunProgress {
  size_t examples_done = 0;
  size_t examples = 0;
  std::string linker;
  double seconds_left = -1;  // by the examples done in this run; negative: not known yet
};

struct RunHooks {
  // Called before each request; an error that it returns ends the run.
  std::function<absl::Status(const RunProgress&)> progress;
  // Waits so long before a request is tried again.
  std::function<void(std::chrono::milliseconds)> pause;
};

// Runs what the folder does not hold yet. An example that the model cannot take (too long a prompt, a document that is
// refused) is recorded as skipped. A subject that is unreachable or too busy is asked again kAttemptsMax times in all,
// then its error ends the run; what was done stays.
absl::Status RunEvaluation(const Task& task, const std::vector<EvalLinker>& linkers, Subject& subject,
                           RunFolder& folder, const RunHooks& hooks);

inline constexpr int kAttemptsMax = 4;

}  // namespace epic::eval

#endif  // EPIC_EVAL_RUNNER_H_
