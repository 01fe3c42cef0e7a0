#include "engine/files/safetensors.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/status_macros.h"
#include "engine/files/file_error.h"
#include "engine/files/json_file.h"
#include "engine/files/tensor_layout.h"

namespace epic {

namespace {

constexpr size_t kLengthBytes = sizeof(uint64_t);

uint64_t HeaderLength(std::span<const std::byte> bytes) {
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  return length;
}

std::optional<TensorType> TypeFromDtype(const std::string& dtype) {
  if (dtype == "F32") return TensorType::kF32;
  if (dtype == "F16") return TensorType::kF16;
  if (dtype == "BF16") return TensorType::kBF16;
  return std::nullopt;
}

struct Entry {
  SafetensorsTensor tensor;
  uint64_t begin = 0;
  uint64_t end = 0;
};

absl::StatusOr<uint64_t> Unsigned(const nlohmann::json& value, const std::string& path, const std::string& what) {
  if (!value.is_number_unsigned())
    return BrokenFile(path, "{} is {}, expected an integer of at least 0", what, JsonText(value));
  return value.get<uint64_t>();
}

absl::Status ReadShape(const JsonObject& object, const std::string& what, Entry& entry) {
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json* shape, object.Array("shape"));
  if (shape == nullptr || shape->empty() || shape->size() > 8) {
    return BrokenFile(object.path(), "{} has no shape of 1 to 8 dimensions", what);
  }
  for (const nlohmann::json& element : *shape) {
    EPIC_ASSIGN_OR_RETURN(const uint64_t dimension, Unsigned(element, object.path(), "a dimension of " + what));
    if (dimension > static_cast<uint64_t>(kTensorElementsMax)) {
      return BrokenFile(object.path(), "{} has a dimension of {}, at most {} are allowed", what, dimension,
                        kTensorElementsMax);
    }
    entry.tensor.shape.push_back(static_cast<int64_t>(dimension));
  }
  if (!TensorElementCount(entry.tensor.shape).has_value()) {
    return BrokenFile(object.path(), "{} has shape {}, expected dimensions of at least 1 and at most {} elements", what,
                      ShapeText(entry.tensor.shape), kTensorElementsMax);
  }
  return absl::OkStatus();
}

absl::StatusOr<Entry> ReadEntry(const std::string& name, const nlohmann::json& value, std::span<const std::byte> data,
                                const std::string& path) {
  const std::string what = "tensor " + Quoted(name);
  if (!value.is_object()) return BrokenFile(path, "{} is {}, expected an object", what, JsonText(value));
  const JsonObject object(value, path, what);
  Entry entry;
  entry.tensor.name = name;
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> dtype, object.String("dtype"));
  if (!dtype.has_value()) return BrokenFile(path, "{} has no dtype", what);
  entry.tensor.dtype = *dtype;
  entry.tensor.type = TypeFromDtype(*dtype);
  EPIC_RETURN_IF_ERROR(ReadShape(object, what, entry));
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json* offsets, object.Array("data_offsets"));
  if (offsets == nullptr || offsets->size() != 2)
    return BrokenFile(path, "{} has no data_offsets of two numbers", what);
  EPIC_ASSIGN_OR_RETURN(entry.begin, Unsigned((*offsets)[0], path, "the begin of " + what));
  EPIC_ASSIGN_OR_RETURN(entry.end, Unsigned((*offsets)[1], path, "the end of " + what));
  if (entry.begin > entry.end || entry.end > data.size()) {
    return BrokenFile(
        path,
        "{} lies at bytes {} to {}, expected a range within the {} bytes of tensor data; the file may be cut short",
        what, entry.begin, entry.end, data.size());
  }
  if (entry.tensor.type.has_value()) {
    const std::optional<int64_t> byte_count = TensorByteCount(*entry.tensor.type, entry.tensor.shape);
    if (!byte_count.has_value() || entry.end - entry.begin != static_cast<uint64_t>(*byte_count)) {
      return BrokenFile(path, "{} of type {} and shape {} has {} bytes, expected {}", what, *dtype,
                        ShapeText(entry.tensor.shape), entry.end - entry.begin, byte_count.value_or(0));
    }
  }
  entry.tensor.bytes = data.subspan(entry.begin, entry.end - entry.begin);
  return entry;
}

absl::Status CheckThatTensorsFill(const std::vector<Entry>& entries, uint64_t data_bytes, const std::string& path) {
  std::vector<const Entry*> by_begin;
  for (const Entry& entry : entries) by_begin.push_back(&entry);
  std::sort(by_begin.begin(), by_begin.end(),
            [](const Entry* a, const Entry* b) { return std::pair(a->begin, a->end) < std::pair(b->begin, b->end); });
  uint64_t expected = 0;
  for (const Entry* entry : by_begin) {
    if (entry->begin != expected) {
      return BrokenFile(path, "tensor {} begins at byte {}, expected {}: tensors overlap or leave a hole",
                        Quoted(entry->tensor.name), entry->begin, expected);
    }
    expected = entry->end;
  }
  if (expected != data_bytes) {
    return BrokenFile(path, "the tensors end at byte {} of the tensor data, expected its end at {}", expected,
                      data_bytes);
  }
  return absl::OkStatus();
}

}  // namespace

bool LooksLikeSafetensors(std::span<const std::byte> bytes) {
  return bytes.size() > kLengthBytes && HeaderLength(bytes) <= bytes.size() - kLengthBytes &&
         bytes[kLengthBytes] == std::byte{'{'};
}

absl::StatusOr<SafetensorsFile> ParseSafetensors(std::span<const std::byte> bytes, const std::string& path) {
  if (bytes.size() < kLengthBytes) {
    return BrokenFile(path, "expected the header's length in {} bytes, the file has {}", kLengthBytes, bytes.size());
  }
  const uint64_t header_bytes = HeaderLength(bytes);
  if (header_bytes > kSafetensorsHeaderBytesMax || header_bytes > bytes.size() - kLengthBytes) {
    return BrokenFile(path, "the header claims {} bytes; at most {} are allowed and {} are left", header_bytes,
                      kSafetensorsHeaderBytesMax, bytes.size() - kLengthBytes);
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, header_bytes);
  const std::span<const std::byte> data = bytes.subspan(kLengthBytes + header_bytes);
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJson(header, path));
  if (!document.is_object())
    return BrokenFile(path, "expected the header to be an object, found {}", JsonText(document));
  if (document.size() > kSafetensorsTensorsMax) {
    return BrokenFile(path, "the header lists {} tensors, at most {} are allowed", document.size(),
                      kSafetensorsTensorsMax);
  }
  std::vector<Entry> entries;
  for (const auto& [name, value] : document.items()) {
    if (name == "__metadata__") continue;
    EPIC_ASSIGN_OR_RETURN(Entry entry, ReadEntry(name, value, data, path));
    entries.push_back(std::move(entry));
  }
  EPIC_RETURN_IF_ERROR(CheckThatTensorsFill(entries, data.size(), path));
  SafetensorsFile file;
  for (Entry& entry : entries) file.tensors.push_back(std::move(entry.tensor));
  return file;
}

}  // namespace epic
