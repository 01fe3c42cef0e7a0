#include "benchmarks/row_policy.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "fmt/format.h"

namespace epic {
namespace {

// Consecutive chunks of which each has seen the ones before it; only their ends are stale.
struct Run {
  size_t first = 0;  // segments
  size_t last = 0;
  int32_t begin = 0;  // positions
  int32_t end = 0;
};

// Of the prompt's runs those that are not what full recompute would give.
std::vector<Run> StaleRuns(std::span<const PromptSegment> prompt, std::span<const int32_t> offsets,
                           const Recipe& recipe) {
  std::vector<Run> runs;
  bool exact = false;  // the run that is being read
  for (size_t s = 0; s < prompt.size(); ++s) {
    if (!prompt[s].is_chunk) continue;
    if (ContinuesRun(prompt, s)) {
      if (!exact) runs.back() = {runs.back().first, s, runs.back().begin, offsets[s + 1]};
      continue;
    }
    exact = ChunkIsExact(prompt, s, recipe);
    if (!exact) runs.push_back({s, s, offsets[s], offsets[s + 1]});
  }
  return runs;
}

void Mark(int32_t begin, int32_t end, std::vector<bool>& chosen) {
  for (int32_t p = begin; p < end; ++p) chosen[p] = true;
}

// The first `tokens` of the run, all within its first chunk; the last ones within its last.
void MarkHead(const Run& run, int32_t tokens, std::span<const int32_t> offsets, std::vector<bool>& chosen) {
  Mark(run.begin, std::min(run.begin + tokens, offsets[run.first + 1]), chosen);
}
void MarkTail(const Run& run, int32_t tokens, std::span<const int32_t> offsets, std::vector<bool>& chosen) {
  Mark(std::max(run.end - tokens, offsets[run.last]), run.end, chosen);
}

int32_t Count(const std::vector<bool>& chosen) {
  return static_cast<int32_t>(std::count(chosen.begin(), chosen.end(), true));
}

// Heads of `budget` rows in all, each as long as its run's share of all runs' tokens.
void MarkShares(std::span<const Run> runs, int32_t budget, std::span<const int32_t> offsets,
                std::vector<bool>& chosen) {
  int64_t tokens = 0;
  for (const Run& run : runs) tokens += run.end - run.begin;
  // By cumulated shares, so that what rounding takes from one run the next one gets.
  int64_t before = 0;
  for (const Run& run : runs) {
    const int64_t begin = budget * before / tokens;
    before += run.end - run.begin;
    MarkHead(run, static_cast<int32_t>(budget * before / tokens - begin), offsets, chosen);
  }
}

void MarkRandom(std::span<const PromptSegment> prompt, int32_t count, std::span<const int32_t> offsets,
                std::vector<bool>& chosen) {
  std::vector<int32_t> candidates, token_ids;
  for (size_t s = 0; s < prompt.size(); ++s) {
    token_ids.insert(token_ids.end(), prompt[s].token_ids.begin(), prompt[s].token_ids.end());
    for (int32_t p = offsets[s]; prompt[s].is_chunk && p < offsets[s + 1]; ++p) {
      if (!chosen[p]) candidates.push_back(p);
    }
  }
  for (const int32_t p : ChooseRandom(candidates, token_ids, count)) chosen[p] = true;
}

// The first tokens behind the run's head that separate at least so much, of its first chunk, until `budget` of the
// chunk's tokens are chosen; then the head grows.
void MarkSeparators(std::span<const PromptSegment> prompt, const Run& run, int32_t budget, Separation least,
                    std::span<const Separation> separations, std::span<const int32_t> offsets,
                    std::vector<bool>& chosen) {
  const std::vector<int32_t>& ids = prompt[run.first].token_ids;
  const auto rows = static_cast<int32_t>(ids.size());
  const auto begin = chosen.begin() + offsets[run.first];
  auto left = std::min(budget, rows) - static_cast<int32_t>(std::count(begin, begin + rows, true));
  for (int32_t row = 0; row < rows && left > 0; ++row) {
    if (begin[row] || separations[ids[row]] < least) continue;
    begin[row] = true;
    --left;
  }
  for (int32_t row = 0; row < rows && left > 0; ++row) {
    if (begin[row]) continue;
    begin[row] = true;
    --left;
  }
}

// The same with stops from all over the chunk, evenly.
void MarkSpreadStops(std::span<const PromptSegment> prompt, const Run& run, int32_t budget,
                     std::span<const Separation> separations, std::span<const int32_t> offsets,
                     std::vector<bool>& chosen) {
  const std::vector<int32_t>& ids = prompt[run.first].token_ids;
  const auto rows = static_cast<int32_t>(ids.size());
  const auto begin = chosen.begin() + offsets[run.first];
  const auto left = std::min(budget, rows) - static_cast<int32_t>(std::count(begin, begin + rows, true));
  std::vector<int32_t> stops;
  for (int32_t row = 0; row < rows; ++row) {
    if (!begin[row] && separations[ids[row]] == Separation::kStop) stops.push_back(row);
  }
  const auto count = std::min(left, static_cast<int32_t>(stops.size()));
  for (int32_t i = 0; i < count; ++i) begin[stops[static_cast<size_t>(i) * stops.size() / count]] = true;
  MarkSeparators(prompt, run, budget, Separation::kStop, separations, offsets, chosen);
}

// What of a chunk is used as it lies, where `chosen` rows of the prompt run again.
void AddShared(int32_t segment, int32_t offset, int32_t rows, const std::vector<bool>& chosen, LinkPlan& plan) {
  PlannedShared shared{segment, 0, rows};
  while (shared.row_begin < shared.row_end && chosen[offset + shared.row_begin]) ++shared.row_begin;
  while (shared.row_begin < shared.row_end && chosen[offset + shared.row_end - 1]) --shared.row_end;
  if (shared.row_begin == shared.row_end) return;
  for (int32_t row = shared.row_begin; row < shared.row_end; ++row) {
    if (chosen[offset + row]) shared.rerun.push_back(row);
  }
  plan.shared.push_back(std::move(shared));
}

// Takes `text` off the front of `name`.
bool Take(std::string_view text, std::string_view& name) {
  if (!name.starts_with(text)) return false;
  name.remove_prefix(text.size());
  return true;
}

bool TakeNumber(std::string_view& name, int32_t& number) {
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || number < 1) return false;
  name.remove_prefix(end - name.data());
  return true;
}

bool TakeRows(std::string_view& name, RowPolicy& policy) {
  if (Take("naive", name)) return true;
  const std::pair<std::string_view, RowPolicy::Rest> alone[] = {
      {"share", RowPolicy::Rest::kShare}, {"random", RowPolicy::Rest::kRandom}, {"blend", RowPolicy::Rest::kBlend}};
  for (const auto& [word, rest] : alone) {
    policy.rest = rest;
    if (Take(word, name)) return true;
  }
  policy.rest = RowPolicy::Rest::kNone;
  if (Take("tail:", name)) return TakeNumber(name, policy.tail);
  if (!Take("head:", name) || !TakeNumber(name, policy.head)) return false;
  if (Take("+tail:", name)) return TakeNumber(name, policy.tail);
  if (Take("+blend", name)) policy.rest = RowPolicy::Rest::kBlend;
  if (Take("+stops", name)) policy.rest = RowPolicy::Rest::kStops;
  if (Take("+pauses", name)) policy.rest = RowPolicy::Rest::kPauses;
  if (Take("+spread", name)) policy.rest = RowPolicy::Rest::kSpread;
  return true;
}

}  // namespace

