#include "engine/cpu/weight_matrix.h"

#include <algorithm>
#include <cstring>

#include "absl/status/statusor.h"
#include "core/status_macros.h"

namespace epic {
namespace {

constexpr int kRowsPerTask = 64;

uint64_t Aligned(uint64_t bytes) {
  return (bytes + kWeightAlignmentBytes - 1) / kWeightAlignmentBytes * kWeightAlignmentBytes;
}

uint64_t PanelBytes(int outputs, int inner) {
  const auto panels = static_cast<uint64_t>((outputs + kPanelColumns - 1) / kPanelColumns);
  return Aligned(panels * kPanelColumns * static_cast<uint64_t>(inner + inner % 2) * sizeof(uint16_t));
}

struct Shape {
  std::vector<const TensorView*> tensors;  // one a source
  int outputs = 0;
  int inner = 0;
  bool with_panels = true;
  bool with_blocks = true;
};

absl::StatusOr<Shape> ShapeOf(const ModelFile& file, std::span<const WeightSource> sources, WeightUse use) {
  Shape shape;
  for (const WeightSource& source : sources) {
    EPIC_ASSIGN_OR_RETURN(const TensorView* tensor, file.Tensor(source.tensor));
    shape.tensors.push_back(tensor);
    shape.outputs += static_cast<int>(tensor->RowCount());
    shape.inner = static_cast<int>(tensor->RowLength());
    shape.with_blocks = shape.with_blocks && BlockFormatOf(tensor->type).has_value();
  }
  shape.with_panels = use == WeightUse::kAllRows || !shape.with_blocks;
  return shape;
}

}  // namespace

std::optional<BlockFormat> BlockFormatOf(TensorType type) {
  switch (type) {
    case TensorType::kQ4_0:
      return BlockFormat::kQ4_0;
    case TensorType::kQ4_1:
      return BlockFormat::kQ4_1;
    case TensorType::kQ5_0:
      return BlockFormat::kQ5_0;
    case TensorType::kQ5_1:
      return BlockFormat::kQ5_1;
    case TensorType::kQ8_0:
      return BlockFormat::kQ8_0;
    case TensorType::kQ4_K:
      return BlockFormat::kQ4_K;
    case TensorType::kQ5_K:
      return BlockFormat::kQ5_K;
    case TensorType::kQ6_K:
      return BlockFormat::kQ6_K;
    default:
      return std::nullopt;
  }
}

absl::StatusOr<uint64_t> WeightMatrix::BytesOf(const ModelFile& file, std::span<const WeightSource> sources,
                                               WeightUse use) {
  EPIC_ASSIGN_OR_RETURN(const Shape shape, ShapeOf(file, sources, use));
  uint64_t bytes = 0;
  if (shape.with_panels) bytes += PanelBytes(shape.outputs, shape.inner);
  if (shape.with_blocks) {
    for (const TensorView* tensor : shape.tensors) bytes += Aligned(tensor->bytes.size());
  }
  return bytes;
}

uint64_t WeightMatrix::bytes() const {
  uint64_t bytes = Aligned(panels_.bytes());
  for (const BlockPart& part : blocks_) bytes += Aligned(part.bytes.size());
  return bytes;
}

absl::Status WeightMatrix::Load(const ModelFile& file, std::span<const WeightSource> sources, WeightUse use,
                                WeightMemory& memory, ThreadPool& pool) {
  EPIC_ASSIGN_OR_RETURN(const Shape shape, ShapeOf(file, sources, use));
  outputs_ = shape.outputs;
  inner_ = shape.inner;
  if (shape.with_panels) panels_ = PackedMatrix(outputs_, inner_, &memory);
  int first_output = 0;
  for (size_t s = 0; s < sources.size(); ++s) {
    const TensorView& tensor = *shape.tensors[s];
    const int rows = static_cast<int>(tensor.RowCount());
    const bool permute = sources[s].is_rotated && file.RotationPairsAreAdjacent();
    if (shape.with_blocks) {
      blocks_.push_back({*BlockFormatOf(tensor.type), first_output, rows, {tensor.bytes.size(), &memory}});
    }
    LoadPart(tensor, first_output, permute ? file.config().head_dim : 0, shape.with_blocks ? &blocks_.back() : nullptr,
             pool);
    first_output += rows;
  }
  return absl::OkStatus();
}

// `permuted_head_dim`: 0 where the rows are in the right order. `part`: null where the blocks are not kept.
void WeightMatrix::LoadPart(const TensorView& tensor, int first_output, int permuted_head_dim, BlockPart* part,
                            ThreadPool& pool) {
  const int rows = static_cast<int>(tensor.RowCount());
  const size_t row_bytes = tensor.bytes.size() / rows;
  pool.ParallelFor(CeilDivide(rows, kRowsPerTask), [&](int64_t task, int) {
    std::vector<float> row(inner_);
    const int begin = static_cast<int>(task) * kRowsPerTask;
    for (int r = begin; r < std::min(rows, begin + kRowsPerTask); ++r) {
      const int to = permuted_head_dim > 0 ? HalfSplitRow(r, permuted_head_dim) : r;
      if (part != nullptr) {
        std::memcpy(part->bytes.data() + to * row_bytes, tensor.bytes.data() + r * row_bytes, row_bytes);
      }
      if (!has_panels()) continue;
      DequantizeRows(tensor, r, r + 1, row);
      panels_.SetRow(first_output + to, row.data());
    }
  });
}

}  // namespace epic
