// TTFT of every linker over the same prompt, everything local and warm: the engine alone, no rpc.
//
// The prompt is a chat turn: the template's head, `chunks` chunks of `chunk-tokens` tokens made from the files given
// (or the examples), and a question. Runs are interleaved, medians are reported, and the arithmetic that each linker
// needs stands beside its time.
#include <sys/resource.h>

#include <algorithm>
#include <future>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "benchmarks/report.h"
#include "engine/chunk_compilation.h"
#include "engine/engine.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace epic {
namespace {

struct Options {
  std::string model;
  std::string text_folder = "examples/documents";
  int chunks = 8;
  int chunk_tokens = 512;
  int runs = 5;
  int threads = 0;
  std::string linkers = "full,cacheblend:15,legolink:16,legolink:2,naive";
  std::string format = "table";
};

template <typename T>
T OrExit(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::cerr << "bench-linkers: " << value.status().message() << "\n";
  std::exit(1);
}

// The most memory that this process has had resident, the touched pages of the mapped model file among it.
size_t PeakMemoryBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {
    EngineOptions engine_options;
    engine_options.model_path = options.model;
    engine_options.threads = options.threads;
    engine_options.prefix_cache_bytes = 0;
    engine_options.private_kv_bytes = size_t{8} << 30;
    engine_ = OrExit(Engine::Create(engine_options));
    const auto encoding = OrExit(engine_->tokenizer().EncodeText(ReadTexts(options.text_folder)));
    for (int c = 0; c < options.chunks; ++c) {
      std::vector<int32_t> ids;
      for (int i = 0; i < options.chunk_tokens; ++i) {
        ids.push_back(encoding.ids[(static_cast<size_t>(c) * options.chunk_tokens + i) % encoding.ids.size()]);
      }
      chunk_ids_.push_back(std::move(ids));
    }
  }

  ChunkKvPtr Chunk(size_t index, const std::string& recipe_id) {
    ChunkKvPtr& chunk = chunks_[{index, recipe_id}];
    if (chunk != nullptr) return chunk;
    CompileRequest request;
    request.recipe = OrExit(engine_->RecipeById(recipe_id));
    request.info.shape = engine_->kv_shape();
    request.info.model_fingerprint_hex = engine_->fingerprint_hex();
    request.info.token_ids = chunk_ids_[index];
    request.info.recipe_id = recipe_id;
    request.info.first_position = request.recipe.first_position();
    const size_t bytes = KvBlockBytes(request.info);
    std::shared_ptr<std::byte[]> memory = AllocateBlockMemory(bytes);
    request.block = {memory.get(), bytes};
    std::promise<absl::StatusOr<uint64_t>> done;
    request.on_done = [&done](absl::StatusOr<uint64_t> edition) { done.set_value(std::move(edition)); };
    OrExit(engine_->Compile(std::move(request)));
    OrExit(done.get_future().get());
    return chunk = std::make_shared<ChunkKv>(OrExit(KvBlockView::Parse({memory.get(), bytes})), memory);
  }

  GenerationRequest Request(const Linker& linker) {
    PromptMessage message{"user", {}};
    for (size_t c = 0; c < chunk_ids_.size(); ++c) {
      message.parts.push_back(
          {PromptPart::Kind::kChunk, "", chunk_ids_[c], linker.UsesChunks() ? Chunk(c, linker.RecipeId()) : nullptr});
    }
    message.parts.push_back(
        {PromptPart::Kind::kText,
         "\n\nWhat was decided about the maintenance of the tidal turbines, and who is responsible for it?",
         {},
         nullptr});
    const auto chat_template = engine_->chat_template();
    GenerationRequest request;
    request.prompt = OrExit(chat_template.ok() ? BuildChatPrompt(engine_->tokenizer(), **chat_template, {message})
                                               : BuildRawPrompt(engine_->tokenizer(), message.parts));
    request.linker = linker;
    request.max_output_tokens = 1;
    return request;
  }

