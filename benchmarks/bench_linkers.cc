// Time to the first token (TTFT) of every linker, everything local and warm: the engine alone, no rpc.
//
// Five parts, each measured in interleaved runs of which medians are reported:
//   lengths   one chat turn of 2, 4, 8 and 15 chunks of 512 tokens and a question, by every linker
//   prefix    what the prefix cache makes of such a prompt when it comes again, and when its chunks have moved
//   chunks    about the same prompt cut into chunks of 128, 256, 512 and 1,024 tokens
//   overhead  what linking itself costs: M fresh rows behind 15 shared chunks (naive) against the same M rows at the
//             same positions behind one private KV of the same length (prefix, all but the M rows cached)
//   compile   tokens compiled per second, one chunk after another and eight at once
//
// Beside each time stand the operations that the linker needs, counted from the rows that ran and the keys that each
// one sees (operations.h), and the ratio to `full` that they allow.
#include <sys/resource.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <string>
#include <utility>
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
  std::vector<int> chunk_counts = {2, 4, 8, 15};
  int chunk_tokens = 512;
  std::vector<int> chunk_lengths = {128, 256, 512, 1024};
  std::vector<std::string> linkers = {"full",       "cacheblend:15", "cacheblend:5", "legolink:32", "legolink:16",
                                      "legolink:2", "legolink:0",    "naive",        "naive-last"};
  std::vector<std::string> parts = {"lengths", "chunks", "prefix", "overhead", "compile"};
  int fresh_rows = 256;    // M of the part `overhead`
  int overhead_runs = 7;   // they are short
  int compile_chunks = 8;  // at once
};

constexpr int kQuestionTokensMax = 256;  // room that the question and the template's text are given

void UseQuickSizes(Options& options) {
  options.common.runs = 1;
  options.chunk_counts = {2, 4};
  options.chunk_tokens = 64;
  options.chunk_lengths = {32, 64};
  options.fresh_rows = 16;
  options.overhead_runs = 1;
  options.compile_chunks = 2;
}

// One linker over one prompt.
struct Measurement {
  std::string linker;
  int chunks = 0;
  int chunk_tokens = 0;
  std::vector<double> seconds;
  GenerationStats stats;
  Operations operations;
  double full_operations = 0;
  double median() const { return Median(seconds); }
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        calibrator_(ThreadCount(options.common), options.common.quick),
        report_(StartReport("linkers", ThreadCount(options.common))) {
    for (const std::string& name : options.linkers) linkers_.push_back(OrExit(Linker::Parse(name)));
  }

  int Run() {
    {
      BenchEngine bench(options_.common, 0);
      KeepWhatFits(bench.config());
      if (Wanted("lengths")) MeasureLengths(bench);
      if (Wanted("chunks")) MeasureChunkLengths(bench);
      if (Wanted("compile")) MeasureCompile(bench);
      report_["memory"] = Memory(bench);
    }
    if (Wanted("prefix") || Wanted("overhead")) {
      BenchEngine bench(options_.common, size_t{4} << 30);
      if (Wanted("prefix")) MeasurePrefix(bench);
      if (Wanted("overhead")) MeasureOverhead(bench);
    }
    ShowProgress("");
    calibrator_.Measure();
    const std::string calibration = calibrator_.AddTo(report_);
    AddBars();
    report_["runs"] = options_.common.runs;
    return PrintReport(report_, Table(calibration), options_.common.format, options_.common.save);
  }

 private:
  bool Wanted(const char* part) const {
    return std::find(options_.parts.begin(), options_.parts.end(), part) != options_.parts.end();
  }

  void KeepWhatFits(const ModelConfig& config) {
    report_["model"] = config.name;
    model_ = config.name;
    const auto too_long = [&](int chunks) {
      // Behind the chunks stands a question, or the fresh rows of `overhead`.
      const int behind = std::max(kQuestionTokensMax, options_.fresh_rows);
      return chunks * options_.chunk_tokens + behind >= config.context_length;
    };
    std::erase_if(options_.chunk_counts, too_long);
    if (options_.chunk_counts.empty()) {
      OrExit(absl::InvalidArgumentError(
          fmt::format("no prompt length fits the model's context of {} tokens; give fewer --chunks or a smaller "
                      "--chunk-tokens",
                      config.context_length)));
    }
    most_chunks_ = *std::max_element(options_.chunk_counts.begin(), options_.chunk_counts.end());
  }

