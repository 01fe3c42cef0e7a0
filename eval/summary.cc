#include "eval/summary.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>
#include <utility>

#include "core/status_macros.h"
#include "eval/task.h"
#include "eval/whole_file.h"
#include "fmt/format.h"

namespace epic::eval {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFull[] = "full";
constexpr char kNaive[] = "naive";
// Where full answers so many rightly, a difference says something about the linker.
constexpr double kScoreThatCarriesABar = 0.9;
constexpr double kScoreLossMax = 0.02;
constexpr double kGapClosedMin = 0.6;  // by legolink:16 over documents that are compiled as a whole

// One linker's outcomes, in the order of the examples.
using Column = std::vector<const Outcome*>;
using Columns = std::map<std::string, Column>;

double Median(std::vector<double> values) {
  const size_t middle = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(middle), values.end());
  if (values.size() % 2 == 1) return values[middle];
  return (values[middle] + *std::max_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(middle))) / 2;
}

std::vector<double> Values(const Column& column, const std::function<double(const Outcome&)>& value) {
  std::vector<double> values;
  for (const Outcome* outcome : column) values.push_back(value(*outcome));
  return values;
}

double MedianMs(const Column& column, int64_t TrialTiming::*part) {
  return Median(Values(column, [&](const Outcome& o) { return static_cast<double>(o.timing.*part) / 1000; }));
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double ScoreOf(const Outcome& outcome) { return outcome.score; }
double NamesGoldOf(const Outcome& outcome) { return outcome.names_gold ? 1 : 0; }
double KlOf(const Outcome& outcome) { return outcome.mean_kl; }

LinkerSummary SummarizeLinker(const std::string& linker, const Columns& columns, uint64_t seed) {
  const Column& column = columns.at(linker);
  LinkerSummary summary;
  summary.linker = linker;
  const std::vector<double> scores = Values(column, ScoreOf), kl = Values(column, KlOf);
  summary.score = BootstrapMean(scores, seed);
  const auto full = columns.find(kFull);
  summary.score_difference = full == columns.end()
                                 ? Interval{std::nan(""), std::nan(""), std::nan("")}
                                 : BootstrapPairedDifference(scores, Values(full->second, ScoreOf), seed);
  summary.names_gold = Mean(Values(column, NamesGoldOf));
  summary.first_token_agreement =
      Mean(Values(column, [](const Outcome& o) { return o.first_token_agrees ? 1.0 : 0.0; }));
  summary.kl = BootstrapMean(kl, seed);
  const auto naive = columns.find(kNaive);
  summary.kl_gap_closed = naive == columns.end() ? Interval{std::nan(""), std::nan(""), std::nan("")}
                                                 : BootstrapGapClosed(kl, Values(naive->second, KlOf), seed);
  summary.rouge_l_to_full = BootstrapMean(Values(column, [](const Outcome& o) { return o.rouge_l_to_full; }), seed);
  summary.ttft_ms = MedianMs(column, &TrialTiming::ttft_us);
  summary.lookup_ms = MedianMs(column, &TrialTiming::lookup_us);
  summary.load_ms = MedianMs(column, &TrialTiming::load_us);
  summary.compile_ms = MedianMs(column, &TrialTiming::compile_us);
  summary.link_ms = MedianMs(column, &TrialTiming::link_us);
  summary.first_token_ms = MedianMs(column, &TrialTiming::first_token_us);
  summary.selected_share = Mean(Values(
      column, [](const Outcome& o) { return static_cast<double>(o.usage.selected_tokens) / o.usage.prompt_tokens; }));
  summary.recomputed_share = Mean(Values(
      column, [](const Outcome& o) { return static_cast<double>(o.usage.recomputed_tokens) / o.usage.prompt_tokens; }));
  return summary;
}

// Chunks in sight of each other against chunks compiled alone, for every linker that ran over both. Where no document
// has several chunks the two are the same, and there is nothing to say.
void AddDocumentBars(const Columns& columns, uint64_t seed, std::vector<BarResult>& bars) {
  for (const auto& [linker, column] : columns) {
    const size_t recipe = linker.find("@document");
    const std::string alone = linker.substr(0, recipe);
    if (recipe == std::string::npos || linker.find(":=") != std::string::npos || !columns.contains(alone)) continue;
    const std::vector<double> kl = Values(column, KlOf);
    const Interval difference = BootstrapPairedDifference(kl, Values(columns.at(alone), KlOf), seed);
    if (difference.mean == 0) continue;
    bars.push_back(
        {fmt::format("{} has less KL than {}, with an interval that excludes 0: difference {:+.4f} [{:+.4f}, "
                     "{:+.4f}]",
                     linker, alone, difference.mean, difference.low, difference.high),
         difference.high < 0});
    const auto naive = columns.find(kNaive);
    if (alone != "legolink:16" || naive == columns.end()) continue;
    const Interval closed = BootstrapGapClosed(kl, Values(naive->second, KlOf), seed);
    bars.push_back({fmt::format("{} closes at least {} of naive's KL: {:.2f} [{:.2f}, {:.2f}]", linker, kGapClosedMin,
                                closed.mean, closed.low, closed.high),
                    closed.mean >= kGapClosedMin});
  }
}

std::vector<BarResult> Bars(const Columns& columns, uint64_t seed) {
  std::vector<BarResult> bars;
  for (const auto& [linker, column] : columns) {
    const size_t equal = linker.find(":=");
    if (equal == std::string::npos) continue;
    const std::string base = linker.substr(equal + 2);
    if (!columns.contains(base)) continue;
    const Interval difference = BootstrapPairedDifference(Values(columns.at(base), KlOf), Values(column, KlOf), seed);
    bars.push_back({fmt::format("{} has no more KL than {} at equal rows: difference {:+.4f} [{:+.4f}, {:+.4f}]", base,
                                linker.substr(0, equal), difference.mean, difference.low, difference.high),
                    difference.mean <= 0});
  }
  AddDocumentBars(columns, seed, bars);
  const auto full = columns.find(kFull), legolink = columns.find("legolink:16");
  if (full != columns.end() && legolink != columns.end()) {
    const double reference = Mean(Values(full->second, NamesGoldOf));
    const double score = Mean(Values(legolink->second, NamesGoldOf));
    if (reference >= kScoreThatCarriesABar) {
      bars.push_back({fmt::format("legolink:16 names the gold answer within 2 points as often as full, where that is "
                                  "nine times in ten: {:.1f} of {:.1f} %",
                                  100 * score, 100 * reference),
                      score >= reference - kScoreLossMax});
    }
  }
  return bars;
}

std::string Cell(const Interval& interval, int digits, double factor = 1) {
  if (std::isnan(interval.mean)) return "";
  return fmt::format("{:.{}f} [{:.{}f}, {:.{}f}]", factor * interval.mean, digits, factor * interval.low, digits,
                     factor * interval.high, digits);
}

// Columns padded, so that the table can be read as text too.
std::string MarkdownTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows.front().size(), 3);
  for (const std::vector<std::string>& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string table;
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t i = 0; i < rows[r].size(); ++i) {
      table +=
          i == 0 ? fmt::format("| {:<{}} |", rows[r][i], widths[i]) : fmt::format(" {:>{}} |", rows[r][i], widths[i]);
    }
    table += "\n";
    if (r > 0) continue;
    for (size_t i = 0; i < widths.size(); ++i) {
      table += i == 0 ? fmt::format("|{:-<{}}|", "", widths[i] + 2) : fmt::format("{:-<{}}:|", "", widths[i] + 1);
    }
    table += "\n";
  }
  return table;
}