absl::StatusOr<RowPolicy> RowPolicy::Parse(std::string_view name) {
  RowPolicy policy;
  policy.name = name;
  std::string_view left = name;
  bool good = TakeRows(left, policy);
  policy.whole_documents = Take("@document", left);
  if (Take("/behind:", left)) good = TakeNumber(left, policy.behind) && good;
  if (!good || !left.empty()) {
    return absl::InvalidArgumentError(fmt::format(
        "policy \"{}\" is not one of naive, head:<k>, tail:<k>, head:<k>+tail:<j>, share, random, blend and head:<k> "
        "with +blend, +stops, +spread or +pauses, with @document and then /behind:<n> behind it where wanted; numbers "
        "are "
        "at least 1",
        name.substr(0, 64)));
  }
  return policy;
}

Separation SeparationOf(std::string_view text) {
  static constexpr std::string_view kStops[] = {"\n", ".", "!", "?", "。", "！", "？"};
  static constexpr std::string_view kPauses[] = {",", ":", ";"};
  static constexpr std::string_view kSpaces[] = {" ", "\t", "\r"};
  const auto take = [&text](std::string_view mark) { return Take(mark, text); };
  bool stops = false, pauses = false;
  while (!text.empty()) {
    if (std::ranges::any_of(kStops, take)) {
      stops = true;
    } else if (std::ranges::any_of(kPauses, take)) {
      pauses = true;
    } else if (!std::ranges::any_of(kSpaces, take)) {
      return Separation::kNone;
    }
  }
  if (pauses) return Separation::kPause;
  return stops ? Separation::kStop : Separation::kNone;
}

