// The GGUF container, versions 2 and 3, little-endian: typed metadata and a table of tensors over mapped bytes.
//
// Layout: magic "GGUF", version (u32), tensor count (u64), key count (u64), the keys with their values, the tensor
// table, padding up to `general.alignment` (32 where absent), tensor data. A string is a length (u64) and bytes; an
// array is an element type (u32), a count (u64) and the elements.
//
// ParseGguf treats the bytes as hostile: every length, count, offset and type is checked before use, memory grows only
// in proportion to the bytes that are really there, and every limit is named below. Errors are INVALID_ARGUMENT
// (UNIMPLEMENTED for a version or byte order that we do not read) and say file, position, what was expected and what
// was seen.
//
// Ownership: a GgufFile views the bytes that it was parsed from; they must outlive it. Immutable after parsing, hence
// safe from any thread.
#ifndef EPIC_ENGINE_FILES_GGUF_H_
#define EPIC_ENGINE_FILES_GGUF_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/files/model_file.h"

namespace epic {

inline constexpr uint64_t kGgufKeysMax = 1 << 16;
inline constexpr uint64_t kGgufTensorsMax = 1 << 16;
inline constexpr uint64_t kGgufKeyBytesMax = 65535;       // the format's own limit
inline constexpr uint64_t kGgufTensorNameBytesMax = 255;  // the format says 64; some writers are generous
inline constexpr uint32_t kGgufDimensionsMax = 4;         // the format's own limit
inline constexpr uint64_t kGgufAlignmentMax = 1 << 20;
inline constexpr int kGgufArrayDepthMax = 4;

enum class GgufValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

const char* GgufValueTypeName(GgufValueType type);

struct GgufArray {
  GgufValueType element_type = GgufValueType::kUint8;
  uint64_t count = 0;
  std::vector<std::string_view> strings;  // the elements, where they are strings
  std::span<const std::byte> bytes;       // the elements as stored, where they are numbers
};

struct GgufValue {
  GgufValueType type = GgufValueType::kUint8;
  // By type: unsigned integers, signed integers, both floats, bool, string, array.
  std::variant<uint64_t, int64_t, double, bool, std::string_view, GgufArray> content;
};

struct GgufTensor {
  std::string name;
  uint32_t stored_type = 0;
  std::optional<TensorType> type;    // absent where DequantizeRows has no such type
  std::vector<int64_t> shape;        // slowest dimension first (the file has it last)
  std::span<const std::byte> bytes;  // empty where `type` is absent: its size is not known here
};

// The name that the format gives to a stored tensor type, such as "Q6_K", or "number 99".
std::string GgufTensorTypeName(uint32_t stored_type);

struct GgufFile {
  std::string path;  // for messages
  uint32_t version = 0;
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::vector<GgufTensor> tensors;  // in file order, names unique

  const GgufValue* Find(std::string_view key) const;

  // The value under `key`, nothing where the key is absent, INVALID_ARGUMENT where it has another type.
  // Unsigned takes any integer type that holds a value of at least 0; Number any integer or float.
  [[nodiscard]] absl::StatusOr<std::optional<uint64_t>> Unsigned(std::string_view key) const;
  [[nodiscard]] absl::StatusOr<std::optional<double>> Number(std::string_view key) const;
  [[nodiscard]] absl::StatusOr<std::optional<bool>> Bool(std::string_view key) const;
  [[nodiscard]] absl::StatusOr<std::optional<std::string_view>> String(std::string_view key) const;
  [[nodiscard]] absl::StatusOr<const std::vector<std::string_view>*> Strings(
      std::string_view key) const;  // null: absent
  // An array of any integer type, widened. Absent: an empty optional.
  [[nodiscard]] absl::StatusOr<std::optional<std::vector<int64_t>>> Integers(std::string_view key) const;
};

[[nodiscard]] absl::StatusOr<GgufFile> ParseGguf(std::span<const std::byte> bytes, const std::string& path);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_GGUF_H_