Json ToJson(const Interval& interval) {
  if (std::isnan(interval.mean)) return nullptr;
  return {{"mean", interval.mean}, {"low", interval.low}, {"high", interval.high}};
}

ParetoPlot NewPlot(const RunSummary& summary, const std::string& y_label,
                   const std::function<Interval(const LinkerSummary&)>& value) {
  ParetoPlot plot;
  plot.title = fmt::format("{}, {}, {} examples", summary.identity.task, summary.identity.model, summary.examples);
  plot.x_label = fmt::format("median time to first token, ms ({})", summary.identity.processor);
  plot.y_label = y_label;
  for (const LinkerSummary& linker : summary.linkers) {
    const Interval interval = value(linker);
    if (std::isnan(interval.mean) || linker.ttft_ms <= 0) continue;
    const size_t recipe = linker.linker.find('@');
    std::string family = linker.linker.substr(0, std::min(linker.linker.find(':'), recipe));
    if (recipe != std::string::npos) family += linker.linker.substr(recipe);
    auto series = std::find_if(plot.series.begin(), plot.series.end(),
                               [&](const PlotSeries& known) { return known.name == family; });
    if (series == plot.series.end()) series = plot.series.insert(plot.series.end(), PlotSeries{family, {}});
    series->points.push_back({linker.ttft_ms, interval.mean, interval.low, interval.high, linker.linker});
  }
  return plot;
}

}  // namespace

