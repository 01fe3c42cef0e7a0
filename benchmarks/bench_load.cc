// The engine under load: how many requests a second each linker serves, and how long the first token takes then.
//
// Open loop: requests arrive at times drawn beforehand (Poisson, from a fixed seed) and never wait for one another, as
// users do. For each linker and each share of the prompt that is in cached chunks (CCR), the offered load goes up step
// by step, as multiples of what one request at a time would allow, until the engine no longer keeps up: its knee.
// A step is over the knee where fewer than 0.9 of the offered requests a second are completed, or the 99th percentile
// of the TTFT passes the limit, which is a multiple of the TTFT of cacheblend:15 on an idle engine and the same for
// every linker. Throughput at equal p99 TTFT is where the line through the steps crosses that limit.
//
// A prompt is ten parts of 256 tokens and a question. CCR 90 means that nine of the parts are chunks, drawn for each
// request from a pool and in an order of their own, and one is fresh text; `full` uses no chunk, so it has one row, CCR
// 0, which is every linker's. Nothing but chunks is cached between requests (no prefix cache), so that repeats do not
// flatter. A step has at least --requests-min requests and otherwise lasts --step-seconds; with fewer than a hundred
// requests the 99th percentile is the slowest one.
#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"
#include "benchmarks/bench_engine.h"
#include "benchmarks/calibration.h"
#include "benchmarks/operations.h"
#include "benchmarks/report.h"
#include "fmt/format.h"

namespace epic {
namespace {

struct Options {
  BenchOptions common;
  std::vector<std::string> linkers = {"cacheblend:15", "legolink:2", "legolink:16"};
  std::vector<int> cached_percents = {100, 90, 50};
  int parts = 10;
  int part_tokens = 256;
  int output_tokens = 4;
  double step_seconds = 10;
  int requests_min = 8;
  double limit_factor = 4;  // of the TTFT of cacheblend:15 on an idle engine
};

constexpr int kPoolParts = 3;         // times the parts of a prompt: chunks to draw from
constexpr int kRequestsMax = 400;     // of one step: the engine's queue has a limit
constexpr double kKeptUpShare = 0.9;  // of the offered load
constexpr double kLoads[] = {0.5, 0.7, 0.85, 1.0, 1.15, 1.3, 1.5, 1.75, 2.0};  // of 1 / service time
constexpr double kFewLoads[] = {0.5, 0.85, 1.0, 1.3};                          // where no bar asks for the knee
constexpr char kReference[] = "cacheblend:15";

// One offered load.
struct Step {
  double offered_per_second = 0;
  double achieved_per_second = 0;
  double p50_seconds = 0;
  double p99_seconds = 0;
  int requests = 0;
};

// One linker at one CCR.
struct Series {
  Linker linker;
  int cached_percent = 0;
  double idle_ttft_seconds = 0;
  double idle_request_seconds = 0;
  double gflop = 0;  // of the prompt, without the answer
  std::vector<Step> steps;
  double throughput_at_limit = 0;  // requests a second at the limit of p99; 0: passed at every step
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        calibrator_(ThreadCount(options.common), options.common.quick),
        report_(StartReport("load", ThreadCount(options.common))),
        bench_(options.common, 0) {}

  int Run() {
    MakeSeries();
    for (Series& series : series_) MeasureIdle(series);
    const auto reference = std::find_if(series_.begin(), series_.end(), [](const Series& s) {
      return s.linker.Name() == kReference && s.cached_percent == 100;
    });
    const Series& limiting = reference == series_.end() ? series_.front() : *reference;
    limit_seconds_ = options_.limit_factor * limiting.idle_ttft_seconds;
    SayTimeNeeded();
    for (Series& series : series_) MeasureSeries(series);
    ShowProgress("");
    calibrator_.Measure();
    report_["model"] = bench_.config().name;
    report_["prompt_tokens_in_parts"] = options_.parts * options_.part_tokens;
    report_["output_tokens"] = options_.output_tokens;
    report_["p99_limit_ms"] = limit_seconds_ * 1e3;
    const std::string calibration = calibrator_.AddTo(report_);
    const std::string table = Table(calibration);
    return PrintReport(report_, table, options_.common.format, options_.common.save);
  }

