#include "engine/cpu/cpu_backend.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "core/status_macros.h"
#include "engine/files/rotation.h"
#include "fmt/format.h"

namespace epic {
namespace {

// Rows of a product that one task takes: activations of this many rows stay in the second-level cache while the panels
// stream past. A multiple of every kernel's tile.
constexpr int kProductRows = 96;
constexpr int kTaskPanelsMax = 16;
constexpr int kBlockTaskRowsMin = 32;  // outputs: less is not worth a task
constexpr int kRowsPerTask = 8;        // of row-wise work
constexpr int32_t kRotationPositionsMin = 1024;

constexpr int CeilDivide(int a, int b) { return (a + b - 1) / b; }

// How many positions of the rotation the batch may ask for: those of its rows, and those that a query has as seen from
// a chunk that was compiled behind something (its first stored position lies that far in).
int32_t PositionsOf(const RowBatch& batch) {
  int32_t first_position = 0;
  for (const RowGroup& group : batch.groups) {
    for (const KvPlan& plan : group.kv->plans) {
      for (const SharedSegment& segment : plan.shared) {
        first_position = std::max(first_position, segment.chunk->view().info().first_position);
      }
    }
  }
  return 1 + first_position + *std::max_element(batch.positions.begin(), batch.positions.end());
}

// Outputs of a product by blocks that one thread computes.
struct BlockTask {
  const WeightMatrix::BlockPart* part = nullptr;
  int row_begin = 0;
  int row_count = 0;
};

// About `wanted` tasks for all outputs of a matrix.
std::vector<BlockTask> CutBlocks(const WeightMatrix& matrix, int wanted) {
  const int rows = std::max(kBlockTaskRowsMin, CeilDivide(matrix.outputs(), wanted));
  std::vector<BlockTask> tasks;
  for (const WeightMatrix::BlockPart& part : matrix.blocks()) {
    for (int begin = 0; begin < part.outputs; begin += rows) {
      tasks.push_back({&part, begin, std::min(rows, part.outputs - begin)});
    }
  }
  return tasks;
}

// The tensors of a layer's matrices: qkv, output, gate_up, down.
using LayerMatrices = std::array<std::vector<WeightSource>, 4>;
LayerMatrices LayerSources(int layer) {
  const std::string prefix = fmt::format("layers.{}.", layer);
  return {{{{prefix + "q", true}, {prefix + "k", true}, {prefix + "v", false}},
           {{prefix + "o", false}},
           {{prefix + "gate", false}, {prefix + "up", false}},
           {{prefix + "down", false}}}};
}

std::vector<WeightSource> OutputSource(const ModelConfig& config) {
  return {{config.tied_embeddings ? "embedding" : "output", false}};
}

}  // namespace

absl::StatusOr<std::unique_ptr<CpuBackend>> CpuBackend::Create(const ModelFile& file, int threads) {
  const CpuKernels* kernels = SelectCpuKernels();
  if (kernels == nullptr) {
    return absl::UnimplementedError(
        "the CPU backend needs a processor with AVX2 and FMA (and EPIC_CPU_ISA, where set, must name one that it has: "
        "avx2, avx512, avx512bf16 or amx)");
  }
  std::unique_ptr<CpuBackend> backend(new CpuBackend(file, kernels, threads));
  EPIC_RETURN_IF_ERROR(backend->LoadWeights(file));
  return backend;
}

absl::StatusOr<uint64_t> CpuBackend::WeightBytesOf(const ModelFile& file) {
  const ModelConfig& config = file.config();
  const auto q = static_cast<uint64_t>(config.heads) * config.head_dim;
  const auto kv = static_cast<uint64_t>(config.kv_heads) * config.head_dim;
  const auto width = static_cast<uint64_t>(config.width);
  uint64_t vectors = 2 * width;
  if (config.qkv_bias) vectors += q + 2 * kv;
  if (config.qk_norm) vectors += 2 * static_cast<uint64_t>(config.head_dim);
  uint64_t bytes = (config.layers * vectors + width) * sizeof(float);
  for (int layer = 0; layer < config.layers; ++layer) {
    for (const std::vector<WeightSource>& sources : LayerSources(layer)) {
      EPIC_ASSIGN_OR_RETURN(const uint64_t matrix, WeightMatrix::BytesOf(file, sources, WeightUse::kAllRows));
      bytes += matrix;
    }
  }
  EPIC_ASSIGN_OR_RETURN(const uint64_t output, WeightMatrix::BytesOf(file, OutputSource(config), WeightUse::kFewRows));
  return bytes + output;
}

CpuBackend::CpuBackend(const ModelFile& file, const CpuKernels* kernels, int threads)
    : config_(file.config()),
      kernels_(kernels),
      pool_(threads),
      attention_(KvShape{config_.layers, config_.kv_heads, config_.head_dim, KvDtype::kBf16}, config_.heads, kernels,
                 pool_),
      frequencies_(RotationFrequencies(config_)) {}

KvShape CpuBackend::kv_shape() const {
  return KvShape{config_.layers, config_.kv_heads, config_.head_dim, KvDtype::kBf16};
}

absl::Status CpuBackend::LoadVector(const ModelFile& file, const std::string& name, std::vector<float>& out) {
  EPIC_ASSIGN_OR_RETURN(const TensorView* tensor, file.Tensor(name));
  out.resize(tensor->ElementCount());
  DequantizeRows(*tensor, 0, tensor->RowCount(), out);
  weight_bytes_ += out.size() * sizeof(float);
  return absl::OkStatus();
}

absl::Status CpuBackend::LoadQkvBias(const ModelFile& file, const std::string& prefix, Layer& layer) {
  for (const char* name : {"q_bias", "k_bias", "v_bias"}) {
    std::vector<float> part;
    EPIC_RETURN_IF_ERROR(LoadVector(file, prefix + name, part));
    const size_t begin = layer.qkv_bias.size();
    layer.qkv_bias.resize(begin + part.size());
    const bool permute = name[0] != 'v' && file.RotationPairsAreAdjacent();
    for (size_t i = 0; i < part.size(); ++i) {
      layer.qkv_bias[begin + (permute ? HalfSplitRow(static_cast<int>(i), config_.head_dim) : i)] = part[i];
    }
  }
  return absl::OkStatus();
}

absl::Status CpuBackend::LoadLayer(const ModelFile& file, int index) {
  const std::string prefix = fmt::format("layers.{}.", index);
  Layer& layer = layers_[index];
  EPIC_RETURN_IF_ERROR(LoadVector(file, prefix + "attention_norm", layer.attention_norm));
  EPIC_RETURN_IF_ERROR(LoadVector(file, prefix + "ffn_norm", layer.ffn_norm));
  if (config_.qkv_bias) EPIC_RETURN_IF_ERROR(LoadQkvBias(file, prefix, layer));
  if (config_.qk_norm) {
    EPIC_RETURN_IF_ERROR(LoadVector(file, prefix + "q_norm", layer.q_norm));
    EPIC_RETURN_IF_ERROR(LoadVector(file, prefix + "k_norm", layer.k_norm));
  }
  const LayerMatrices sources = LayerSources(index);
  WeightMatrix* const matrices[] = {&layer.qkv, &layer.output, &layer.gate_up, &layer.down};
  for (size_t m = 0; m < sources.size(); ++m) {
    EPIC_RETURN_IF_ERROR(matrices[m]->Load(file, sources[m], WeightUse::kAllRows, *weight_memory_, pool_));
    weight_bytes_ += matrices[m]->bytes();
  }
  return absl::OkStatus();
}

absl::Status CpuBackend::LoadWeights(const ModelFile& file) {
  EPIC_ASSIGN_OR_RETURN(const uint64_t bytes, WeightBytesOf(file));
  EPIC_ASSIGN_OR_RETURN(weight_memory_, WeightMemory::Create(bytes));
  layers_.resize(config_.layers);
  for (int i = 0; i < config_.layers; ++i) {
    EPIC_RETURN_IF_ERROR(LoadLayer(file, i));
    file.ReleasePages();  // layer by layer, so that file and copy are never both in memory
  }
  EPIC_RETURN_IF_ERROR(LoadVector(file, "final_norm", final_norm_));
  EPIC_RETURN_IF_ERROR(output_.Load(file, OutputSource(config_), WeightUse::kFewRows, *weight_memory_, pool_));
  weight_bytes_ += output_.bytes();
  EPIC_ASSIGN_OR_RETURN(const TensorView* embedding, file.Tensor("embedding"));
  embedding_ = *embedding;
  if (config_.tied_embeddings && output_.has_blocks()) {
    const WeightArray<std::byte>& copy = output_.blocks().front().bytes;
    embedding_.bytes = {copy.data(), copy.size()};
  }
  file.ReleasePages();
  return absl::OkStatus();
}

// Cosines and sines in double, rounded once; a scale of queries and keys (YaRN) is part of them. The table grows with
// the positions that are used: a context of a million tokens would take half a gigabyte.
void CpuBackend::ExtendRotationTable(int32_t positions) {
  const int half = config_.head_dim / 2;
  const auto known = static_cast<int32_t>(rope_cos_.size() / half);
  if (positions <= known) return;
  const int32_t wanted = std::max({positions, 2 * known, kRotationPositionsMin});
  rope_cos_.resize(static_cast<size_t>(wanted) * half);
  rope_sin_.resize(rope_cos_.size());
  const double scale = config_.rope_scaling.attention_scale;
  pool_.ParallelFor(CeilDivide(wanted - known, 256), [&](int64_t task, int) {
    const int32_t begin = known + static_cast<int32_t>(task) * 256;
    for (int32_t p = begin; p < std::min(wanted, begin + 256); ++p) {
      for (int i = 0; i < half; ++i) {
        rope_cos_[static_cast<size_t>(p) * half + i] = static_cast<float>(scale * std::cos(p * frequencies_[i]));
        rope_sin_[static_cast<size_t>(p) * half + i] = static_cast<float>(scale * std::sin(p * frequencies_[i]));
      }
    }
  });
}

void CpuBackend::ReserveRows(int rows) {
  const auto grow = [rows](std::vector<float>& buffer, size_t columns) {
    if (buffer.size() < rows * columns) buffer.resize(rows * columns);
  };
  grow(normed_, config_.width);
  grow(qkv_, layers_.front().qkv.padded_outputs());
  grow(attended_, static_cast<size_t>(config_.heads) * config_.head_dim);
  grow(gate_up_, layers_.front().gate_up.padded_outputs());
  grow(activated_, config_.ffn_width);
}

void CpuBackend::Embed(std::span<const int32_t> token_ids, float* hidden) {
  for (size_t i = 0; i < token_ids.size(); ++i) {
    DequantizeRows(embedding_, token_ids[i], token_ids[i] + 1,
                   {hidden + i * config_.width, static_cast<size_t>(config_.width)});
  }
}

void CpuBackend::Normalise(int rows, const float* hidden, const std::vector<float>& weight, float* out) {
  const size_t width = config_.width;
  pool_.ParallelFor(CeilDivide(rows, kRowsPerTask), [&](int64_t task, int) {
    for (int r = static_cast<int>(task) * kRowsPerTask; r < std::min(rows, static_cast<int>(task + 1) * kRowsPerTask);
         ++r) {
      kernels_->rms_norm(hidden + r * width, weight.data(), config_.width, config_.rms_epsilon, out + r * width);
    }
  });
}

void CpuBackend::Multiply(Rows rows, const float* input, size_t input_stride, const WeightMatrix& matrix, float* output,
                          size_t output_stride, bool accumulate) {
  // A matrix without panels is multiplied by blocks whatever the rows.
  const int by_blocks = !matrix.has_blocks() ? 0 : matrix.has_panels() ? rows.decode : rows.count;
  const int by_panels = rows.count - by_blocks;
  std::vector<BlockTask> block_tasks;
  BlockActivations activations;
  if (by_blocks > 0) {
    block_tasks = CutBlocks(matrix, 4 * pool_.threads());
    activations = RoundRowsForBlocks(by_blocks, input, input_stride, matrix.inner());
  }
  const auto block_count = static_cast<int64_t>(block_tasks.size());

  const int row_tasks = CeilDivide(by_panels, kProductRows);
  const int panel_count = matrix.panels().panels();
  // Enough tasks that no thread waits long for the last one, groups of four panels so that a single row keeps eight
  // sums.
  const int wanted = CeilDivide(4 * pool_.threads(), std::max(1, row_tasks));
  const int panels = std::clamp(CeilDivide(CeilDivide(panel_count, wanted), 4) * 4, 4, kTaskPanelsMax);
  const int panel_tasks = CeilDivide(panel_count, panels);
  const size_t rounded_stride = static_cast<size_t>(matrix.inner()) + matrix.inner() % 2;
  if (by_panels > 0 && kernels_->rounds_activations) {
    RoundRows(by_blocks, rows.count, input, input_stride, matrix.inner(), rounded_stride);
  }
  pool_.ParallelFor(block_count + static_cast<int64_t>(row_tasks) * panel_tasks, [&](int64_t task, int) {
    if (task < block_count) {
      const BlockTask& cut = block_tasks[task];
      MultiplyBlocks(cut.part->format, activations, by_blocks, cut.part->Row(cut.row_begin, matrix.inner()),
                     matrix.inner(), cut.row_count, output + cut.part->first_output + cut.row_begin, output_stride,
                     accumulate);
      return;
    }
    task -= block_count;
    const int row = by_blocks + static_cast<int>(task / panel_tasks) * kProductRows;
    const int panel = static_cast<int>(task % panel_tasks) * panels;
    const int count = std::min(kProductRows, rows.count - row);
    const int panels_here = std::min(panels, panel_count - panel);
    float* const to = output + row * output_stride + static_cast<size_t>(panel) * kPanelColumns;
    if (kernels_->rounds_activations) {
      kernels_->multiply_rounded(rounded_.data() + row * rounded_stride, rounded_stride, count,
                                 matrix.panels().Panel(panel), matrix.inner(), panels_here, to, output_stride,
                                 accumulate);
    } else {
      kernels_->multiply(input + row * input_stride, input_stride, count, matrix.panels().Panel(panel), matrix.inner(),
                         panels_here, to, output_stride, accumulate);
    }
  });
}

BlockActivations CpuBackend::RoundRowsForBlocks(int rows, const float* input, size_t input_stride, int inner) {
  const size_t groups = static_cast<size_t>(inner) / kActivationGroup;
  if (block_values_.size() < static_cast<size_t>(rows) * inner) {
    block_values_.resize(static_cast<size_t>(rows) * inner);
    block_scales_.resize(block_values_.size() / kActivationGroup);
    block_sums_.resize(block_scales_.size());
  }
  pool_.ParallelFor(CeilDivide(rows, kRowsPerTask), [&](int64_t task, int) {
    const int first = static_cast<int>(task) * kRowsPerTask;
    for (int r = first; r < std::min(rows, first + kRowsPerTask); ++r) {
      RoundForBlocks(input + r * input_stride, inner, block_values_.data() + static_cast<size_t>(r) * inner,
                     block_scales_.data() + r * groups, block_sums_.data() + r * groups);
    }
  });
  return {block_values_.data(), block_scales_.data(), block_sums_.data()};
}

// rounded_[r] = rows [begin, end) of a product's input as bf16.
void CpuBackend::RoundRows(int begin, int end, const float* input, size_t input_stride, int inner,
                           size_t rounded_stride) {
  if (rounded_.size() < end * rounded_stride) rounded_.resize(end * rounded_stride);
  pool_.ParallelFor(CeilDivide(end - begin, kRowsPerTask), [&](int64_t task, int) {
    const int first = begin + static_cast<int>(task) * kRowsPerTask;
    for (int r = first; r < std::min(end, first + kRowsPerTask); ++r) {
      kernels_->round_to_bf16(input + r * input_stride, inner, rounded_.data() + r * rounded_stride);
    }
  });
}

void CpuBackend::WriteRow(KvPlan& plan, int32_t layer, int32_t position, const float* keys, const float* values) {
  const KvShape shape = kv_shape();
  const int half = config_.head_dim / 2;
  const int32_t index = plan.rows.IndexOf(position);
  KvPage& page = plan.rows.PageOf(index);
  const int32_t row = index % kPageTokens;
  const float* cosine = rope_cos_.data() + static_cast<size_t>(position) * half;
  const float* sine = rope_sin_.data() + static_cast<size_t>(position) * half;
  for (int head = 0; head < config_.kv_heads; ++head) {
    const float* k = keys + static_cast<size_t>(head) * config_.head_dim;
    uint16_t* to = page.Keys(layer) + shape.KeyIndex(kPageTokens, head, row, 0);
    for (int i = 0; i < half; ++i) {
      const float low = k[i] * cosine[i] - k[half + i] * sine[i];
      const float high = k[half + i] * cosine[i] + k[i] * sine[i];
      to[KvShape::KeyStep(i)] = ToBf16(low);
      to[KvShape::KeyStep(half + i)] = ToBf16(high);
    }
    const float* v = values + static_cast<size_t>(head) * config_.head_dim;
    uint16_t* to_values = page.Values(layer) + shape.ValueIndex(kPageTokens, head, row, 0);
    for (int i = 0; i < config_.head_dim; ++i) to_values[KvShape::ValueStep(i)] = ToBf16(v[i]);
  }
}

// Rows of a batch may be neighbours in one page: they write different elements of it.
void CpuBackend::WriteKv(const RowBatch& batch, int32_t layer) {
  const size_t stride = layers_[layer].qkv.padded_outputs();
  const size_t q = static_cast<size_t>(config_.heads) * config_.head_dim;
  const size_t kv = static_cast<size_t>(config_.kv_heads) * config_.head_dim;
  row_plans_.resize(batch.rows());
  for (const RowGroup& group : batch.groups) {
    std::fill_n(row_plans_.begin() + group.row_begin, group.row_count, &group.kv->PlanFor(layer));
  }
  pool_.ParallelFor(CeilDivide(batch.rows(), kRowsPerTask), [&](int64_t task, int) {
    const int end = std::min(batch.rows(), static_cast<int>(task + 1) * kRowsPerTask);
    for (int r = static_cast<int>(task) * kRowsPerTask; r < end; ++r) {
      const float* row = qkv_.data() + r * stride;
      WriteRow(*row_plans_[r], layer, batch.positions[r], row + q, row + q + kv);
    }
  });
}

void CpuBackend::Attend(int32_t layer) {
  AttentionRows rows;
  rows.queries = qkv_.data();
  rows.query_stride = layers_[layer].qkv.padded_outputs();
  rows.rope_cos = rope_cos_.data();
  rows.rope_sin = rope_sin_.data();
  rows.output = attended_.data();
  rows.output_stride = static_cast<size_t>(config_.heads) * config_.head_dim;
  attention_.Run(layer, rows);
}

// qkv_ = the rows' queries, keys and values, before the rotation.
void CpuBackend::ProjectQkv(Rows rows, const Layer& layer, const float* hidden) {
  Normalise(rows.count, hidden, layer.attention_norm, normed_.data());
  const size_t stride = layer.qkv.padded_outputs();
  Multiply(rows, normed_.data(), config_.width, layer.qkv, qkv_.data(), stride, false);
  if (layer.qkv_bias.empty() && layer.q_norm.empty()) return;
  pool_.ParallelFor(CeilDivide(rows.count, kRowsPerTask), [&](int64_t task, int) {
    for (int r = static_cast<int>(task) * kRowsPerTask;
         r < std::min(rows.count, static_cast<int>(task + 1) * kRowsPerTask); ++r) {
      float* row = qkv_.data() + r * stride;
      for (size_t i = 0; i < layer.qkv_bias.size(); ++i) row[i] += layer.qkv_bias[i];
      if (layer.q_norm.empty()) continue;
      for (int head = 0; head < config_.heads + config_.kv_heads; ++head) {
        float* part = row + static_cast<size_t>(head) * config_.head_dim;
        const std::vector<float>& weight = head < config_.heads ? layer.q_norm : layer.k_norm;
        kernels_->rms_norm(part, weight.data(), config_.head_dim, config_.rms_epsilon, part);
      }
    }
  });
}

void CpuBackend::RunLayers(const RowBatch& batch, int32_t layer_begin, int32_t layer_end, bool first_layer_kv_written,
                           float* hidden) {
  const Rows rows{batch.rows(), batch.decode_rows};
  ReserveRows(rows.count);
  ExtendRotationTable(PositionsOf(batch));
  for (int32_t l = layer_begin; l < layer_end; ++l) {
    const Layer& layer = layers_[l];
    ProjectQkv(rows, layer, hidden);
    if (l != layer_begin || !first_layer_kv_written) WriteKv(batch, l);
    if (l == layer_begin || l == attention_.layer_end()) attention_.Plan(batch, l);
    Attend(l);
    Multiply(rows, attended_.data(), static_cast<size_t>(config_.heads) * config_.head_dim, layer.output, hidden,
             config_.width, true);
    FeedForward(rows, layer, hidden);
  }
}

void CpuBackend::FeedForward(Rows rows, const Layer& layer, float* hidden) {
  Normalise(rows.count, hidden, layer.ffn_norm, normed_.data());
  const size_t stride = layer.gate_up.padded_outputs();
  Multiply(rows, normed_.data(), config_.width, layer.gate_up, gate_up_.data(), stride, false);
  pool_.ParallelFor(CeilDivide(rows.count, kRowsPerTask), [&](int64_t task, int) {
    for (int r = static_cast<int>(task) * kRowsPerTask;
         r < std::min(rows.count, static_cast<int>(task + 1) * kRowsPerTask); ++r) {
      const float* row = gate_up_.data() + r * stride;
      kernels_->silu_multiply(row, row + config_.ffn_width, config_.ffn_width,
                              activated_.data() + static_cast<size_t>(r) * config_.ffn_width);
    }
  });
  Multiply(rows, activated_.data(), config_.ffn_width, layer.down, hidden, config_.width, true);
}

void CpuBackend::ProjectKv(const RowBatch& batch, int32_t layer, const float* hidden) {
  const Rows rows{batch.rows(), 0};
  ReserveRows(rows.count);
  ExtendRotationTable(PositionsOf(batch));
  ProjectQkv(rows, layers_[layer], hidden);
  WriteKv(batch, layer);
}

void CpuBackend::Logits(int32_t rows, const float* hidden, float* logits) {
  ReserveRows(rows);
  Normalise(rows, hidden, final_norm_, normed_.data());
  if (output_.has_blocks() || output_.padded_outputs() == config_.vocab_size) {
    Multiply({rows, rows}, normed_.data(), config_.width, output_, logits, config_.vocab_size, false);
    return;
  }
  // A vocabulary that does not fill its last panel: one row at a time through a padded buffer.
  std::vector<float> padded(output_.padded_outputs());
  for (int32_t r = 0; r < rows; ++r) {
    Multiply({1, 1}, normed_.data() + static_cast<size_t>(r) * config_.width, config_.width, output_, padded.data(),
             padded.size(), false);
    std::copy_n(padded.data(), config_.vocab_size, logits + static_cast<size_t>(r) * config_.vocab_size);
  }
}

}  // namespace epic
