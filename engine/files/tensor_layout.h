// The stored tensor types: their names, how many elements and bytes make up one block of each, and how many bytes a
// tensor takes. The conversion to float is DequantizeRows in model_file.h. Pure functions, safe from any thread.
#ifndef EPIC_ENGINE_FILES_TENSOR_LAYOUT_H_
#define EPIC_ENGINE_FILES_TENSOR_LAYOUT_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "engine/files/model_file.h"

namespace epic {

struct BlockLayout {
  int64_t elements = 0;
  int64_t bytes = 0;
};

BlockLayout BlockLayoutOf(TensorType type);

// Every type that DequantizeRows converts.
std::span<const TensorType> RunTensorTypes();

// Their names in one line, for the sentence that refuses another one: "F32, F16, ... and Q6_K".
std::string RunTensorTypesText();

// The type that GGUF has under this number, or nothing where it is none that DequantizeRows converts.
std::optional<TensorType> TensorTypeFromGguf(uint32_t stored_type);

// Bytes of a tensor of `shape`, or nothing where a dimension is below 1, the product exceeds kTensorElementsMax, or the
// last dimension is no multiple of the type's block.
std::optional<int64_t> TensorByteCount(TensorType type, std::span<const int64_t> shape);

// Elements of a tensor of `shape`, or nothing under the same conditions on the dimensions.
std::optional<int64_t> TensorElementCount(std::span<const int64_t> shape);

// "576 x 1536", for messages.
std::string ShapeText(std::span<const int64_t> shape);

// More than any tensor that fits a machine, and small enough that byte counts cannot overflow.
inline constexpr int64_t kTensorElementsMax = int64_t{1} << 48;

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_TENSOR_LAYOUT_H_