 private:
  void MakeSeries() {
    for (const int percent : options_.cached_percents) {
      for (const std::string& name : options_.linkers) {
        series_.push_back({OrExit(Linker::Parse(name)), percent, 0, 0, 0, {}, 0});
      }
    }
    series_.push_back({{LinkerKind::kFull}, 0, 0, 0, 0, {}, 0});
    pool_ = bench_.DocumentChunks(0, options_.parts * kPoolParts, options_.part_tokens);
  }

  // A prompt as the `index`th request of a series has it: chunks first, then fresh parts, then the question.
  std::vector<PromptSegment> Prompt(const Series& series, int index) {
    std::mt19937 random(static_cast<uint32_t>(index) + 1);
    std::vector<size_t> order(pool_.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random);
    const int chunks = (options_.parts * series.cached_percent + 50) / 100;
    std::vector<PromptSegment> prompt;
    const std::vector<int32_t> start = OrExit(bench_.engine().RecipeById("plain")).prefix_tokens;
    if (!start.empty()) prompt.push_back({start, false, nullptr});
    PromptSegment fresh;
    for (int part = 0; part < options_.parts; ++part) {
      const std::vector<int32_t>& ids = pool_[order[static_cast<size_t>(part)]];
      if (part < chunks) {
        prompt.push_back({ids, true, bench_.Chunk(ids, series.linker.BaseRecipeId())});
      } else {
        fresh.token_ids.insert(fresh.token_ids.end(), ids.begin(), ids.end());
      }
    }
    const std::vector<int32_t> question = bench_.DocumentTokens(1000 + index, kQuestionTokens);
    fresh.token_ids.insert(fresh.token_ids.end(), question.begin(), question.end());
    prompt.push_back(std::move(fresh));
    return prompt;
  }

  void MeasureIdle(Series& series) {
    ShowProgress(fmt::format("{}, CCR {} %: one request at a time", series.linker.Name(), series.cached_percent));
    std::vector<double> ttft, whole;
    for (int run = 0; run <= options_.common.runs; ++run) {
      const std::vector<PromptSegment> prompt = Prompt(series, run);
      const RunningRequestPtr request = bench_.Run(prompt, series.linker, options_.output_tokens);
      if (run == 0) continue;  // compiled chunks, grew buffers
      ttft.push_back(request->first_token_seconds());
      whole.push_back(SecondsBetween(request->submitted, request->ended));
      series.gflop =
          LinkOperations(bench_.config(), series.linker, prompt, request->stats.selected_positions).total() / 1e9;
    }
    series.idle_ttft_seconds = Median(ttft);
    series.idle_request_seconds = Median(whole);
  }

  std::vector<double> LoadsOf(const Series& series) const {
    if (options_.common.quick) return {0.5, 1.0};
    if (series.cached_percent == 100) return {std::begin(kLoads), std::end(kLoads)};
    return {std::begin(kFewLoads), std::end(kFewLoads)};
  }

  int RequestsOf(const Series&, double offered_per_second) const {
    return std::clamp(static_cast<int>(std::lround(offered_per_second * options_.step_seconds)), options_.requests_min,
                      kRequestsMax);
  }

  // Seconds that a series takes at most, were every step run: a guess for the one who waits.
  double SecondsNeeded(const Series& series) const {
    double seconds = 0;
    for (const double load : LoadsOf(series)) {
      const double offered = load / series.idle_request_seconds;
      const int requests = RequestsOf(series, offered);
      seconds += std::max(requests / offered, requests * series.idle_request_seconds);
    }
    return seconds;
  }

  void SayTimeNeeded() {
    seconds_left_ = 0;
    for (const Series& series : series_) seconds_left_ += SecondsNeeded(series);
  }

