#include "benchmarks/bench_engine.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>

#include "core/kv_block.h"
#include "engine/chunk_compilation.h"
#include "fmt/format.h"

namespace epic {
namespace {

constexpr size_t kPassageTokens = 32;  // what other documents are put together from

CompileRequest CompileRequestFor(const Engine& engine, const std::vector<int32_t>& token_ids,
                                 const std::string& recipe_id) {
  CompileRequest request;
  request.recipe = OrExit(engine.RecipeById(recipe_id));
  request.info.shape = engine.kv_shape();
  request.info.model_fingerprint_hex = engine.fingerprint_hex();
  request.info.token_ids = token_ids;
  request.info.recipe_id = recipe_id;
  request.info.first_position = request.recipe.first_position();
  return request;
}

ChunkKvPtr View(const std::shared_ptr<std::byte[]>& memory, size_t bytes) {
  return std::make_shared<ChunkKv>(OrExit(KvBlockView::Parse({memory.get(), bytes})), memory);
}

}  // namespace

void AddBenchOptions(CLI::App& app, BenchOptions& options) {
  app.add_option("--model", options.model, "a GGUF file or a folder of safetensors")->envname("EPIC_MODEL")->required();
  app.add_option("--texts", options.text_folder, "folder of text files that prompts are made from")
      ->check(CLI::ExistingDirectory);
  app.add_option("--threads", options.threads, "compute threads, 0: one a core")->check(CLI::Range(0, 1024));
  app.add_option("--runs", options.runs, "interleaved runs that medians are taken of")->check(CLI::Range(1, 1000));
  app.add_option("--format", options.format)->check(CLI::IsMember({"table", "json"}));
  app.add_option("--save", options.save, "a file that the JSON is written to besides");
  app.add_flag("--quick", options.quick, "very small sizes: shows that the program works, measures nothing");
}

int ThreadCount(const BenchOptions& options) {
  return options.threads > 0 ? options.threads : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

void OrExit(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << "error: " << status.message() << "\n";
  std::exit(1);
}

double SecondsBetween(SteadyTime begin, SteadyTime end) { return std::chrono::duration<double>(end - begin).count(); }

void RunningRequest::Wait() {
  done_future_.wait();
  OrExit(status_);
}

BenchEngine::BenchEngine(const BenchOptions& options, size_t prefix_cache_bytes) {
  EngineOptions engine_options;
  engine_options.model_path = options.model;
  engine_options.threads = options.threads;
  engine_options.prefix_cache_bytes = prefix_cache_bytes;
  engine_options.private_kv_bytes = size_t{8} << 30;
  engine_ = OrExit(Engine::Create(engine_options));
  text_ids_ = OrExit(engine_->tokenizer().EncodeText(ReadTexts(options.text_folder))).ids;
  if (text_ids_.size() < kPassageTokens) {
    OrExit(absl::InvalidArgumentError(
        fmt::format("the texts of {} have {} tokens, a benchmark needs at least {}; name a folder with more text",
                    options.text_folder, text_ids_.size(), kPassageTokens)));
  }
}

std::vector<int32_t> BenchEngine::DocumentTokens(int document, int count) const {
  std::vector<size_t> passages(text_ids_.size() / kPassageTokens);
  std::iota(passages.begin(), passages.end(), size_t{0});
  std::mt19937 random(static_cast<uint32_t>(document));
  std::vector<int32_t> ids;
  while (ids.size() < static_cast<size_t>(count)) {
    if (document > 0) std::shuffle(passages.begin(), passages.end(), random);
    for (const size_t passage : passages) {
      const auto begin = text_ids_.begin() + static_cast<std::ptrdiff_t>(passage * kPassageTokens);
      ids.insert(ids.end(), begin, begin + kPassageTokens);
    }
  }
  ids.resize(static_cast<size_t>(count));
  return ids;
}

std::vector<std::vector<int32_t>> BenchEngine::DocumentChunks(int document, int chunks, int chunk_tokens) const {
  const std::vector<int32_t> ids = DocumentTokens(document, chunks * chunk_tokens);
  std::vector<std::vector<int32_t>> result;
  for (auto begin = ids.begin(); begin != ids.end(); begin += chunk_tokens) {
    result.emplace_back(begin, begin + chunk_tokens);
  }
  return result;
}

ChunkKvPtr BenchEngine::Chunk(const std::vector<int32_t>& token_ids, const std::string& recipe_id) {
  ChunkKvPtr& chunk = chunks_[{token_ids, recipe_id}];
  if (chunk == nullptr) chunk = CompileAll({token_ids}, recipe_id).front();
  return chunk;
}

std::vector<ChunkKvPtr> BenchEngine::CompileAll(const std::vector<std::vector<int32_t>>& chunks,
                                                const std::string& recipe_id) const {
  std::vector<std::shared_ptr<std::byte[]>> memory;
  std::vector<size_t> sizes;
  std::vector<std::future<absl::StatusOr<uint64_t>>> editions;
  for (const std::vector<int32_t>& token_ids : chunks) {
    CompileRequest request = CompileRequestFor(*engine_, token_ids, recipe_id);
    sizes.push_back(KvBlockBytes(request.info));
    memory.push_back(AllocateBlockMemory(sizes.back()));
    request.block = {memory.back().get(), sizes.back()};
    const auto done = std::make_shared<std::promise<absl::StatusOr<uint64_t>>>();
    editions.push_back(done->get_future());
    request.on_done = [done](absl::StatusOr<uint64_t> edition) { done->set_value(std::move(edition)); };
    OrExit(engine_->Compile(std::move(request)));
  }
  std::vector<ChunkKvPtr> compiled;
  for (size_t i = 0; i < chunks.size(); ++i) {
    OrExit(editions[i].get());
    compiled.push_back(View(memory[i], sizes[i]));
  }
  return compiled;
}

ChunkKvPtr BenchEngine::ChunkLike(const ChunkKv& chunk, const std::vector<int32_t>& token_ids) const {
  const KvBlockView& from = chunk.view();
  KvBlockInfo info = from.info();
  info.token_ids = token_ids;
  const size_t bytes = KvBlockBytes(info);
  const std::shared_ptr<std::byte[]> memory = AllocateBlockMemory(bytes);
  KvBlockWriter writer = OrExit(KvBlockWriter::Create(info, {memory.get(), bytes}));
  const size_t matrix_bytes = info.shape.MatrixBytes(from.token_count());
  for (int32_t layer = 0; layer < info.shape.layers; ++layer) {
    std::memcpy(writer.Keys(layer), from.Keys(layer), matrix_bytes);
    std::memcpy(writer.Values(layer), from.Values(layer), matrix_bytes);
  }
  for (size_t i = 0; i < token_ids.size(); ++i) {
    if (token_ids[i] != from.info().token_ids[i]) *(writer.Values(0) + i) ^= 1;
  }
  writer.Seal();
  return View(memory, bytes);
}

size_t BenchEngine::chunk_bytes() const {
  size_t bytes = 0;
  for (const auto& [key, chunk] : chunks_) bytes += chunk->view().bytes().size();
  return bytes;
}

std::vector<PromptSegment> BenchEngine::ChatPrompt(const std::vector<std::vector<int32_t>>& chunks,
                                                   const std::string& question, const Linker& linker) {
  PromptMessage message{"user", {}};
  for (const std::vector<int32_t>& ids : chunks) {
    message.parts.push_back(
        {PromptPart::Kind::kChunk, "", ids, linker.UsesChunks() ? Chunk(ids, linker.BaseRecipeId()) : nullptr});
  }
  message.parts.push_back({PromptPart::Kind::kText, question, {}, nullptr});
  const auto chat_template = engine_->chat_template();
  return OrExit(chat_template.ok() ? BuildChatPrompt(engine_->tokenizer(), **chat_template, {message})
                                   : BuildRawPrompt(engine_->tokenizer(), message.parts));
}

RunningRequestPtr BenchEngine::Start(std::vector<PromptSegment> prompt, const Linker& linker, int output_tokens) {
  auto running = std::make_shared<RunningRequest>();
  running->token_times.reserve(static_cast<size_t>(output_tokens));
  GenerationRequest request;
  request.prompt = std::move(prompt);
  request.linker = linker;
  request.max_output_tokens = output_tokens;
  request.ignore_end_of_turn = true;
  request.record_selection = true;
  request.on_token = [running](const GeneratedToken& token) {
    if (token.id == GeneratedToken::kNoToken) return;
    running->token_times.push_back(std::chrono::steady_clock::now());
  };
  request.on_done = [running](const absl::Status& status, FinishReason, const GenerationStats& stats) {
    running->ended = std::chrono::steady_clock::now();
    running->stats = stats;
    running->status_ = status;
    running->done_.set_value();
  };
  running->submitted = std::chrono::steady_clock::now();
  OrExit(engine_->Generate(std::move(request)));
  return running;
}

RunningRequestPtr BenchEngine::Run(std::vector<PromptSegment> prompt, const Linker& linker, int output_tokens) {
  RunningRequestPtr running = Start(std::move(prompt), linker, output_tokens);
  running->Wait();
  return running;
}

void ShowProgress(const std::string& text) { std::cerr << "\r" << fmt::format("{:<100}", text) << "\r" << std::flush; }

}  // namespace epic
