#include "engine/link_plan.h"

#include <algorithm>
#include <numeric>

namespace epic {

std::vector<int32_t> SegmentOffsets(std::span<const PromptSegment> prompt) {
  std::vector<int32_t> offsets{0};
  for (const PromptSegment& segment : prompt) {
    offsets.push_back(offsets.back() + static_cast<int32_t>(segment.token_ids.size()));
  }
  return offsets;
}

bool ChunkIsExact(std::span<const PromptSegment> prompt, size_t segment, const Recipe& recipe) {
  size_t at = 0;
  for (size_t s = 0; s < segment; ++s) {
    for (const int32_t id : prompt[s].token_ids) {
      if (at >= recipe.prefix_tokens.size() || recipe.prefix_tokens[at] != id) return false;
      ++at;
    }
  }
  return at == recipe.prefix_tokens.size();
}

namespace {

// How many rows at the head of this chunk the linker recomputes.
int32_t HeadRows(std::span<const PromptSegment> prompt, size_t segment, const Linker& linker, const Recipe& recipe) {
  if (linker.kind != LinkerKind::kLegoLink || ChunkIsExact(prompt, segment, recipe)) return 0;
  return std::min(linker.legolink_tokens, static_cast<int32_t>(prompt[segment].token_ids.size()));
}

void AddRange(int32_t begin, int32_t end, std::vector<int32_t>& positions) {
  for (int32_t p = begin; p < end; ++p) positions.push_back(p);
}

}  // namespace

LinkPlan PlanLink(std::span<const PromptSegment> prompt, const Linker& linker, const Recipe& recipe) {
  const std::vector<int32_t> offsets = SegmentOffsets(prompt);
  const int32_t last = offsets.back() - 1;
  LinkPlan plan;
  if (!linker.UsesChunks()) {
    AddRange(0, offsets.back(), plan.positions);
    return plan;
  }
  const bool fresh_is_compiled = linker.kind == LinkerKind::kNaiveLast;
  for (size_t s = 0; s < prompt.size(); ++s) {
    const int32_t count = offsets[s + 1] - offsets[s];
    const bool reused = prompt[s].is_chunk || fresh_is_compiled;
    if (!reused) {
      AddRange(offsets[s], offsets[s + 1], plan.positions);
      continue;
    }
    int32_t head = HeadRows(prompt, s, linker, recipe);
    AddRange(offsets[s], offsets[s] + head, plan.positions);
    int32_t end = count;
    if (offsets[s + 1] - 1 == last && head < count) {
      plan.positions.push_back(last);
      --end;
    }
    if (head < end) {
      if (!prompt[s].is_chunk) plan.compile_alone.push_back(static_cast<int32_t>(s));
      plan.shared.push_back({static_cast<int32_t>(s), head, end});
    }
  }
  return plan;
}

std::vector<int32_t> ChooseLargest(std::span<const int32_t> candidates, std::span<const double> deviations,
                                   size_t count) {
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  count = std::min(count, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(count), order.end(), [&](size_t a, size_t b) {
    return deviations[a] != deviations[b] ? deviations[a] > deviations[b] : candidates[a] < candidates[b];
  });
  std::vector<int32_t> chosen;
  for (size_t i = 0; i < count; ++i) chosen.push_back(candidates[order[i]]);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace epic
