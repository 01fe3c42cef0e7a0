// A model run by hand for bench_policies: chunks compiled behind any tokens, any rows run again, and the next-token
// distributions behind each beginning of an answer. The engine's parts without its scheduler; not thread-safe.
#ifndef EPIC_BENCHMARKS_POLICY_MODEL_H_
#define EPIC_BENCHMARKS_POLICY_MODEL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "benchmarks/row_policy.h"
#include "engine/cpu/cpu_backend.h"
#include "engine/files/model_file.h"
#include "engine/link_job.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "eval/task.h"

namespace epic {

// Natural logarithms of the probabilities of every token of the vocabulary.
using LogProbabilities = std::vector<float>;

class PolicyModel {
 public:
  // The errors of OpenModelFile; FAILED_PRECONDITION where the model has no chat layout that we render.
  static absl::StatusOr<std::unique_ptr<PolicyModel>> Open(const std::string& path, int threads);

  const ModelConfig& config() const { return backend_->config(); }

  // The example as evaluation asks it (eval/subject.h), its documents cut as a cache node cuts them, without KV.
  absl::StatusOr<std::vector<PromptSegment>> Prompt(const eval::Example& example, bool whole_documents) const;
  // Behind what the policy's chunks are compiled in this prompt.
  Recipe RecipeFor(const std::vector<PromptSegment>& prompt, const RowPolicy& policy) const;

  struct Reference {
    std::vector<int32_t> answer;                  // the token that ended it among them
    std::vector<LogProbabilities> distributions;  // behind the prompt and each proper beginning of the answer
  };
  // Full recompute and its greedy answer, at most `positions_max` tokens of it.
  Reference RunFull(const std::vector<PromptSegment>& prompt, int32_t positions_max);

  struct Linked {
    std::vector<LogProbabilities> distributions;  // as a reference's
    int32_t selected_rows = 0;                    // ran through all layers
    double recomputed_rows = 0;                   // rows run, summed over layers, divided by their number
    double seconds = 0;                           // of linking, without compiling
  };
  // Compiles what is not compiled yet (Forget). REQUIRES: `answer` is not empty.
  Linked Link(std::vector<PromptSegment> prompt, const RowPolicy& policy, int32_t budget,
              const std::vector<int32_t>& answer);

  // Drops all compiled chunks.
  void Forget() { compiled_.clear(); }

 private:
  PolicyModel() = default;
  void RunToEnd(LinkJob& job);
  void CompileChunks(const Recipe& recipe, std::vector<PromptSegment>& prompt);
  ChunkKvPtr Compile(const std::vector<int32_t>& token_ids, const Recipe& recipe, std::vector<ChunkKvPtr> context);
  // Runs these rows of one sequence through all layers, at positions for which its KV has room: hidden states,
  // [rows][width].
  std::vector<float> RunRows(const std::vector<int32_t>& token_ids, std::vector<int32_t> positions, SequenceKv& kv);
  // The same behind all that is there, from `position` on.
  std::vector<float> Append(const std::vector<int32_t>& token_ids, int32_t position, SequenceKv& kv);
  std::vector<LogProbabilities> Distributions(const std::vector<float>& hidden);

  std::unique_ptr<ModelFile> file_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> template_;
  std::unique_ptr<CpuBackend> backend_;
  std::set<int32_t> stop_ids_;
  Recipe plain_;
  std::vector<Separation> separations_;                                                   // of every token
  std::map<std::pair<std::vector<int32_t>, std::vector<int32_t>>, ChunkKvPtr> compiled_;  // by prefix and tokens
};

}  // namespace epic

#endif  // EPIC_BENCHMARKS_POLICY_MODEL_H_
