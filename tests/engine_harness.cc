#include "tests/engine_harness.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <numeric>

#include "engine/chunk_compilation.h"

namespace epic::testing {
namespace {

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::cerr << value.status() << std::endl;
    std::abort();
  }
  return *std::move(value);
}

// Memory of whole pages that can be made read-only.
std::shared_ptr<std::byte> MapBlock(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  return {static_cast<std::byte*>(memory), [bytes](std::byte* p) { munmap(p, bytes); }};
}

}  // namespace

std::string SourcePath(const std::string& path) {
  const char* root = std::getenv("EPIC_SOURCE_DIR");
  return std::string(root == nullptr ? "." : root) + "/" + path;
}

nlohmann::json ReadJson(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    std::cerr << "cannot read " << path << std::endl;
    std::abort();
  }
  return nlohmann::json::parse(file);
}

std::string ModelPathFromEnvironment() {
  const char* path = std::getenv("EPIC_MODEL");
  return path == nullptr ? "" : path;
}

EngineHarness::EngineHarness(const std::string& model_path, int threads)
    : file_(OrDie(OpenModelFile(model_path))), backend_(OrDie(CpuBackend::Create(*file_, threads))) {}

ChunkKvPtr EngineHarness::Compile(const std::vector<int32_t>& tokens, const Recipe& recipe, int32_t piece_rows) {
  KvBlockInfo info;
  info.shape = backend_->kv_shape();
  info.model_fingerprint_hex = std::string(64, '0');
  info.token_ids = tokens;
  ChunkCompilation compilation(info, recipe);
  while (compilation.remaining() > 0) {
    RowBatch batch;
    std::vector<int32_t> ids;
    const int32_t count = compilation.TakeRows(piece_rows, ids, batch.positions);
    batch.groups.push_back({&compilation.kv(), 0, count});
    std::vector<float> hidden(static_cast<size_t>(count) * config().width);
    backend_->Embed(ids, hidden.data());
    backend_->RunLayers(batch, 0, config().layers, false, hidden.data());
  }
  const size_t bytes = KvBlockBytes(info.shape, static_cast<int32_t>(tokens.size()));
  std::shared_ptr<std::byte> memory = MapBlock(bytes);
  info.recipe_id = recipe.id;
  // The block's exact size depends on its header, which holds the recipe's name.
  const size_t exact = KvBlockBytes(info);
  if (exact > bytes) memory = MapBlock(exact);
  OrDie(compilation.WriteBlock({memory.get(), exact}));
  if (mprotect(memory.get(), exact, PROT_READ) != 0) std::abort();
  KvBlockView view = OrDie(KvBlockView::Parse({memory.get(), exact}));
  return std::make_shared<ChunkKv>(std::move(view), memory);
}

LinkResult EngineHarness::Link(std::vector<PromptSegment> prompt, const std::string& linker_name, const Recipe& recipe,
                               int32_t first_position, int32_t piece_rows) {
  const Linker linker = OrDie(Linker::Parse(linker_name));
  LinkPlan plan = PlanLink(prompt, linker, recipe);
  if (linker.UsesChunks()) {
    for (PromptSegment& segment : prompt) {
      if (segment.is_chunk && segment.chunk == nullptr) segment.chunk = Compile(segment.token_ids, recipe);
    }
  }
  for (const int32_t fresh : plan.compile_alone) prompt[fresh].chunk = Compile(prompt[fresh].token_ids, {"plain", {}});
  LinkJob job(*backend_, prompt, linker, plan, {first_position, {}});
  std::vector<float> hidden;
  while (!job.Done()) {
    if (job.NeedsOwnPass()) {
      job.RunOwnPass(piece_rows);
      continue;
    }
    RowBatch batch;
    std::vector<int32_t> ids;
    const int32_t count = job.TakeRows(piece_rows, ids, batch.positions);
    batch.groups.push_back({&job.kv(), 0, count});
    hidden.resize(static_cast<size_t>(count) * config().width);
    backend_->Embed(ids, hidden.data());
    backend_->RunLayers(batch, 0, config().layers, false, hidden.data());
    job.FinishRows(hidden.data() + static_cast<size_t>(count - 1) * config().width);
  }
  LinkResult result;
  result.logits.resize(config().vocab_size);
  backend_->Logits(1, job.last_hidden().data(), result.logits.data());
  result.selected = job.selected();
  result.deviations = job.deviations();
  result.recomputed_rows = job.recomputed_rows();
  return result;
}

std::vector<std::vector<float>> EngineHarness::AllLogits(const std::vector<int32_t>& tokens, int32_t piece_rows) {
  SequenceKv kv;
  const int32_t layers = config().layers;
  kv.plans.push_back({0, layers, {}, PrivateRows(backend_->kv_shape(), 0, layers)});
  std::vector<std::vector<float>> logits;
  const int32_t total = static_cast<int32_t>(tokens.size());
  for (int32_t begin = 0; begin < total; begin += piece_rows) {
    const int32_t count = std::min(piece_rows, total - begin);
    RowBatch batch;
    batch.positions.resize(count);
    std::iota(batch.positions.begin(), batch.positions.end(), begin);
    kv.AppendToAll(batch.positions);
    batch.groups.push_back({&kv, 0, count});
    std::vector<float> hidden(static_cast<size_t>(count) * config().width);
    backend_->Embed({tokens.data() + begin, static_cast<size_t>(count)}, hidden.data());
    backend_->RunLayers(batch, 0, layers, false, hidden.data());
    std::vector<float> piece(static_cast<size_t>(count) * config().vocab_size);
    backend_->Logits(count, hidden.data(), piece.data());
    for (int32_t r = 0; r < count; ++r) {
      logits.emplace_back(piece.begin() + static_cast<ptrdiff_t>(r) * config().vocab_size,
                          piece.begin() + static_cast<ptrdiff_t>(r + 1) * config().vocab_size);
    }
  }
  return logits;
}

ErrorSize Difference(const std::vector<float>& a, const std::vector<float>& b) {
  ErrorSize error;
  if (a.size() != b.size() || a.empty()) return {HUGE_VAL, HUGE_VAL};
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - b[i]);
    // NaN must not pass for small.
    error.max_abs = difference <= error.max_abs ? error.max_abs : difference;
    error.rms += difference * difference;
  }
  error.rms = std::sqrt(error.rms / static_cast<double>(a.size()));
  return error;
}

}  // namespace epic::testing