PolicyPlan PlanPolicy(std::span<const PromptSegment> prompt, const RowPolicy& policy, const Recipe& recipe,
                      int32_t budget, std::span<const Separation> separations) {
  const std::vector<int32_t> offsets = SegmentOffsets(prompt);
  const std::vector<Run> runs = StaleRuns(prompt, offsets, recipe);
  std::vector<bool> chosen(offsets.back()), of_budget(offsets.back());
  for (const Run& run : runs) {
    MarkHead(run, policy.head, offsets, chosen);
    MarkTail(run, policy.tail, offsets, chosen);
    MarkHead(run, budget, offsets, of_budget);
  }
  const int32_t rest = std::max(0, Count(of_budget) - Count(chosen));
  PolicyPlan made;
  made.linker.kind = LinkerKind::kNaive;  // its plan says what runs
  int32_t chunk_tokens = 0;
  for (const PromptSegment& segment : prompt) {
    chunk_tokens += segment.is_chunk ? static_cast<int32_t>(segment.token_ids.size()) : 0;
  }
  switch (policy.rest) {
    case RowPolicy::Rest::kNone:
      break;
    case RowPolicy::Rest::kShare:
      if (!runs.empty()) MarkShares(runs, rest, offsets, chosen);
      break;
    case RowPolicy::Rest::kRandom:
      MarkRandom(prompt, rest, offsets, chosen);
      break;
    case RowPolicy::Rest::kSpread:
      for (const Run& run : runs) MarkSpreadStops(prompt, run, budget, separations, offsets, chosen);
      break;
    case RowPolicy::Rest::kStops:
    case RowPolicy::Rest::kPauses:
      for (const Run& run : runs) {
        MarkSeparators(prompt, run, budget,
                       policy.rest == RowPolicy::Rest::kStops ? Separation::kStop : Separation::kPause, separations,
                       offsets, chosen);
      }
      break;
    case RowPolicy::Rest::kBlend:
      made.linker.kind = LinkerKind::kCacheBlend;
      made.linker.percent = 100 * (rest + 0.5) / chunk_tokens;  // of which ChosenCount makes `rest` again
      break;
  }
  for (size_t s = 0; s < prompt.size(); ++s) {
    if (prompt[s].is_chunk) {
      AddShared(static_cast<int32_t>(s), offsets[s], offsets[s + 1] - offsets[s], chosen, made.plan);
    } else {
      Mark(offsets[s], offsets[s + 1], chosen);
    }
  }
  for (int32_t p = 0; p < offsets.back(); ++p) {
    if (chosen[p]) made.plan.positions.push_back(p);
  }
  return made;
}

}  // namespace epic
