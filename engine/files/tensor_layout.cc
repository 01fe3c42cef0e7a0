#include "engine/files/tensor_layout.h"

#include <array>
#include <vector>

#include "fmt/format.h"
#include "fmt/ranges.h"

namespace epic {

namespace {

struct TypeEntry {
  TensorType type;
  const char* name;
  BlockLayout block;
  uint32_t gguf_number;
};

// In the order of TensorType, so that a type is its own index. The bytes are spelt out as the parts of a block.
constexpr std::array<TypeEntry, 13> kTypes = {{
    {TensorType::kF32, "F32", {.elements = 1, .bytes = 4}, 0},
    {TensorType::kF16, "F16", {.elements = 1, .bytes = 2}, 1},
    {TensorType::kBF16, "BF16", {.elements = 1, .bytes = 2}, 30},
    {TensorType::kQ8_0, "Q8_0", {.elements = 32, .bytes = 2 + 32}, 8},
    {TensorType::kQ4_0, "Q4_0", {.elements = 32, .bytes = 2 + 16}, 2},
    {TensorType::kQ4_1, "Q4_1", {.elements = 32, .bytes = 2 + 2 + 16}, 3},
    {TensorType::kQ5_0, "Q5_0", {.elements = 32, .bytes = 2 + 4 + 16}, 6},
    {TensorType::kQ5_1, "Q5_1", {.elements = 32, .bytes = 2 + 2 + 4 + 16}, 7},
    {TensorType::kQ2_K, "Q2_K", {.elements = 256, .bytes = 16 + 64 + 2 + 2}, 10},
    {TensorType::kQ3_K, "Q3_K", {.elements = 256, .bytes = 32 + 64 + 12 + 2}, 11},
    {TensorType::kQ4_K, "Q4_K", {.elements = 256, .bytes = 2 + 2 + 12 + 128}, 12},
    {TensorType::kQ5_K, "Q5_K", {.elements = 256, .bytes = 2 + 2 + 12 + 32 + 128}, 13},
    {TensorType::kQ6_K, "Q6_K", {.elements = 256, .bytes = 128 + 64 + 16 + 2}, 14},
}};

constexpr std::array<TensorType, kTypes.size()> kRunTypes = [] {
  std::array<TensorType, kTypes.size()> types{};
  for (size_t i = 0; i < kTypes.size(); ++i) types[i] = kTypes[i].type;
  return types;
}();

static_assert([] {
  for (size_t i = 0; i < kTypes.size(); ++i) {
    if (static_cast<size_t>(kTypes[i].type) != i) return false;
  }
  return true;
}());

const TypeEntry& EntryOf(TensorType type) { return kTypes[static_cast<size_t>(type)]; }

}  // namespace

const char* TensorTypeName(TensorType type) { return EntryOf(type).name; }

int64_t TensorView::ElementCount() const {
  int64_t count = shape.empty() ? 0 : 1;
  for (const int64_t dimension : shape) count *= dimension;
  return count;
}

int64_t TensorView::RowCount() const { return RowLength() == 0 ? 0 : ElementCount() / RowLength(); }

BlockLayout BlockLayoutOf(TensorType type) { return EntryOf(type).block; }

std::span<const TensorType> RunTensorTypes() { return kRunTypes; }

std::string RunTensorTypesText() {
  std::vector<const char*> names;
  for (const TypeEntry& entry : kTypes) names.push_back(entry.name);
  const char* last = names.back();
  names.pop_back();
  return fmt::format("{} and {}", fmt::join(names, ", "), last);
}

std::optional<TensorType> TensorTypeFromGguf(uint32_t stored_type) {
  for (const TypeEntry& entry : kTypes) {
    if (entry.gguf_number == stored_type) return entry.type;
  }
  return std::nullopt;
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
