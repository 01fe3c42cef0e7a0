// Which tokens of a prompt's chunks run again, beyond what the linkers can do: the choices that bench_policies compares
// at equal rows. Pure.
//
// A policy's name says which rows and behind what chunks were compiled:
//
//   naive                no row of a chunk
//   head:<k>             the first k tokens of each run of chunks (legolink:<k>)
//   tail:<k>             the last k
//   head:<k>+tail:<j>    both
//   share                heads whose lengths are proportional to those of their runs
//   random               drawn by lot over all chunk tokens
//   blend                CacheBlend's choice
//   head:<k>+blend       heads of k, and CacheBlend's choice for what is left of the budget
//   head:<k>+stops       heads of k, and the tokens that first end a sentence or line behind them: as many in each run
//   as
//                        its head is shorter than the budget's; where they are fewer, the head takes the difference
//   head:<k>+spread      stops from all over the chunk, evenly, and not its first ones
//   head:<k>+pauses      the same with commas, colons and semicolons
//
// and behind it, in this order, `@document` (documents compiled as a whole, docs/linking.md) and `/behind:<n>` (each
// document compiled behind the first n tokens of this very prompt, all that stand before its documents where they are
// fewer; without it behind BOS alone where the model has one). `/behind:4` is what recipe sink4 does.
//
// `share`, `random`, `blend` take as many rows as the budget has: those of head:<budget> over the same prompt.
#ifndef EPIC_BENCHMARKS_ROW_POLICY_H_
#define EPIC_BENCHMARKS_ROW_POLICY_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/chunk_key.h"
#include "engine/link_plan.h"
#include "engine/linker.h"
#include "engine/prompt.h"

namespace epic {

struct RowPolicy {
  enum class Rest {
    kNone,
    kShare,
    kRandom,
    kBlend,
    kStops,
    kPauses,
    kSpread
  };  // how what heads and tails leave of the budget is spent
  std::string name;
  int32_t head = 0;
  int32_t tail = 0;
  Rest rest = Rest::kNone;
  bool whole_documents = false;
  int32_t behind = 0;

  // INVALID_ARGUMENT names what is wrong and the forms that there are.
  static absl::StatusOr<RowPolicy> Parse(std::string_view name);
};

// What the executor of linkers (engine/link_job.h) is given for a policy.
struct PolicyPlan {
  Linker linker;
  LinkPlan plan;
};

// How a token separates what stands around it.
enum class Separation { kNone, kPause, kStop };
// `text`: the token's bytes, nothing but spaces and separating marks. A stop has line ends, full stops, question or
// exclamation marks (of Latin or Chinese script) and no other marks, a pause has commas, colons or semicolons.
Separation SeparationOf(std::string_view text);

// `prompt` with its chunks' contexts and `recipe`, without contexts, say behind what the chunks were compiled.
// `budget`: k of the head:<k> whose rows are spent; `separations`: of every token of the vocabulary. REQUIRES: the
// prompt ends with a fresh token.
PolicyPlan PlanPolicy(std::span<const PromptSegment> prompt, const RowPolicy& policy, const Recipe& recipe,
                      int32_t budget, std::span<const Separation> separations);

}  // namespace epic

#endif  // EPIC_BENCHMARKS_ROW_POLICY_H_