absl::StatusOr<RunSummary> Summarize(const RunFolder& folder, std::vector<std::string> linkers) {
  if (linkers.empty()) {
    std::set<std::string> seen;
    for (const Outcome& outcome : folder.outcomes()) {
      if (seen.insert(outcome.linker).second) linkers.push_back(outcome.linker);
    }
  }
  RunSummary summary;
  summary.identity = folder.identity();
  summary.skipped = folder.skipped();
  Columns columns;
  std::set<std::string> examples;
  for (const Outcome& outcome : folder.outcomes()) {
    if (!examples.insert(outcome.example).second) continue;
    Column row;
    for (const std::string& linker : linkers) row.push_back(folder.Find(outcome.example, linker));
    if (std::find(row.begin(), row.end(), nullptr) != row.end()) {
      ++summary.incomplete;
      continue;
    }
    ++summary.examples;
    summary.prompt_tokens += outcome.usage.prompt_tokens;
    if (outcome.answer_in_documents) ++summary.answerable;
    for (size_t i = 0; i < linkers.size(); ++i) columns[linkers[i]].push_back(row[i]);
  }
  if (summary.examples == 0) {
    return absl::FailedPreconditionError(
        fmt::format("{}: no example has been done by every linker ({} begun, {} skipped)", folder.path(),
                    summary.incomplete, summary.skipped.size()));
  }
  summary.prompt_tokens /= static_cast<double>(summary.examples);
  for (const std::string& linker : linkers) {
    summary.linkers.push_back(SummarizeLinker(linker, columns, summary.identity.seed));
  }
  summary.bars = Bars(columns, summary.identity.seed);
  return summary;
}

std::string SummaryMarkdown(const RunSummary& summary) {
  const RunIdentity& run = summary.identity;
  std::string text = fmt::format(
      "### {}, {}\n\n{} examples (seed {}), {:.0f} prompt tokens on average, at most {} output tokens, greedy; {}. "
      "EPIC "
      "{}, model {}, data {}. In brackets: 95 % bootstrap intervals over examples; differences are paired.\n\n",
      run.task, run.model, summary.examples, run.seed, summary.prompt_tokens, run.output_tokens_max, run.processor,
      run.engine_version, run.fingerprint.substr(0, 12), run.data_digest.substr(0, 12));
  std::vector<std::vector<std::string>> quality{{"linker", run.metric + " x 100", "to full", "names gold",
                                                 "first token agrees", "KL, nats", "KL gap closed", "ROUGE-L to full",
                                                 "M/N", "TTFT ms"}};
  std::vector<std::vector<std::string>> times{
      {"linker", "TTFT ms", "look-up", "load", "compile", "link", "first token", "rows run / N"}};
  for (const LinkerSummary& l : summary.linkers) {
    quality.push_back({l.linker, Cell(l.score, 1, 100), l.linker == kFull ? "" : Cell(l.score_difference, 1, 100),
                       fmt::format("{:.0f} %", 100 * l.names_gold),
                       fmt::format("{:.0f} %", 100 * l.first_token_agreement), Cell(l.kl, 4), Cell(l.kl_gap_closed, 2),
                       Cell(l.rouge_l_to_full, 2), fmt::format("{:.1f} %", 100 * l.selected_share),
                       fmt::format("{:.1f}", l.ttft_ms)});
    times.push_back({l.linker, fmt::format("{:.1f}", l.ttft_ms), fmt::format("{:.1f}", l.lookup_ms),
                     fmt::format("{:.1f}", l.load_ms), fmt::format("{:.1f}", l.compile_ms),
                     fmt::format("{:.1f}", l.link_ms), fmt::format("{:.1f}", l.first_token_ms),
                     fmt::format("{:.1f} %", 100 * l.recomputed_share)});
  }
  text += MarkdownTable(quality) + "\nMedian times in ms, each part by itself:\n\n" + MarkdownTable(times);
  if (!summary.bars.empty()) text += "\n";
  for (const BarResult& bar : summary.bars) {
    text += bar.holds ? fmt::format("- holds: {}\n", bar.text) : fmt::format("- **does not hold: {}**\n", bar.text);
  }
  if (run.metric == MetricName(Metric::kF1)) {
    text += fmt::format("\nIn {} of the {} examples a gold answer stands in a document.\n", summary.answerable,
                        summary.examples);
  }
  if (summary.incomplete > 0) {
    text += fmt::format("\n{} examples were not done by every linker and are left out.\n", summary.incomplete);
  }
  if (!summary.skipped.empty()) {
    text += fmt::format("\n{} examples were skipped: {}.\n", summary.skipped.size(), DescribeSkips(summary.skipped));
  }
  return text + fmt::format("\nThe prompt:\n\n```text\n{}\n```\n", run.prompt_template);
}