  void MeasureSeries(Series& series) {
    const double needed = SecondsNeeded(series);
    for (const double load : LoadsOf(series)) {
      ShowProgress(fmt::format("{}, CCR {} %, load {:.2f}; at most {:.1f} minutes left", series.linker.Name(),
                               series.cached_percent, load, seconds_left_ / 60));
      series.steps.push_back(RunStep(series, load / series.idle_request_seconds));
      const Step& step = series.steps.back();
      if (step.achieved_per_second < kKeptUpShare * step.offered_per_second || step.p99_seconds > limit_seconds_) break;
    }
    series.throughput_at_limit = ThroughputAtLimit(series);
    seconds_left_ -= needed;
  }

  Step RunStep(const Series& series, double offered_per_second) {
    const int count = RequestsOf(series, offered_per_second);
    std::vector<std::vector<PromptSegment>> prompts;
    std::vector<double> arrivals;  // seconds from the start
    std::mt19937 random(7);
    std::exponential_distribution<double> gap(offered_per_second);
    double at = 0;
    for (int i = 0; i < count; ++i) {
      prompts.push_back(Prompt(series, 100 + i));
      arrivals.push_back(at);
      at += gap(random);
    }
    // A few numbers drawn at random have a mean of their own: stretched so that the load offered is the one named.
    const double stretch = at > 0 ? count / offered_per_second / at : 1;
    std::vector<RunningRequestPtr> requests;
    const SteadyTime begin = std::chrono::steady_clock::now();
    for (int i = 0; i < count; ++i) {
      std::this_thread::sleep_until(begin + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                                std::chrono::duration<double>(arrivals[i] * stretch)));
      requests.push_back(bench_.Start(std::move(prompts[i]), series.linker, options_.output_tokens));
    }
    std::vector<double> ttft;
    SteadyTime last = begin;
    for (const RunningRequestPtr& request : requests) {
      request->Wait();
      ttft.push_back(request->first_token_seconds());
      last = std::max(last, request->ended);
    }
    // The last request takes its time whatever the load: a load that is kept up with ends that long after the last
    // arrival's own share of the time.
    const double seconds = SecondsBetween(begin, last) - series.idle_request_seconds;
    const double achieved = std::min(offered_per_second, count / std::max(seconds, count / offered_per_second * 1e-3));
    return {offered_per_second, achieved, Median(ttft), Percentile(ttft, 0.99), count};
  }

  double ThroughputAtLimit(const Series& series) const {
    double below = 0, below_p99 = series.idle_ttft_seconds;
    for (const Step& step : series.steps) {
      if (step.p99_seconds > limit_seconds_) {
        const double share = (limit_seconds_ - below_p99) / std::max(1e-9, step.p99_seconds - below_p99);
        return below + std::clamp(share, 0.0, 1.0) * (step.achieved_per_second - below);
      }
      below = std::max(below, step.achieved_per_second);
      below_p99 = step.p99_seconds;
    }
    return below;
  }

  const Series* Find(const std::string& linker) const {
    for (const Series& series : series_) {
      if (series.linker.Name() == linker && series.cached_percent == 100) return &series;
    }
    return nullptr;
  }

  void AddBars() {
    const Series* cacheblend = Find(kReference);
    if (cacheblend == nullptr || cacheblend->throughput_at_limit == 0) return;
    if (const Series* two = Find("legolink:2")) {
      AddBar(report_, "throughput at equal p99 TTFT: legolink:2 / cacheblend:15",
             two->throughput_at_limit / cacheblend->throughput_at_limit, 7);
    }
    if (const Series* sixteen = Find("legolink:16")) {
      AddBar(report_, "throughput at equal p99 TTFT: legolink:16 / cacheblend:15 over their operations",
             sixteen->throughput_at_limit / cacheblend->throughput_at_limit / (cacheblend->gflop / sixteen->gflop),
             0.8);
    }
  }