  // Returns the time to the first token in seconds.
  double Run(const Linker& linker, GenerationStats& stats) {
    GenerationRequest request = Request(linker);
    std::promise<absl::Status> done;
    request.on_done = [&](const absl::Status& status, FinishReason, const GenerationStats& result) {
      stats = result;
      done.set_value(status);
    };
    const auto begin = std::chrono::steady_clock::now();
    OrExit(engine_->Generate(std::move(request)));
    if (const absl::Status status = done.get_future().get(); !status.ok()) OrExit(absl::StatusOr<int>(status));
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  // Multiply-adds x 2 of the products and attention that `stats` stands for, in units of 1e9.
  double Operations(const GenerationStats& stats) const {
    const ModelConfig& c = engine_->config();
    const double q = static_cast<double>(c.heads) * c.head_dim, kv = static_cast<double>(c.kv_heads) * c.head_dim;
    const double layer = c.width * (q + 2 * kv) + q * c.width + 3.0 * c.width * c.ffn_width;
    const double rows = stats.recomputed_tokens;
    // Full recompute's rows see half the prompt on average; scattered rows about as much as their share of it.
    const double seen = stats.prompt_tokens / 2.0;
    return 2 *
           (rows * layer * c.layers + rows * seen * 2 * q * c.layers + static_cast<double>(c.width) * c.vocab_size) /
           1e9;
  }

  const Engine& engine() const { return *engine_; }

  // Bytes of every chunk that has been compiled, as the blocks lie in memory.
  size_t ChunkBytes() const {
    size_t bytes = 0;
    for (const auto& [key, chunk] : chunks_) bytes += KvBlockBytes(chunk->view().info());
    return bytes;
  }

 private:
  Options options_;
  std::unique_ptr<Engine> engine_;
  std::vector<std::vector<int32_t>> chunk_ids_;
  std::map<std::pair<size_t, std::string>, ChunkKvPtr> chunks_;
};

int Main(const Options& options) {
  Bench bench(options);
  std::vector<Linker> linkers;
  std::stringstream names(options.linkers);
  for (std::string name; std::getline(names, name, ',');) linkers.push_back(OrExit(Linker::Parse(name)));
  std::vector<std::vector<double>> seconds(linkers.size());
  std::vector<GenerationStats> stats(linkers.size());
  for (const Linker& linker : linkers) {
    GenerationStats warm_up;
    bench.Run(linker, warm_up);  // compiles its chunks and grows the buffers
  }
  for (int run = 0; run < options.runs; ++run) {
    for (size_t i = 0; i < linkers.size(); ++i) {
      seconds[i].push_back(bench.Run(linkers[i], stats[i]));
      std::cerr << "\rrun " << run + 1 << " of " << options.runs << ", " << linkers[i].Name() << "          "
                << std::flush;
    }
  }
  std::cerr << "\r                                        \r";
  const auto full =
      std::find_if(linkers.begin(), linkers.end(), [](const Linker& l) { return l.kind == LinkerKind::kFull; });
  const size_t reference = full == linkers.end() ? 0 : static_cast<size_t>(full - linkers.begin());
  const double reference_seconds = Median(seconds[reference]);

  nlohmann::json report;
  report["benchmark"] = "linkers";
  report["processor"] = ProcessorName();
  report["model"] = bench.engine().config().name;
  report["runs"] = options.runs;
  report["prompt_tokens"] = stats[reference].prompt_tokens;
  report["chunk_tokens"] = options.chunk_tokens;
  std::string table = fmt::format("{}, {} prompt tokens in {} chunks of {}, median of {} interleaved runs, {}\n\n",
                                  bench.engine().config().name, stats[reference].prompt_tokens, options.chunks,
                                  options.chunk_tokens, options.runs, ProcessorName());
  table += fmt::format("{:<16} {:>10} {:>10} {:>10} {:>12} {:>12} {:>8} {:>10} {:>12}\n", "linker", "TTFT ms", "min ms",
                       "max ms", "rows run", "tokens/s", "GFLOP", "x faster", "x allowed");
  double legolink_ratio = 0;
  for (size_t i = 0; i < linkers.size(); ++i) {
    const double median = Median(seconds[i]);
    const double operations = bench.Operations(stats[i]);
    const double allowed = bench.Operations(stats[reference]) / operations;
    if (linkers[i].Name() == "legolink:16") legolink_ratio = reference_seconds / median;
    table += fmt::format("{:<16} {:>10.1f} {:>10.1f} {:>10.1f} {:>12.0f} {:>12.0f} {:>8.0f} {:>10.2f} {:>12.2f}\n",
                         linkers[i].Name(), median * 1e3, *std::min_element(seconds[i].begin(), seconds[i].end()) * 1e3,
                         *std::max_element(seconds[i].begin(), seconds[i].end()) * 1e3, stats[i].recomputed_tokens,
                         stats[i].prompt_tokens / median, operations, reference_seconds / median, allowed);
    report["results"].push_back({{"linker", linkers[i].Name()},
                                 {"ttft_ms_median", median * 1e3},
                                 {"rows_run", stats[i].recomputed_tokens},
                                 {"rows_selected", stats[i].selected_tokens},
                                 {"gflop", operations},
                                 {"speedup_over_full", reference_seconds / median},
                                 {"speedup_allowed", allowed}});
  }
  const double mebibyte = 1 << 20;
  const size_t weights = bench.engine().weight_bytes(), chunks = bench.ChunkBytes(), peak = PeakMemoryBytes();
  table += fmt::format(
      "\nmemory: {:.0f} MiB of weights + {:.0f} MiB of chunks = {:.0f} MiB by arithmetic; peak of the "
      "process {:.0f} MiB, the model file's pages that were read included\n",
      weights / mebibyte, chunks / mebibyte, (weights + chunks) / mebibyte, peak / mebibyte);
  report["memory"] = {{"weight_bytes", weights}, {"chunk_bytes", chunks}, {"peak_resident_bytes", peak}};
  report["bars"] = nlohmann::json::array();
  if (legolink_ratio > 0 && full != linkers.end()) {
    const bool holds = AddBar(report, "TTFT of full / TTFT of legolink:16", legolink_ratio, 5.0);
    table += fmt::format("\nbar: TTFT of full / TTFT of legolink:16 = {:.2f}, at least 5: {}\n", legolink_ratio,
                         holds ? "holds" : "FAILS");
  }
  std::cout << (options.format == "json" ? report.dump(2) + "\n" : table);
  return 0;
}

}  // namespace
}  // namespace epic

int main(int argc, char** argv) {
  epic::Options options;
  CLI::App app("TTFT of every linker over the same prompt, everything local and warm");
  app.add_option("--model", options.model, "model file")->envname("EPIC_MODEL")->required();
  app.add_option("--texts", options.text_folder, "folder of text files that the chunks are made from")
      ->check(CLI::ExistingDirectory);
  app.add_option("--chunks", options.chunks)->check(CLI::Range(1, 1024));
  app.add_option("--chunk-tokens", options.chunk_tokens)->check(CLI::Range(1, 8192));
  app.add_option("--runs", options.runs)->check(CLI::Range(1, 1000));
  app.add_option("--threads", options.threads, "compute threads, 0: one a core");
  app.add_option("--linkers", options.linkers, "comma-separated");
  app.add_option("--format", options.format)->check(CLI::IsMember({"table", "json"}));
  CLI11_PARSE(app, argc, argv);
  return epic::Main(options);
}
