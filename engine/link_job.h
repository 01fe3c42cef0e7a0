// Linking one prompt, in pieces: from a plan to KV that decoding can start from, and the hidden state of the last
// token.
//
// Most linkers run their rows through all layers, and share batches with other sequences: TakeRows, then FinishRows
// once they have run. CacheBlend's layers differ, so it runs passes of its own: RunOwnPass. Not thread-safe.
#ifndef EPIC_ENGINE_LINK_JOB_H_
#define EPIC_ENGINE_LINK_JOB_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend.h"
#include "engine/link_plan.h"
#include "engine/linker.h"
#include "engine/prompt.h"

namespace epic {

class LinkJob {
 public:
  struct Options {
    int32_t first_position = 0;  // of the prompt's first token; tests move whole prompts
    // The plan's first rows where they have run before (PrivateRows::Adopt); fewer than all, and none for CacheBlend.
    int32_t cached_rows = 0;
    std::vector<std::shared_ptr<KvPage>> cached_pages = {};
  };

  // `prompt` gives token ids and, for linkers that use them, chunks (compiled fresh segments of naive-last included:
  // every segment named in plan.shared has its chunk). REQUIRES: the prompt outlives the job.
  LinkJob(Backend& backend, std::span<const PromptSegment> prompt, const Linker& linker, LinkPlan plan,
          Options options);

  bool Done() const { return phase_ == Phase::kDone; }
  bool NeedsOwnPass() const { return phase_ == Phase::kAllRows || phase_ == Phase::kChosenRows; }
  int64_t remaining_rows() const;

  // REQUIRES: !Done() && !NeedsOwnPass(). Appends the next rows, at most `rows_max`, and makes room for their KV.
  int32_t TakeRows(int32_t rows_max, std::vector<int32_t>& token_ids, std::vector<int32_t>& positions);
  // The rows of the last TakeRows have run; `last_hidden` is the last one's hidden state, [width].
  void FinishRows(const float* last_hidden);
  // REQUIRES: NeedsOwnPass(). Runs at most `rows_max` rows; returns how many.
  int32_t RunOwnPass(int32_t rows_max);
  // REQUIRES: NeedsOwnPass(). How many rows of the next pass take no longer than one row through all layers.
  int32_t OwnPassRowsPerRow() const;

  SequenceKv& kv() { return kv_; }
  const std::vector<float>& last_hidden() const { return last_hidden_; }  // REQUIRES: Done()
  // The rows that ran through all layers for this job (relative to the prompt's start); final once Done().
  const std::vector<int32_t>& selected() const { return selected_; }
  // CacheBlend: the deviation of each chunk token's value at layer 1, in the order of the prompt; for tests.
  const std::vector<double>& deviations() const { return deviations_; }
  // Rows run, summed over layers, divided by the number of layers.
  double recomputed_rows() const { return static_cast<double>(row_layers_) / backend_.config().layers; }

 private:
  enum class Phase { kRows, kAllRows, kChosenRows, kDone };

  void BuildPlans(const LinkPlan& plan, Options options);
  void RunAllRowsPiece(int32_t begin, int32_t count);
  void Choose();
  double Deviation(const SharedSegment& segment, int32_t row);
  void RunChosenPiece(int32_t begin, int32_t count);

  Backend& backend_;
  std::span<const PromptSegment> prompt_;
  Linker linker_;
  std::vector<int32_t> offsets_;
  std::vector<int32_t> tokens_;  // the whole prompt
  std::vector<int32_t> selected_;
  int32_t first_position_;
  size_t next_ = 0;  // in selected_, or for kAllRows in the prompt
  Phase phase_ = Phase::kRows;
  SequenceKv kv_;
  std::vector<float> all_hidden_;  // CacheBlend: every row's state after layer 0
  std::vector<float> last_hidden_;
  std::vector<double> deviations_;
  int64_t row_layers_ = 0;
};

// Layers that CacheBlend runs with every row's new keys and values: 0, and 1, where it chooses (linking.md §4).
inline constexpr int32_t kCacheBlendFullLayers = 2;

}  // namespace epic

#endif  // EPIC_ENGINE_LINK_JOB_H_