  // Every linker over one prompt; runs of different linkers take turns.
  std::vector<Measurement> MeasurePrompt(BenchEngine& bench, int chunks, int chunk_tokens,
                                         const std::vector<Linker>& linkers) {
    const std::vector<std::vector<int32_t>> texts = bench.DocumentChunks(0, chunks, chunk_tokens);
    std::vector<Measurement> measurements;
    for (const Linker& linker : linkers) {
      measurements.push_back({linker.Name(), chunks, chunk_tokens, {}, {}, {}, 0});
      bench.ChatPrompt(texts, kBenchQuestion, linker);  // compiles the chunks
      if (!warm_) bench.Run(bench.ChatPrompt(texts, kBenchQuestion, linker), linker, 1);
    }
    warm_ = true;  // buffers have grown; a longer prompt needs pages of its own in any case
    for (int run = 0; run < options_.common.runs; ++run) {
      for (size_t i = 0; i < linkers.size(); ++i) {
        ShowProgress(fmt::format("{} chunks of {} tokens, run {} of {}, {}", chunks, chunk_tokens, run + 1,
                                 options_.common.runs, linkers[i].Name()));
        const std::vector<PromptSegment> prompt = bench.ChatPrompt(texts, kBenchQuestion, linkers[i]);
        const RunningRequestPtr request = bench.Run(prompt, linkers[i], 1);
        Measurement& measurement = measurements[i];
        measurement.seconds.push_back(request->first_token_seconds());
        measurement.stats = request->stats;
        measurement.operations = LinkOperations(bench.config(), linkers[i], prompt, request->stats.selected_positions);
        measurement.full_operations = FullOperations(bench.config(), prompt);
      }
    }
    return measurements;
  }

  static double FullOperations(const ModelConfig& config, const std::vector<PromptSegment>& prompt) {
    std::vector<int32_t> all;
    for (const PromptSegment& segment : prompt) {
      for (size_t i = 0; i < segment.token_ids.size(); ++i) all.push_back(static_cast<int32_t>(all.size()));
    }
    return LinkOperations(config, {LinkerKind::kFull}, prompt, all).total();
  }

  void MeasureLengths(BenchEngine& bench) {
    for (const int chunks : options_.chunk_counts) {
      for (Measurement& m : MeasurePrompt(bench, chunks, options_.chunk_tokens, linkers_)) {
        if (m.linker == "full") full_seconds_[chunks * options_.chunk_tokens] = m.median();
        lengths_.push_back(std::move(m));
      }
    }
  }

  void MeasureChunkLengths(BenchEngine& bench) {
    std::vector<Linker> linkers = linkers_;
    std::erase_if(linkers, [](const Linker& linker) { return !linker.UsesChunks(); });
    if (linkers.empty()) return;
    // The middle one of the prompt lengths, of which `full` has been measured.
    const int tokens = options_.chunk_counts[options_.chunk_counts.size() / 2] * options_.chunk_tokens;
    for (const int chunk_tokens : options_.chunk_lengths) {
      if (chunk_tokens > tokens) continue;
      for (Measurement& m : MeasurePrompt(bench, tokens / chunk_tokens, chunk_tokens, linkers)) {
        chunk_lengths_.push_back(std::move(m));
      }
    }
  }

  void MeasureCompile(BenchEngine& bench) {
    for (const int chunk_tokens : options_.chunk_lengths) {
      const std::vector<std::vector<int32_t>> chunks = bench.DocumentChunks(1, options_.compile_chunks, chunk_tokens);
      std::vector<double> one_by_one, at_once;
      for (int run = 0; run < options_.common.runs; ++run) {
        ShowProgress(fmt::format("compiling chunks of {} tokens, run {}", chunk_tokens, run + 1));
        auto begin = std::chrono::steady_clock::now();
        for (const std::vector<int32_t>& chunk : chunks) bench.CompileAll({chunk}, "plain");
        one_by_one.push_back(SecondsBetween(begin, std::chrono::steady_clock::now()));
        begin = std::chrono::steady_clock::now();
        bench.CompileAll(chunks, "plain");
        at_once.push_back(SecondsBetween(begin, std::chrono::steady_clock::now()));
      }
      const double tokens = static_cast<double>(options_.compile_chunks) * chunk_tokens;
      compile_table_ += fmt::format("{:>12} {:>22.0f} {:>22.0f}\n", chunk_tokens, tokens / Median(one_by_one),
                                    tokens / Median(at_once));
      report_["compile"].push_back({{"chunk_tokens", chunk_tokens},
                                    {"tokens_per_second_one_by_one", tokens / Median(one_by_one)},
                                    {"tokens_per_second_at_once", tokens / Median(at_once)},
                                    {"chunks_at_once", options_.compile_chunks}});
    }
  }

