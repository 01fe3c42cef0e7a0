// Names of GGUF's types and typed access to its metadata. The parser is in gguf.cc.
#include <array>
#include <cstring>

#include "core/status_macros.h"
#include "engine/files/file_error.h"
#include "engine/files/gguf.h"

namespace epic {

namespace {

absl::Status WrongType(const GgufFile& file, std::string_view key, const char* expected, const GgufValue& value) {
  return BrokenFile(file.path, "key {} has type {}, expected {}", Quoted(key), GgufValueTypeName(value.type), expected);
}

template <typename Stored>
void Widen(const GgufArray& array, std::vector<int64_t>& out) {
  for (uint64_t i = 0; i < array.count; ++i) {
    Stored value;
    std::memcpy(&value, array.bytes.data() + i * sizeof(Stored), sizeof(Stored));
    out.push_back(static_cast<int64_t>(value));
  }
}

}  // namespace

const char* GgufValueTypeName(GgufValueType type) {
  static constexpr std::array kNames = {"uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
                                        "bool",  "string", "array",  "uint64", "int64",  "float64"};
  const auto index = static_cast<size_t>(type);
  return index < kNames.size() ? kNames[index] : "unknown";
}

std::string GgufTensorTypeName(uint32_t stored_type) {
  // By number; the empty ones were given up by the format.
  static constexpr std::array<std::string_view, 31> kNames = {
      "F32",   "F16",    "Q4_0", "Q4_1", "",     "",        "Q5_0",   "Q5_1",    "Q8_0",  "Q8_1",   "Q2_K",
      "Q3_K",  "Q4_K",   "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S",
      "IQ2_S", "IQ4_XS", "I8",   "I16",  "I32",  "I64",     "F64",    "IQ1_M",   "BF16"};
  if (stored_type == 34) return "TQ1_0";
  if (stored_type == 35) return "TQ2_0";
  if (stored_type == 39) return "MXFP4";
  if (stored_type >= kNames.size() || kNames[stored_type].empty()) return fmt::format("number {}", stored_type);
  return std::string(kNames[stored_type]);
}

const GgufValue* GgufFile::Find(std::string_view key) const {
  const auto found = metadata.find(key);
  return found == metadata.end() ? nullptr : &found->second;
}

absl::StatusOr<std::optional<uint64_t>> GgufFile::Unsigned(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* number = std::get_if<uint64_t>(&value->content)) return *number;
  if (const auto* number = std::get_if<int64_t>(&value->content)) {
    if (*number < 0) return BrokenFile(path, "key {} is {}, expected at least 0", Quoted(key), *number);
    return static_cast<uint64_t>(*number);
  }
  return WrongType(*this, key, "an integer", *value);
}

absl::StatusOr<std::optional<double>> GgufFile::Number(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* number = std::get_if<double>(&value->content)) return *number;
  if (const auto* number = std::get_if<uint64_t>(&value->content)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<int64_t>(&value->content)) return static_cast<double>(*number);
  return WrongType(*this, key, "a number", *value);
}

absl::StatusOr<std::optional<bool>> GgufFile::Bool(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* truth = std::get_if<bool>(&value->content)) return *truth;
  return WrongType(*this, key, "a bool", *value);
}

absl::StatusOr<std::optional<std::string_view>> GgufFile::String(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* text = std::get_if<std::string_view>(&value->content)) return *text;
  return WrongType(*this, key, "a string", *value);
}

absl::StatusOr<const std::vector<std::string_view>*> GgufFile::Strings(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return nullptr;
  const auto* array = std::get_if<GgufArray>(&value->content);
  if (array == nullptr || array->element_type != GgufValueType::kString) {
    return WrongType(*this, key, "an array of strings", *value);
  }
  return &array->strings;
}

absl::StatusOr<std::optional<std::vector<int64_t>>> GgufFile::Integers(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  const auto* array = std::get_if<GgufArray>(&value->content);
  if (array == nullptr) return WrongType(*this, key, "an array of integers", *value);
  std::vector<int64_t> result;
  result.reserve(array->count);
  switch (array->element_type) {
    case GgufValueType::kUint8:
      Widen<uint8_t>(*array, result);
      return result;
    case GgufValueType::kInt8:
      Widen<int8_t>(*array, result);
      return result;
    case GgufValueType::kUint16:
      Widen<uint16_t>(*array, result);
      return result;
    case GgufValueType::kInt16:
      Widen<int16_t>(*array, result);
      return result;
    case GgufValueType::kUint32:
      Widen<uint32_t>(*array, result);
      return result;
    case GgufValueType::kInt32:
      Widen<int32_t>(*array, result);
      return result;
    case GgufValueType::kInt64:
      Widen<int64_t>(*array, result);
      return result;
    default:
      return BrokenFile(path, "key {} is an array of {}, expected integers", Quoted(key),
                        GgufValueTypeName(array->element_type));
  }
}

}  // namespace epic
