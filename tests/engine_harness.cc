#include "tests/engine_harness.h"

#include <sys/mman.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <numeric>
#include <utility>

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

// Paths of the folders of tests/golden/families, in order; none where the source tree is not known, so that listing the
// tests works everywhere.
std::vector<std::string> FamilyFolders() {
  std::vector<std::string> folders;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(SourcePath("tests/golden/families"), error)) {
    if (entry.is_directory()) folders.push_back(entry.path().string());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

std::string NameOfFolder(const std::string& folder) {
  std::string name = std::filesystem::path(folder).filename().string();
  std::erase_if(name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
  return name;
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

std::string QwenModelPath() {
  const char* named = std::getenv("EPIC_QWEN_MODEL");
  if (named != nullptr) return named;
  const std::string fetched = SourcePath("models/Qwen2.5-Coder-0.5B-Instruct.gguf");
  return std::filesystem::exists(fetched) ? fetched : "";
}

std::vector<GoldenModel> SafetensorsGoldenModels() {
  const std::string tiny = SourcePath("tests/golden/tiny/");
  std::vector<GoldenModel> models = {{"tiny", tiny + "tiny", tiny + "model-tiny.json", tiny + "linkers.json"}};
  for (const std::string& folder : FamilyFolders()) {
    models.push_back({NameOfFolder(folder), folder + "/safetensors", folder + "/model.json", folder + "/linkers.json"});
  }
  return models;
}

std::vector<GoldenModel> GgufGoldenModels() {
  std::vector<GoldenModel> models = SafetensorsGoldenModels();
  for (GoldenModel& model : models) {
    model.path =
        model.name == "tiny" ? model.path + ".gguf" : model.path.substr(0, model.path.rfind('/')) + "/model.gguf";
    model.name += "Gguf";
  }
  return models;
}

std::vector<GoldenModel> GoldenModels() {
  std::vector<GoldenModel> models = SafetensorsGoldenModels();
  for (GoldenModel& model : GgufGoldenModels()) models.push_back(std::move(model));
  return models;
}

void PrintTo(const GoldenModel& model, std::ostream* out) { *out << model.name; }

EngineHarness::EngineHarness(const std::string& model_path, int threads)
    : file_(OrDie(OpenModelFile(model_path))), backend_(OrDie(CpuBackend::Create(*file_, threads))) {}

ChunkKvPtr EngineHarness::Compile(const std::vector<int32_t>& tokens, const Recipe& recipe, int32_t piece_rows,
                                  std::vector<ChunkKvPtr> context) {
  KvBlockInfo info;
  info.shape = backend_->kv_shape();
  info.model_fingerprint_hex = std::string(64, '0');
  info.token_ids = tokens;
  if (!CheckContext(info, recipe, context).ok()) std::abort();
  ChunkCompilation compilation(info, recipe, std::move(context));
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
      if (segment.is_chunk && segment.chunk == nullptr) {
        segment.chunk = Compile(segment.token_ids, RecipeBehind(recipe, segment.context_token_ids));
      }
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

void ErrorSum::AddRow(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size() || a.empty()) {
    max_abs_ = squares_ = centred_squares_ = HUGE_VAL;
    return;
  }
  double sum = 0, squares = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - b[i];
    // NaN must not pass for small.
    max_abs_ = std::abs(difference) <= max_abs_ ? max_abs_ : std::abs(difference);
    sum += difference;
    squares += difference * difference;
  }
  squares_ += squares;
  centred_squares_ += squares - sum * sum / static_cast<double>(a.size());
  count_ += a.size();
}

ErrorSize ErrorSum::size() const {
  const auto count = static_cast<double>(count_);
  // A sum of squares less its mean may come out a little below zero.
  return {max_abs_, std::sqrt(squares_ / count), centred_squares_ < 0 ? 0 : std::sqrt(centred_squares_ / count)};
}

ErrorSize Difference(const std::vector<float>& a, const std::vector<float>& b) {
  ErrorSum sum;
  sum.AddRow(a, b);
  return sum.size();
}

}  // namespace epic::testing