  std::string Table(const std::string& calibration) {
    std::string table = fmt::format(
        "{}, {}, {} threads; prompts of {} parts of {} tokens and {} tokens of question, {} tokens of answer; limit of "
        "p99 TTFT {:.0f} ms\n\n{}",
        bench_.config().name, ProcessorName(), ThreadCount(options_.common), options_.parts, options_.part_tokens,
        kQuestionTokens, options_.output_tokens, limit_seconds_ * 1e3, calibration);
    for (const Series& series : series_) {
      table += fmt::format(
          "\n{}, CCR {} %: idle TTFT {:.0f} ms, request {:.0f} ms, {:.1f} GFLOP; {:.2f} requests/s at the limit of "
          "p99\n{:>12} {:>12} {:>10} {:>10} {:>10}\n",
          series.linker.Name(), series.cached_percent, series.idle_ttft_seconds * 1e3,
          series.idle_request_seconds * 1e3, series.gflop, series.throughput_at_limit, "offered/s", "achieved/s",
          "p50 ms", "p99 ms", "requests");
      Report steps = Report::array();
      for (const Step& step : series.steps) {
        table += fmt::format("{:>12.3f} {:>12.3f} {:>10.0f} {:>10.0f} {:>10}\n", step.offered_per_second,
                             step.achieved_per_second, step.p50_seconds * 1e3, step.p99_seconds * 1e3, step.requests);
        steps.push_back({{"offered_per_second", step.offered_per_second},
                         {"achieved_per_second", step.achieved_per_second},
                         {"p50_ttft_ms", step.p50_seconds * 1e3},
                         {"p99_ttft_ms", step.p99_seconds * 1e3},
                         {"requests", step.requests}});
      }
      report_["results"].push_back({{"linker", series.linker.Name()},
                                    {"cached_percent", series.cached_percent},
                                    {"idle_ttft_ms", series.idle_ttft_seconds * 1e3},
                                    {"gflop", series.gflop},
                                    {"throughput_at_limit", series.throughput_at_limit},
                                    {"steps", std::move(steps)}});
    }
    AddBars();
    return table + "\n" + BarsTable(report_);
  }

  static constexpr int kQuestionTokens = 16;

  Options options_;
  Calibrator calibrator_;
  Report report_;
  BenchEngine bench_;
  std::vector<std::vector<int32_t>> pool_;
  std::vector<Series> series_;
  double limit_seconds_ = 0;
  double seconds_left_ = 0;
};

}  // namespace
}  // namespace epic

int main(int argc, char** argv) {
  epic::Options options;
  CLI::App app("Offered and achieved load and the time to the first token, up to each linker's knee");
  options.common.runs = 3;
  epic::AddBenchOptions(app, options.common);
  app.add_option("--linkers", options.linkers, "comma-separated; full is always measured")->delimiter(',');
  app.add_option("--cached-percents", options.cached_percents, "shares of the prompt in cached chunks (CCR)")
      ->delimiter(',')
      ->check(CLI::Range(1, 100));
  app.add_option("--parts", options.parts, "parts of a prompt, chunks or fresh")->check(CLI::Range(1, 1024));
  app.add_option("--part-tokens", options.part_tokens)->check(CLI::Range(1, 8192));
  app.add_option("--output-tokens", options.output_tokens)->check(CLI::Range(1, 4096));
  app.add_option("--step-seconds", options.step_seconds, "how long requests arrive at one load")
      ->check(CLI::Range(0.01, 3600.0));
  app.add_option("--requests-min", options.requests_min, "of one load")->check(CLI::Range(2, 400));
  app.add_option("--limit-factor", options.limit_factor, "the limit of p99, in idle TTFTs of cacheblend:15")
      ->check(CLI::Range(1.0, 1000.0));
  CLI11_PARSE(app, argc, argv);
  if (options.common.quick) {
    options.common.runs = 1;
    options.parts = 4;
    options.part_tokens = 32;
    options.cached_percents = {100};
    options.step_seconds = 0.1;
  }
  return epic::Bench(options).Run();
}