nlohmann::ordered_json SummaryJson(const RunSummary& summary) {
  const RunIdentity& run = summary.identity;
  Json json{{"task", run.task},
            {"model", run.model},
            {"fingerprint", run.fingerprint},
            {"engine_version", run.engine_version},
            {"processor", run.processor},
            {"via", run.via},
            {"data_digest", run.data_digest},
            {"prompt_template", run.prompt_template},
            {"metric", run.metric},
            {"output_tokens_max", run.output_tokens_max},
            {"seed", run.seed},
            {"examples", summary.examples},
            {"incomplete_examples", summary.incomplete},
            {"skipped", Json::array()},
            {"prompt_tokens", summary.prompt_tokens},
            {"examples_with_answer_in_documents", summary.answerable},
            {"linkers", Json::array()},
            {"bars", Json::array()}};
  for (const Skip& skip : summary.skipped) json["skipped"].push_back(eval::ToJson(skip));
  for (const LinkerSummary& l : summary.linkers) {
    json["linkers"].push_back({{"linker", l.linker},
                               {"score", ToJson(l.score)},
                               {"score_difference_to_full", ToJson(l.score_difference)},
                               {"names_gold", l.names_gold},
                               {"first_token_agreement", l.first_token_agreement},
                               {"kl_nats", ToJson(l.kl)},
                               {"kl_gap_closed", ToJson(l.kl_gap_closed)},
                               {"rouge_l_to_full", ToJson(l.rouge_l_to_full)},
                               {"ttft_ms", l.ttft_ms},
                               {"lookup_ms", l.lookup_ms},
                               {"load_ms", l.load_ms},
                               {"compile_ms", l.compile_ms},
                               {"link_ms", l.link_ms},
                               {"first_token_ms", l.first_token_ms},
                               {"selected_share", l.selected_share},
                               {"recomputed_share", l.recomputed_share}});
  }
  for (const BarResult& bar : summary.bars) json["bars"].push_back({{"bar", bar.text}, {"holds", bar.holds}});
  return json;
}

ParetoPlot ScorePlot(const RunSummary& summary) {
  return NewPlot(summary, summary.identity.metric, [](const LinkerSummary& linker) { return linker.score; });
}

ParetoPlot GapPlot(const RunSummary& summary) {
  return NewPlot(summary, "share of naive's KL to full recompute that is closed",
                 [](const LinkerSummary& linker) { return linker.kl_gap_closed; });
}

absl::Status WriteSummary(const RunSummary& summary, const std::string& folder) {
  EPIC_RETURN_IF_ERROR(WriteFileWhole(folder + "/summary.md", SummaryMarkdown(summary)));
  EPIC_RETURN_IF_ERROR(WriteFileWhole(folder + "/summary.json", SummaryJson(summary).dump(2) + "\n"));
  const ParetoPlot score = ScorePlot(summary);
  EPIC_RETURN_IF_ERROR(WriteSvg(score, folder + "/score.svg"));
  EPIC_RETURN_IF_ERROR(WritePng(score, folder + "/score.png"));
  const ParetoPlot gap = GapPlot(summary);
  if (gap.series.empty()) return absl::OkStatus();
  EPIC_RETURN_IF_ERROR(WriteSvg(gap, folder + "/kl-gap.svg"));
  return WritePng(gap, folder + "/kl-gap.png");
}

}  // namespace epic::eval