  // The most memory that this process has had resident, the touched pages of the mapped model file among it.
  static Report Memory(const BenchEngine& bench) {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return {{"weight_bytes", bench.engine().weight_bytes()},
            {"chunk_bytes", bench.chunk_bytes()},
            {"peak_resident_bytes", static_cast<size_t>(usage.ru_maxrss) * 1024}};
  }

  // The same prompt again, and the same with its chunks turned by one so that nothing at its start is as it was.
  void MeasurePrefix(BenchEngine& bench) {
    const Linker prefix{LinkerKind::kPrefix};
    for (const int chunks : options_.chunk_counts) {
      std::vector<std::vector<int32_t>> texts = bench.DocumentChunks(2, chunks, options_.chunk_tokens);
      const std::vector<PromptSegment> prompt = bench.ChatPrompt(texts, kBenchQuestion, prefix);
      ShowProgress(fmt::format("prefix, {} chunks", chunks));
      bench.Run(prompt, prefix, 1);
      Measurement unchanged{"prefix, unchanged", chunks, options_.chunk_tokens, {}, {}, {}, 0};
      for (int run = 0; run < options_.common.runs; ++run) {
        const RunningRequestPtr request = bench.Run(prompt, prefix, 1);
        unchanged.seconds.push_back(request->first_token_seconds());
        unchanged.stats = request->stats;
      }
      std::rotate(texts.begin(), texts.begin() + 1, texts.end());
      const RunningRequestPtr request = bench.Run(bench.ChatPrompt(texts, kBenchQuestion, prefix), prefix, 1);
      Measurement changed{
          "prefix, changed", chunks, options_.chunk_tokens, {request->first_token_seconds()}, request->stats, {}, 0};
      for (Measurement* m : {&unchanged, &changed}) {
        m->operations = LinkOperations(bench.config(), prefix, prompt, m->stats.selected_positions);
        m->full_operations = FullOperations(bench.config(), prompt);
        lengths_.push_back(std::move(*m));
      }
    }
    std::stable_sort(lengths_.begin(), lengths_.end(),
                     [](const Measurement& a, const Measurement& b) { return a.chunks < b.chunks; });
  }

  void MeasureOverhead(BenchEngine& bench) {
    const Linker naive{LinkerKind::kNaive}, prefix{LinkerKind::kPrefix};
    const std::vector<std::vector<int32_t>> texts = bench.DocumentChunks(0, most_chunks_, options_.chunk_tokens);
    // No template: the prompt is the chunks, which fill whole pages of the prefix cache, and the fresh rows. Where the
    // model wants BOS at the start, both prompts have it there.
    const std::vector<int32_t> start = OrExit(bench.engine().RecipeById("plain")).prefix_tokens;
    const auto prompt = [&](const Linker& linker, int fresh) {
      std::vector<PromptSegment> segments;
      if (!start.empty()) segments.push_back({start, false, nullptr});
      for (const std::vector<int32_t>& ids : texts) {
        segments.push_back({ids, true, linker.UsesChunks() ? bench.Chunk(ids, linker.BaseRecipeId()) : nullptr});
      }
      // Other tokens at every call, so that only what stands before them can be cached.
      segments.push_back({bench.DocumentTokens(1000 + fresh, options_.fresh_rows), false, nullptr});
      return segments;
    };
    ShowProgress("overhead of linking, the whole prompt once");
    bench.Run(prompt(prefix, 0), prefix, 1);
    bench.Run(prompt(naive, 1), naive, 1);
    bench.Run(prompt(prefix, 2), prefix, 1);
    std::vector<double> linked, contiguous;
    int32_t linked_rows = 0, contiguous_rows = 0;
    for (int run = 0; run < options_.overhead_runs; ++run) {
      ShowProgress(fmt::format("overhead of linking, run {} of {}", run + 1, options_.overhead_runs));
      const RunningRequestPtr a = bench.Run(prompt(naive, 3 + 2 * run), naive, 1);
      const RunningRequestPtr b = bench.Run(prompt(prefix, 4 + 2 * run), prefix, 1);
      linked.push_back(a->first_token_seconds());
      contiguous.push_back(b->first_token_seconds());
      linked_rows = a->stats.selected_tokens;
      contiguous_rows = b->stats.selected_tokens;
    }
    overhead_ = Median(linked) / Median(contiguous) - 1;
    report_["overhead"] = {{"cached_tokens", most_chunks_ * options_.chunk_tokens},
                           {"linked_rows", linked_rows},
                           {"contiguous_rows", contiguous_rows},
                           {"linked_ms", Median(linked) * 1e3},
                           {"contiguous_ms", Median(contiguous) * 1e3},
                           {"overhead", overhead_}};
    overhead_table_ = fmt::format(
        "linking itself, median of {} interleaved runs: {} rows behind {} shared chunks of {} tokens {:.1f} ms; {} "
        "rows "
        "behind {} private rows {:.1f} ms; overhead {:+.1f} %\n",
        options_.overhead_runs, linked_rows, most_chunks_, options_.chunk_tokens, Median(linked) * 1e3, contiguous_rows,
        most_chunks_ * options_.chunk_tokens, Median(contiguous) * 1e3, overhead_ * 100);
  }

