// What an evaluation asks: a running EPIC, or a stand-in for tests.
#ifndef EPIC_EVAL_SUBJECT_H_
#define EPIC_EVAL_SUBJECT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/divergence.h"

namespace epic::eval {

// One request: the preface, the documents one directly after the other, a blank line, the question.
struct Trial {
  std::string preface;
  std::vector<std::string> document_ids;
  std::string question;
  std::string linker;  // a name that engine/linker.h parses
  int32_t output_tokens_max = 1;
  // Run every row that the linker chooses, so that its time to the first token is its own.
  bool afresh = true;
  // Not empty: nothing is generated. Position i of the result is the distribution behind the prompt and the first i of
  // these tokens; what the last one is does not matter.
  std::vector<int32_t> continuation;
  int32_t top_logprobs = 0;
};

struct TrialTiming {
  int64_t lookup_us = 0;
  int64_t load_us = 0;
  int64_t compile_us = 0;
  int64_t link_us = 0;
  int64_t first_token_us = 0;
  int64_t ttft_us = 0;
};

struct TrialUsage {
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;      // in chunks
  int32_t selected_tokens = 0;    // ran through all layers
  int32_t recomputed_tokens = 0;  // rows run, summed over layers / layers
  int32_t reused_tokens = 0;
};

struct TrialResult {
  std::string text;
  std::vector<int32_t> token_ids;                  // without the token that ended the answer
  bool stopped = false;                            // at the model's end of turn, not at output_tokens_max
  std::vector<std::vector<TokenProbability>> top;  // of each position
  TrialUsage usage;
  TrialTiming timing;
};

// What is measured, for reports and to tell one run from another.
struct SubjectDescription {
  std::string model;
  std::string fingerprint;
  std::string engine_version;
  std::string via;  // "this process" or the router's address
  int32_t vocab_size = 0;
  int32_t context_length = 0;
};

// Not thread-safe: an evaluation asks one request at a time, so that times are not those of a crowd.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual const SubjectDescription& description() const = 0;
  // Registers the text and waits until its chunks are compiled. Returns its id; the same text gives the same one.
  // INVALID_ARGUMENT for a text that cannot be a document.
  virtual absl::StatusOr<std::string> Register(const std::string& text) = 0;
  // Forgets what Register made, and nothing that was there before.
  virtual absl::Status Forget(const std::string& document_id) = 0;
  // INVALID_ARGUMENT for a prompt that the model cannot take.
  virtual absl::StatusOr<TrialResult> Ask(const Trial& trial) = 0;
};

}  // namespace epic::eval

#endif  // EPIC_EVAL_SUBJECT_H_
