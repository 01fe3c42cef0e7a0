// The arithmetic of linking: which positions run through the model, which rows of which chunks are used as they lie.
// Pure; docs/linking.md has the mathematics.
#ifndef EPIC_ENGINE_LINK_PLAN_H_
#define EPIC_ENGINE_LINK_PLAN_H_

#include <cstdint>
#include <span>
#include <vector>

#include "engine/linker.h"
#include "engine/prompt.h"

namespace epic {

// Rows [row_begin, row_end) of a segment that are attended to as they were compiled, but for those that run again.
struct PlannedShared {
  int32_t segment = 0;  // index in the prompt
  int32_t row_begin = 0;
  int32_t row_end = 0;
  std::vector<int32_t> rerun = {};  // rows of the range whose positions run (random): ascending, never all of the range
  friend bool operator==(const PlannedShared&, const PlannedShared&) = default;
};

struct LinkPlan {
  // Rows that run through all layers: sorted, unique, the last prompt position always among them, because its logits
  // are the answer's beginning. For CacheBlend: the fresh ones; the rest is chosen at layer 1.
  std::vector<int32_t> positions;
  std::vector<PlannedShared> shared;   // in the order of the prompt, none empty
  std::vector<int32_t> compile_alone;  // naive-last: fresh segments to compile first, at local positions
};

// Where each segment begins, and at the end the prompt's length.
std::vector<int32_t> SegmentOffsets(std::span<const PromptSegment> prompt);

// True where this chunk's KV is what full recompute would give: it stands behind exactly the tokens it was compiled
// behind, at the start of the prompt. Here and below `recipe` is that of the prompt's chunks without their contexts.
bool ChunkIsExact(std::span<const PromptSegment> prompt, size_t segment, const Recipe& recipe);

// True where this chunk goes on with a run: it stands behind the very chunks that it was compiled in sight of, or
// behind the later ones of them, so that its head is not stale. A run begins with the first chunk that does not.
bool ContinuesRun(std::span<const PromptSegment> prompt, size_t segment);

// Plans any linker; full and prefix recompute everything (rows that were kept are taken off by the caller).
// REQUIRES: the prompt has at least one token.
LinkPlan PlanLink(std::span<const PromptSegment> prompt, const Linker& linker, const Recipe& recipe);

// How many of the prompt's chunk tokens a linker with a percentage chooses: rounded down.
size_t ChosenCount(std::span<const PromptSegment> prompt, double percent);

// CacheBlend's choice: of the candidates, the `count` with the largest deviation, ties to the lower position; sorted.
std::vector<int32_t> ChooseLargest(std::span<const int32_t> candidates, std::span<const double> deviations,
                                   size_t count);

// The random linker's choice: `count` of the candidates, all of them where there are fewer, each set of so many equally
// likely; sorted. A function of its arguments alone, whatever the machine. What `token_ids`, those of the whole prompt,
// give with a smaller count is part of what they give with a larger one.
std::vector<int32_t> ChooseRandom(std::span<const int32_t> candidates, std::span<const int32_t> token_ids,
                                  size_t count);

}  // namespace epic

#endif  // EPIC_ENGINE_LINK_PLAN_H_
