#include "engine/files/tensor_layout.h"

#include "fmt/format.h"
#include "fmt/ranges.h"

namespace epic {

const char* TensorTypeName(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return "F32";
    case TensorType::kF16:
      return "F16";
    case TensorType::kBF16:
      return "BF16";
    case TensorType::kQ8_0:
      return "Q8_0";
    case TensorType::kQ4_0:
      return "Q4_0";
    case TensorType::kQ4_1:
      return "Q4_1";
  }
  return "unknown";
}

int64_t TensorView::ElementCount() const {
  int64_t count = shape.empty() ? 0 : 1;
  for (const int64_t dimension : shape) count *= dimension;
  return count;
}

int64_t TensorView::RowCount() const { return RowLength() == 0 ? 0 : ElementCount() / RowLength(); }

BlockLayout BlockLayoutOf(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return {.elements = 1, .bytes = 4};
    case TensorType::kF16:
    case TensorType::kBF16:
      return {.elements = 1, .bytes = 2};
    case TensorType::kQ8_0:
      return {.elements = 32, .bytes = 2 + 32};
    case TensorType::kQ4_0:
      return {.elements = 32, .bytes = 2 + 16};
    case TensorType::kQ4_1:
      return {.elements = 32, .bytes = 2 + 2 + 16};
  }
  return {};
}

std::optional<int64_t> TensorElementCount(std::span<const int64_t> shape) {
  if (shape.empty()) return std::nullopt;
  int64_t count = 1;
  for (const int64_t dimension : shape) {
    if (dimension < 1 || dimension > kTensorElementsMax / count) return std::nullopt;
    count *= dimension;
  }
  return count;
}

std::optional<int64_t> TensorByteCount(TensorType type, std::span<const int64_t> shape) {
  const std::optional<int64_t> elements = TensorElementCount(shape);
  const BlockLayout block = BlockLayoutOf(type);
  if (!elements.has_value() || shape.back() % block.elements != 0) return std::nullopt;
  return *elements / block.elements * block.bytes;
}

std::string ShapeText(std::span<const int64_t> shape) { return fmt::format("{}", fmt::join(shape, " x ")); }

}  // namespace epic
