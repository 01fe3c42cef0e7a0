#include "engine/link_plan.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>
#include <utility>

#include "core/split_mix.h"

namespace epic {

std::vector<int32_t> SegmentOffsets(std::span<const PromptSegment> prompt) {
  std::vector<int32_t> offsets{0};
  for (const PromptSegment& segment : prompt) {
    offsets.push_back(offsets.back() + static_cast<int32_t>(segment.token_ids.size()));
  }
  return offsets;
}

bool ChunkIsExact(std::span<const PromptSegment> prompt, size_t segment, const Recipe& recipe) {
  const std::vector<int32_t> expected = RecipeBehind(recipe, prompt[segment].context_token_ids).prefix_tokens;
  size_t at = 0;
  for (size_t s = 0; s < segment; ++s) {
    for (const int32_t id : prompt[s].token_ids) {
      if (at >= expected.size() || expected[at] != id) return false;
      ++at;
    }
  }
  return at == expected.size();
}

bool ContinuesRun(std::span<const PromptSegment> prompt, size_t segment) {
  if (segment == 0 || !prompt[segment - 1].is_chunk) return false;
  const std::vector<int32_t>& context = prompt[segment].context_token_ids;
  const PromptSegment& before = prompt[segment - 1];
  // The one before must have been compiled behind the beginning of this one's context: equal tokens alone are not the
  // same KV.
  return context.size() == before.context_token_ids.size() + before.token_ids.size() &&
         std::ranges::equal(before.context_token_ids, std::span(context).first(before.context_token_ids.size())) &&
         std::ranges::equal(before.token_ids, std::span(context).last(before.token_ids.size()));
}

namespace {

// How many rows at the head of this chunk the linker recomputes: of a run, only its first chunk's.
int32_t HeadRows(std::span<const PromptSegment> prompt, size_t segment, const Linker& linker, const Recipe& recipe) {
  if (linker.kind != LinkerKind::kLegoLink) return 0;
  if (ContinuesRun(prompt, segment) || ChunkIsExact(prompt, segment, recipe)) return 0;
  return std::min(linker.legolink_tokens, static_cast<int32_t>(prompt[segment].token_ids.size()));
}

void AddRange(int32_t begin, int32_t end, std::vector<int32_t>& positions) {
  for (int32_t p = begin; p < end; ++p) positions.push_back(p);
}

// The distributions of <random> differ from library to library, and prompts must have the same rows everywhere.
class Generator {
 public:
  // Numbers that depend on every one of these ids and on their order.
  explicit Generator(std::span<const int32_t> token_ids) {
    for (const int32_t id : token_ids) {
      state_ ^= static_cast<uint32_t>(id);
      state_ = Next();
    }
  }

  // Each of 0 .. bound - 1 equally often. REQUIRES: bound > 0.
  uint64_t NextBelow(uint64_t bound) {
    // Numbers at the upper end that do not fill a round of `bound` are drawn again: they would favour small remainders.
    const uint64_t limit = std::numeric_limits<uint64_t>::max() / bound * bound;
    uint64_t number = Next();
    while (number >= limit) number = Next();
    return number % bound;
  }

 private:
  uint64_t Next() {
    const uint64_t number = SplitMix(state_);
    state_ += kSplitMixStep;
    return number;
  }

  uint64_t state_ = 0;
};

// Makes the plan of `naive` that of `random`: the chosen rows of its ranges run too.
void AddRandomRows(std::span<const PromptSegment> prompt, double percent, std::span<const int32_t> offsets,
                   LinkPlan& plan) {
  std::vector<int32_t> candidates, token_ids;
  for (const PlannedShared& shared : plan.shared) {
    AddRange(offsets[shared.segment] + shared.row_begin, offsets[shared.segment] + shared.row_end, candidates);
  }
  for (const PromptSegment& segment : prompt) {
    token_ids.insert(token_ids.end(), segment.token_ids.begin(), segment.token_ids.end());
  }
  const std::vector<int32_t> chosen = ChooseRandom(candidates, token_ids, ChosenCount(prompt, percent));
  auto next = chosen.begin();
  for (PlannedShared& shared : plan.shared) {
    const int32_t offset = offsets[shared.segment];
    for (; next != chosen.end() && *next < offset + shared.row_end; ++next) shared.rerun.push_back(*next - offset);
  }
  std::erase_if(plan.shared, [](const PlannedShared& shared) {
    return static_cast<int32_t>(shared.rerun.size()) == shared.row_end - shared.row_begin;
  });
  std::vector<int32_t> positions;
  positions.reserve(plan.positions.size() + chosen.size());
  std::merge(plan.positions.begin(), plan.positions.end(), chosen.begin(), chosen.end(), std::back_inserter(positions));
  plan.positions = std::move(positions);
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
  if (linker.kind == LinkerKind::kRandom) AddRandomRows(prompt, linker.percent, offsets, plan);
  return plan;
}

size_t ChosenCount(std::span<const PromptSegment> prompt, double percent) {
  size_t chunk_tokens = 0;
  for (const PromptSegment& segment : prompt) chunk_tokens += segment.is_chunk ? segment.token_ids.size() : 0;
  return static_cast<size_t>(std::floor(static_cast<double>(chunk_tokens) * percent / 100));
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

std::vector<int32_t> ChooseRandom(std::span<const int32_t> candidates, std::span<const int32_t> token_ids,
                                  size_t count) {
  std::vector<int32_t> drawn(candidates.begin(), candidates.end());
  count = std::min(count, drawn.size());
  Generator generator(token_ids);
  // The beginning of a Fisher-Yates shuffle.
  for (size_t i = 0; i < count; ++i) std::swap(drawn[i], drawn[i + generator.NextBelow(drawn.size() - i)]);
  drawn.resize(count);
  std::ranges::sort(drawn);
  return drawn;
}

}  // namespace epic
