// `epic eval`: what linkers do to answers, measured on a data set.
#ifndef EPIC_CLIENT_EVAL_COMMAND_H_
#define EPIC_CLIENT_EVAL_COMMAND_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/commands.h"
#include "eval/task.h"

namespace epic::client {

// What is asked.
struct EvalSubjectOptions {
  std::string via = "process";  // or "router": the one that CommonOptions names
  std::string model;            // a file or folder; through a router a name, empty: its only one
  int32_t threads = 0;
  std::string kv_dtype = "bf16";  // how the own process keeps chunks: bf16, fp16 or int8
};

struct EvalOptions {
  EvalSubjectOptions subject;
  eval::TaskOptions task;
  std::vector<std::string> linkers;
  std::string out;  // empty: .epic/eval/MODEL/TASK
};

struct GateOptions {
  EvalSubjectOptions subject;
  std::string data = "examples";  // a folder with questions.json and documents/
  std::vector<std::string> linkers;
  std::string run;  // the folder of the run; empty: .epic/eval/MODEL/gate
  std::string out;  // the file of verdicts; empty: quality/verdicts/MODEL.json
};

// Every linker that the default run compares, and those that the gate judges.
std::vector<std::string> DefaultEvalLinkers();
std::vector<std::string> DefaultGateLinkers();

// Runs what the output folder lacks, then prints the summary and writes it there. SIGINT and SIGTERM end it after the
// request that runs; the same command goes on.
absl::Status RunEval(const CommonOptions& common, const EvalOptions& options);

// Runs the gate's questions, prints the verdict of every linker and writes the file of verdicts (decision 0009). A
// linker that is refused is no error: the verdict is the result.
absl::Status RunEvalGate(const CommonOptions& common, const GateOptions& options);

// Prints the summaries of finished or unfinished runs, one behind the other, as Markdown, or as a JSON array.
absl::Status RunEvalReport(const CommonOptions& common, const std::vector<std::string>& folders);

}  // namespace epic::client

#endif  // EPIC_CLIENT_EVAL_COMMAND_H_