  // Of the longest prompt; 0 where the linker was not measured.
  double Seconds(const std::string& linker) const {
    for (const Measurement& m : lengths_) {
      if (m.chunks == most_chunks_ && m.linker == linker) return m.median();
    }
    return 0;
  }

  void AddBars() {
    const double full = Seconds("full"), cacheblend = Seconds("cacheblend:15");
    const double legolink16 = Seconds("legolink:16"), legolink2 = Seconds("legolink:2");
    const std::string where = fmt::format("{} chunks of {} tokens: ", most_chunks_, options_.chunk_tokens);
    if (full > 0 && legolink16 > 0) AddBar(report_, where + "TTFT of full / legolink:16", full / legolink16, 15);
    if (cacheblend > 0 && legolink16 > 0) {
      AddBar(report_, where + "TTFT of cacheblend:15 / legolink:16", cacheblend / legolink16, 4);
    }
    if (cacheblend > 0 && legolink2 > 0) {
      AddBar(report_, where + "TTFT of cacheblend:15 / legolink:2", cacheblend / legolink2, 8);
    }
    if (Wanted("overhead")) AddUpperBar(report_, where + "linking over a prefill of the same rows", overhead_, 0.05);
  }

  std::string Rows(const std::vector<Measurement>& measurements, const std::string& part) {
    std::string table = fmt::format("{:>7} {:>7} {:<18} {:>9} {:>9} {:>9} {:>8} {:>9} {:>9} {:>9} {:>9} {:>8}\n",
                                    "chunks", "tokens", "linker", "TTFT ms", "min", "max", "rows run", "products",
                                    "attention", "faster", "allowed", "of peak");
    int chunks = 0;
    for (const Measurement& m : measurements) {
      if (std::exchange(chunks, m.chunks) != m.chunks && chunks != 0) table += "\n";
      const double median = m.median(), total = m.operations.total();
      const auto full = full_seconds_.find(m.chunks * m.chunk_tokens);
      const double faster = full == full_seconds_.end() ? 0 : full->second / median;
      const double allowed = m.full_operations / total;
      const double rate = total / median / 1e9;
      table += fmt::format(
          "{:>7} {:>7} {:<18} {:>9.1f} {:>9.1f} {:>9.1f} {:>8.0f} {:>9.1f} {:>9.1f} {:>9} {:>9.2f} {:>7.0f}%\n",
          m.chunks, m.chunk_tokens, m.linker, median * 1e3, *std::min_element(m.seconds.begin(), m.seconds.end()) * 1e3,
          *std::max_element(m.seconds.begin(), m.seconds.end()) * 1e3, m.stats.recomputed_tokens,
          m.operations.products / 1e9, m.operations.attention / 1e9, faster == 0 ? "-" : fmt::format("{:.2f}", faster),
          allowed, rate / calibrator_.best().PeakGflops() * 100);
      report_["results"].push_back({{"part", part},
                                    {"chunks", m.chunks},
                                    {"chunk_tokens", m.chunk_tokens},
                                    {"prompt_tokens", m.stats.prompt_tokens},
                                    {"linker", m.linker},
                                    {"ttft_ms_median", median * 1e3},
                                    {"ttft_ms_min", *std::min_element(m.seconds.begin(), m.seconds.end()) * 1e3},
                                    {"ttft_ms_max", *std::max_element(m.seconds.begin(), m.seconds.end()) * 1e3},
                                    {"rows_run", m.stats.recomputed_tokens},
                                    {"rows_selected", m.stats.selected_tokens},
                                    {"gflop_products", m.operations.products / 1e9},
                                    {"gflop_attention", m.operations.attention / 1e9},
                                    {"gflops", rate},
                                    {"speedup_over_full", faster},
                                    {"speedup_allowed", allowed}});
    }
    return table;
  }

