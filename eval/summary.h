// A run in figures: what each linker costs and what it does to answers, over the examples that all linkers have done.
// Pure.
#ifndef EPIC_EVAL_SUMMARY_H_
#define EPIC_EVAL_SUMMARY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "eval/bootstrap.h"
#include "eval/plot.h"
#include "eval/run_folder.h"
#include "nlohmann/json.hpp"

namespace epic::eval {

// Intervals are 95 % percentile bootstraps over examples (eval/bootstrap.h). Times are medians in milliseconds.
struct LinkerSummary {
  std::string linker;
  Interval score;
  Interval score_difference;  // paired, to full
  double names_gold = 0;      // share of the answers that name a gold answer
  double first_token_agreement = 0;
  Interval kl;             // nats
  Interval kl_gap_closed;  // 1 - KL / KL of naive; not a number where naive did not run
  Interval rouge_l_to_full;
  double ttft_ms = 0;
  double lookup_ms = 0;
  double load_ms = 0;
  double compile_ms = 0;
  double link_ms = 0;
  double first_token_ms = 0;
  double selected_share = 0;    // M / N, mean
  double recomputed_share = 0;  // rows run, summed over layers / (layers x N), mean
};

// Something that is expected of the linkers, and what was found.
struct BarResult {
  std::string text;
  bool holds = false;
};

struct RunSummary {
  RunIdentity identity;
  size_t examples = 0;    // that every linker has done
  size_t incomplete = 0;  // begun, but not done by every linker
  size_t answerable = 0;  // examples that have a gold answer in a document
  std::vector<Skip> skipped;
  double prompt_tokens = 0;  // mean
  std::vector<LinkerSummary> linkers;
  std::vector<BarResult> bars;
};

// `linkers`: which, in which order; empty: all that the folder has, in the order of their first outcomes.
// FAILED_PRECONDITION where no example has been done by all of them.
absl::StatusOr<RunSummary> Summarize(const RunFolder& folder, std::vector<std::string> linkers);

std::string SummaryMarkdown(const RunSummary& summary);
nlohmann::ordered_json SummaryJson(const RunSummary& summary);
// Score against time to first token.
ParetoPlot ScorePlot(const RunSummary& summary);
// KL gap closed against time to first token; only linkers that have one.
ParetoPlot GapPlot(const RunSummary& summary);

// Writes summary.md, summary.json, score.svg, score.png and, where naive ran, kl-gap.svg and kl-gap.png.
absl::Status WriteSummary(const RunSummary& summary, const std::string& folder);

}  // namespace epic::eval

#endif  // EPIC_EVAL_SUMMARY_H_
