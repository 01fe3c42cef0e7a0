// How many tokens a second EPIC reads (prefill) and writes (decode), without any chunk: what other engines do too.
//
// Prompts of pseudo-random ids, the same in every run and for every engine that is compared; nothing is cached between
// requests. Prefill: the seconds from the request to its first token. Decode: the seconds between that token and the
// last of --decode-tokens more, at a context as long as the prompt.
//
// Measures and prints one JSON line for each line on standard input (--serve), so that a driver can take turns with
// other engines: {"tokens": 512} in, {"tokens": 512, "prefill_seconds": ..., "decode_seconds_per_token": ...} out. Its
// first line, once the model is loaded, is about itself: model, processor, threads, calibration.
// Without --serve it measures --tokens by itself and prints a table. scripts/bench.sh prefill runs the comparison
// (compare_prefill.py), which starts this program.
#include <iostream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "benchmarks/bench_engine.h"
#include "benchmarks/calibration.h"
#include "benchmarks/operations.h"
#include "benchmarks/report.h"
#include "fmt/format.h"

namespace epic {
namespace {

constexpr int kWarmUpTokens = 64;
constexpr int kFirstId = 100;  // below stand control tokens in many vocabularies

struct Options {
  BenchOptions common;
  std::vector<int> tokens = {512, 2048, 4096, 7680};
  int decode_tokens = 32;
  bool serve = false;
};

struct Measurement {
  double prefill_seconds = 0;
  double decode_seconds_per_token = 0;
};

Measurement Measure(BenchEngine& bench, int tokens, int decode_tokens) {
  // The same ids for every engine: x -> 1103515245 x + 12345 modulo 2^31 from 1, its upper bits.
  uint64_t state = 1;
  std::vector<int32_t> ids;
  const auto range = static_cast<uint64_t>(bench.config().vocab_size - kFirstId);
  for (int i = 0; i < tokens; ++i) {
    state = (1103515245 * state + 12345) % (uint64_t{1} << 31);
    ids.push_back(static_cast<int32_t>(kFirstId + (state >> 8) % range));
  }
  const RunningRequestPtr request =
      bench.Run({{std::move(ids), false, nullptr}}, {LinkerKind::kFull}, 1 + decode_tokens);
  return {request->first_token_seconds(),
          SecondsBetween(request->token_times.front(), request->token_times.back()) / decode_tokens};
}

int Serve(BenchEngine& bench, const Options& options) {
  Report about{{"ready", true}, {"model", bench.config().name}, {"processor", ProcessorName()}};
  about["threads"] = ThreadCount(options.common);
  about["calibration_table"] = Calibrator(ThreadCount(options.common), options.common.quick).AddTo(about);
  Measure(bench, kWarmUpTokens, 2);
  std::cout << about.dump() << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    const Report request = Report::parse(line, nullptr, false);
    if (!request.is_object() || !request.contains("tokens") || !request["tokens"].is_number_integer()) {
      std::cerr << "error: expected a line {\"tokens\": COUNT}, got \"" << line.substr(0, 80) << "\"\n";
      return 1;
    }
    const int tokens = request["tokens"].get<int>();
    const Measurement m = Measure(bench, tokens, options.decode_tokens);
    std::cout << Report{{"tokens", tokens},
                        {"prefill_seconds", m.prefill_seconds},
                        {"decode_seconds_per_token", m.decode_seconds_per_token}}
                     .dump()
              << std::endl;
  }
  return 0;
}

// Operations of a prompt that runs in full, and the bytes of weights and keys that one decoded token reads.
double PrefillOperations(const ModelConfig& config, int tokens) {
  std::vector<int32_t> ids(static_cast<size_t>(tokens)), all(ids.size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int32_t>(i);
  const std::vector<PromptSegment> prompt{{std::move(ids), false, nullptr}};
  return LinkOperations(config, {LinkerKind::kFull}, prompt, all).total();
}

int RunTable(BenchEngine& bench, const Options& options) {
  Calibrator calibrator(ThreadCount(options.common), options.common.quick);
  Report report = StartReport("prefill", ThreadCount(options.common));
  report["model"] = bench.config().name;
  report["runs"] = options.common.runs;
  std::vector<std::vector<double>> prefill(options.tokens.size()), decode(options.tokens.size());
  Measure(bench, options.tokens.front(), 2);  // grows the buffers
  for (int run = 0; run < options.common.runs; ++run) {
    for (size_t i = 0; i < options.tokens.size(); ++i) {
      ShowProgress(fmt::format("run {} of {}, {} tokens", run + 1, options.common.runs, options.tokens[i]));
      const Measurement m = Measure(bench, options.tokens[i], options.decode_tokens);
      prefill[i].push_back(m.prefill_seconds);
      decode[i].push_back(m.decode_seconds_per_token);
    }
  }
  ShowProgress("");
  calibrator.Measure();
  const std::string calibration = calibrator.AddTo(report);
  std::string table =
      fmt::format("{}, {}, {} threads, medians of {} runs\n\n{}\n{:>8} {:>12} {:>12} {:>10} {:>12}\n",
                  bench.config().name, ProcessorName(), ThreadCount(options.common), options.common.runs, calibration,
                  "tokens", "prefill t/s", "GFLOP/s", "of peak", "decode t/s");
  for (size_t i = 0; i < options.tokens.size(); ++i) {
    const int tokens = options.tokens[i];
    const double seconds = Median(prefill[i]);
    const double gflops = PrefillOperations(bench.config(), tokens) / seconds / 1e9;
    table += fmt::format("{:>8} {:>12.0f} {:>12.0f} {:>9.0f}% {:>12.1f}\n", tokens, tokens / seconds, gflops,
                         gflops / calibrator.best().PeakGflops() * 100, 1 / Median(decode[i]));
    report["results"].push_back({{"engine", "epic"},
                                 {"tokens", tokens},
                                 {"prefill_tokens_per_second", tokens / seconds},
                                 {"prefill_gflops", gflops},
                                 {"decode_tokens_per_second", 1 / Median(decode[i])}});
  }
  return PrintReport(report, table, options.common.format, options.common.save);
}

int Main(Options options) {
  BenchEngine bench(options.common, 0);
  if (options.serve) return Serve(bench, options);
  std::erase_if(options.tokens,
                [&](int tokens) { return tokens + options.decode_tokens >= bench.config().context_length; });
  if (options.tokens.empty()) {
    std::cerr << "error: every prompt is longer than the model's context of " << bench.config().context_length
              << " tokens; give shorter --tokens\n";
    return 1;
  }
  return RunTable(bench, options);
}

}  // namespace
}  // namespace epic

int main(int argc, char** argv) {
  epic::Options options;
  CLI::App app("Tokens read and written per second without any chunk");
  options.common.runs = 3;
  epic::AddBenchOptions(app, options.common);
  app.add_option("--tokens", options.tokens, "prompt lengths, comma-separated")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--decode-tokens", options.decode_tokens, "tokens whose decoding is timed")
      ->check(CLI::Range(1, 4096));
  app.add_flag("--serve", options.serve, "measure what each line of standard input asks for");
  CLI11_PARSE(app, argc, argv);
  if (options.common.quick) {
    options.common.runs = 1;
    options.tokens = {32, 64};
    options.decode_tokens = 4;
  }
  return epic::Main(std::move(options));
}