  std::string Table(const std::string& calibration) {
    const double mebibyte = 1 << 20;
    const Report& memory = report_["memory"];
    const double weights = memory["weight_bytes"].get<double>(), chunks = memory["chunk_bytes"].get<double>();
    std::string table = fmt::format("{}, {}, {} threads, medians of {} interleaved runs\n\n{}\n", model_,
                                    ProcessorName(), ThreadCount(options_.common), options_.common.runs, calibration);
    table += "prompt lengths; products and attention in GFLOP\n" + Rows(lengths_, "lengths");
    table += "\nchunk lengths, about the same prompt\n" + Rows(chunk_lengths_, "chunks") + "\n" + overhead_table_;
    if (const double full = Seconds("full"); full > 0) {
      table += fmt::format(
          "prefill by full at {} chunks: {:.0f} tokens/s; the ratios to full stand only where `prefill` "
          "holds its bar against other engines\n",
          most_chunks_, most_chunks_ * options_.chunk_tokens / full);
    }
    table += fmt::format("\ntokens compiled per second\n{:>12} {:>22} {:>22}\n{}", "chunk tokens", "one after another",
                         fmt::format("{} at once", options_.compile_chunks), compile_table_);
    table += fmt::format(
        "\nmemory: {:.0f} MiB of weights + {:.0f} MiB of chunks = {:.0f} MiB by arithmetic; peak of the process {:.0f} "
        "MiB, the model file's pages that were read included\n\n",
        weights / mebibyte, chunks / mebibyte, (weights + chunks) / mebibyte,
        memory["peak_resident_bytes"].get<double>() / mebibyte);
    return table + BarsTable(report_);
  }

  Options options_;
  std::vector<Linker> linkers_;
  Calibrator calibrator_;
  Report report_;
  std::string model_;
  int most_chunks_ = 0;
  bool warm_ = false;
  std::vector<Measurement> lengths_;
  std::vector<Measurement> chunk_lengths_;
  std::map<int, double> full_seconds_;  // by tokens in chunks
  double overhead_ = 0;
  std::string overhead_table_;
  std::string compile_table_;
};

}  // namespace
}  // namespace epic

int main(int argc, char** argv) {
  epic::Options options;
  CLI::App app("Time to the first token of every linker, everything local and warm");
  options.common.runs = 3;
  epic::AddBenchOptions(app, options.common);
  app.add_option("--chunks", options.chunk_counts, "numbers of chunks, comma-separated")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024));
  app.add_option("--chunk-tokens", options.chunk_tokens)->check(CLI::Range(1, 8192));
  app.add_option("--chunk-lengths", options.chunk_lengths, "chunk lengths that are compared, comma-separated")
      ->delimiter(',')
      ->check(CLI::Range(1, 8192));
  app.add_option("--linkers", options.linkers, "comma-separated")->delimiter(',');
  app.add_option("--parts", options.parts, "lengths, chunks, prefix, overhead, compile; comma-separated")
      ->delimiter(',')
      ->check(CLI::IsMember({"lengths", "chunks", "prefix", "overhead", "compile"}));
  app.add_option("--fresh-rows", options.fresh_rows, "rows of the measurement of linking itself")
      ->check(CLI::Range(1, 4096));
  CLI11_PARSE(app, argc, argv);
  if (options.common.quick) epic::UseQuickSizes(options);
  return epic::Bench(options).Run();
}
