// An engine for benchmarks: opened from the command line's options, with prompts of chunks and fresh tokens made from
// texts, chunks compiled once and kept, and requests that are run to their end with the time of every token.
//
// Not thread-safe but for the engine itself. Whatever the engine refuses ends the program with its message: a
// benchmark has no use for half a result.
#ifndef EPIC_BENCHMARKS_BENCH_ENGINE_H_
#define EPIC_BENCHMARKS_BENCH_ENGINE_H_

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "benchmarks/report.h"
#include "engine/engine.h"

namespace epic {

// What every benchmark with an engine is told on the command line.
struct BenchOptions {
  std::string model;
  std::string text_folder = "examples/documents";
  int threads = 0;  // 0: one a core
  int runs = 5;
  std::string format = "table";
  std::string save;    // where the report goes besides; empty: nowhere
  bool quick = false;  // very small sizes: shows that the program works, measures nothing
};

// The options above with their names, limits and EPIC_MODEL.
void AddBenchOptions(CLI::App& app, BenchOptions& options);
// The threads that an engine of these options computes with.
int ThreadCount(const BenchOptions& options);

template <typename T>
T OrExit(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::cerr << "error: " << value.status().message() << "\n";
  std::exit(1);
}
void OrExit(const absl::Status& status);

using SteadyTime = std::chrono::steady_clock::time_point;
double SecondsBetween(SteadyTime begin, SteadyTime end);

// A request that runs, or has run. The engine's thread fills it; what it holds may be read after Wait.
class RunningRequest {
 public:
  // Blocks until the request has ended; ends the program where it failed.
  void Wait();
  // Whether the request has ended; waits for that a millisecond at most.
  bool WaitBriefly() const { return done_future_.wait_for(std::chrono::milliseconds(1)) == std::future_status::ready; }

  SteadyTime submitted;
  std::vector<SteadyTime> token_times;  // of every generated token
  SteadyTime ended;
  GenerationStats stats;

  double first_token_seconds() const { return SecondsBetween(submitted, token_times.front()); }

 private:
  friend class BenchEngine;
  absl::Status status_;
  std::promise<void> done_;
  std::future<void> done_future_ = done_.get_future();
};
using RunningRequestPtr = std::shared_ptr<RunningRequest>;

class BenchEngine {
 public:
  // `prefix_cache_bytes` 0: nothing that was computed for one request helps another, so that repeating a request
  // measures it again.
  BenchEngine(const BenchOptions& options, size_t prefix_cache_bytes);

  Engine& engine() const { return *engine_; }
  const ModelConfig& config() const { return engine_->config(); }

  // The first `count` token ids of a document: document 0 is the texts one behind the other, again and again; every
  // other one has their passages in an order of its own.
  std::vector<int32_t> DocumentTokens(int document, int count) const;
  // The same cut into `chunks` chunks of `chunk_tokens`.
  std::vector<std::vector<int32_t>> DocumentChunks(int document, int chunks, int chunk_tokens) const;

  // Compiled at the first call, then kept.
  ChunkKvPtr Chunk(const std::vector<int32_t>& token_ids, const std::string& recipe_id);
  // Compiles these all at once, whatever Chunk holds, and returns them in this order.
  std::vector<ChunkKvPtr> CompileAll(const std::vector<std::vector<int32_t>>& chunks,
                                     const std::string& recipe_id) const;
  // The same rows in memory of their own under other token ids: as good as another chunk of this size for measuring
  // speed, without the time to compile it. The last bits of some values differ, so that blocks of
  // different tokens have different bytes. REQUIRES: as many tokens as the chunk has.
  ChunkKvPtr ChunkLike(const ChunkKv& chunk, const std::vector<int32_t>& token_ids) const;
  size_t chunk_bytes() const;  // of all chunks that Chunk has compiled

  // A chat turn: the template's head, the chunks, `question` as text. Chunks carry KV where the linker uses them.
  std::vector<PromptSegment> ChatPrompt(const std::vector<std::vector<int32_t>>& chunks, const std::string& question,
                                        const Linker& linker);

  // Starts a request that ends after exactly `output_tokens` tokens. Records the rows that it selects.
  RunningRequestPtr Start(std::vector<PromptSegment> prompt, const Linker& linker, int output_tokens);
  // Start and Wait.
  RunningRequestPtr Run(std::vector<PromptSegment> prompt, const Linker& linker, int output_tokens);

 private:
  std::unique_ptr<Engine> engine_;
  std::vector<int32_t> text_ids_;
  std::map<std::pair<std::vector<int32_t>, std::string>, ChunkKvPtr> chunks_;
};

// Rewrites one line on standard error; an empty text clears it.
void ShowProgress(const std::string& text);

// The question that benchmarks ask.
inline constexpr char kBenchQuestion[] =
    "\n\nWhat was decided about the maintenance of the tidal turbines, and who is responsible for it?";

}  // namespace epic

#endif  // EPIC_BENCHMARKS_BENCH_ENGINE_H_
