#include "engine/files/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <set>
#include <utility>

#include "core/status_macros.h"
#include "engine/files/file_error.h"
#include "engine/files/gguf_reader.h"
#include "engine/files/tensor_layout.h"

namespace epic {

namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr uint64_t kDefaultAlignment = 32;
// A key is at least its length, one byte, a value type and one byte of value; a tensor its name's length, one byte, the
// dimension count, one dimension, a type and an offset. A count that could not fit the rest of the file is refused
// early.
constexpr uint64_t kKeyBytesMin = 8 + 1 + 4 + 1;
constexpr uint64_t kTensorBytesMin = 8 + 1 + 4 + 8 + 4 + 8;

// Bytes of one value of a type of fixed size; 0 for strings, arrays and what is no type at all.
uint64_t FixedBytes(GgufValueType type) {
  switch (type) {
    case GgufValueType::kUint8:
    case GgufValueType::kInt8:
    case GgufValueType::kBool:
      return 1;
    case GgufValueType::kUint16:
    case GgufValueType::kInt16:
      return 2;
    case GgufValueType::kUint32:
    case GgufValueType::kInt32:
    case GgufValueType::kFloat32:
      return 4;
    case GgufValueType::kUint64:
    case GgufValueType::kInt64:
    case GgufValueType::kFloat64:
      return 8;
    case GgufValueType::kString:
    case GgufValueType::kArray:
      return 0;
  }
  return 0;
}

absl::StatusOr<GgufValueType> ReadValueType(GgufReader& reader, const std::string& what) {
  EPIC_ASSIGN_OR_RETURN(const uint32_t number, reader.Scalar<uint32_t>("the type of " + what));
  if (number > static_cast<uint32_t>(GgufValueType::kFloat64)) {
    return BrokenFile(reader.path(), "at byte {}: {} has value type {}, expected 0 to 12", reader.position() - 4, what,
                      number);
  }
  return static_cast<GgufValueType>(number);
}

// `what` names the array; `depth` counts the arrays around it.
absl::StatusOr<GgufArray> ReadArray(GgufReader& reader, const std::string& what, int depth) {
  if (depth >= kGgufArrayDepthMax) {
    return BrokenFile(reader.path(), "{} nests arrays more than {} deep", what, kGgufArrayDepthMax);
  }
  GgufArray array;
  EPIC_ASSIGN_OR_RETURN(array.element_type, ReadValueType(reader, "the elements of " + what));
  EPIC_ASSIGN_OR_RETURN(array.count, reader.Scalar<uint64_t>("the length of " + what));
  const uint64_t fixed_bytes = FixedBytes(array.element_type);
  // A string takes at least its length, an array at least its type and its count.
  const uint64_t bytes_min = fixed_bytes != 0 ? fixed_bytes : array.element_type == GgufValueType::kString ? 8 : 12;
  if (array.count > reader.remaining() / bytes_min) {
    return BrokenFile(reader.path(), "at byte {}: {} claims {} elements of type {}, but only {} bytes are left",
                      reader.position(), what, array.count, GgufValueTypeName(array.element_type), reader.remaining());
  }
  if (fixed_bytes != 0) {
    EPIC_ASSIGN_OR_RETURN(array.bytes, reader.Bytes(array.count * fixed_bytes, what));
    return array;
  }
  if (array.element_type == GgufValueType::kString) {
    array.strings.reserve(array.count);
    for (uint64_t i = 0; i < array.count; ++i) {
      EPIC_ASSIGN_OR_RETURN(const std::string_view text, reader.String(std::numeric_limits<uint64_t>::max(), what));
      array.strings.push_back(text);
    }
    return array;
  }
  // Nothing that we read is an array of arrays: such a value is checked and passed over.
  for (uint64_t i = 0; i < array.count; ++i) {
    EPIC_RETURN_IF_ERROR(ReadArray(reader, what, depth + 1).status());
  }
  return array;
}

template <typename Stored, typename Wide>
absl::StatusOr<GgufValue> ReadNumber(GgufReader& reader, const std::string& what, GgufValueType type) {
  EPIC_ASSIGN_OR_RETURN(const Stored value, reader.Scalar<Stored>(what));
  return GgufValue{type, static_cast<Wide>(value)};
}

absl::StatusOr<GgufValue> ReadValue(GgufReader& reader, const std::string& what) {
  EPIC_ASSIGN_OR_RETURN(const GgufValueType type, ReadValueType(reader, what));
  switch (type) {
    case GgufValueType::kUint8:
      return ReadNumber<uint8_t, uint64_t>(reader, what, type);
    case GgufValueType::kInt8:
      return ReadNumber<int8_t, int64_t>(reader, what, type);
    case GgufValueType::kUint16:
      return ReadNumber<uint16_t, uint64_t>(reader, what, type);
    case GgufValueType::kInt16:
      return ReadNumber<int16_t, int64_t>(reader, what, type);
    case GgufValueType::kUint32:
      return ReadNumber<uint32_t, uint64_t>(reader, what, type);
    case GgufValueType::kInt32:
      return ReadNumber<int32_t, int64_t>(reader, what, type);
    case GgufValueType::kUint64:
      return ReadNumber<uint64_t, uint64_t>(reader, what, type);
    case GgufValueType::kInt64:
      return ReadNumber<int64_t, int64_t>(reader, what, type);
    case GgufValueType::kFloat32:
      return ReadNumber<float, double>(reader, what, type);
    case GgufValueType::kFloat64:
      return ReadNumber<double, double>(reader, what, type);
    case GgufValueType::kBool: {
      EPIC_ASSIGN_OR_RETURN(const uint8_t value, reader.Scalar<uint8_t>(what));
      if (value > 1) return BrokenFile(reader.path(), "{} is a truth value of {}, expected 0 or 1", what, value);
      return GgufValue{type, value == 1};
    }
    case GgufValueType::kString: {
      EPIC_ASSIGN_OR_RETURN(const std::string_view text, reader.String(std::numeric_limits<uint64_t>::max(), what));
      return GgufValue{type, text};
    }
    case GgufValueType::kArray: {
      EPIC_ASSIGN_OR_RETURN(GgufArray array, ReadArray(reader, what, 0));
      return GgufValue{type, std::move(array)};
    }
  }
  return BrokenFile(reader.path(), "{} has an unknown value type", what);
}

absl::Status ReadMetadata(GgufReader& reader, uint64_t key_count, GgufFile& file) {
  for (uint64_t i = 0; i < key_count; ++i) {
    EPIC_ASSIGN_OR_RETURN(const std::string_view key,
                          reader.String(kGgufKeyBytesMax, fmt::format("key {} of {}", i + 1, key_count)));
    if (key.empty()) return BrokenFile(file.path, "key {} of {} is empty", i + 1, key_count);
    EPIC_ASSIGN_OR_RETURN(GgufValue value, ReadValue(reader, "key " + Quoted(key)));
    if (!file.metadata.emplace(std::string(key), std::move(value)).second) {
      return BrokenFile(file.path, "key {} stands twice in the file", Quoted(key));
    }
  }
  return absl::OkStatus();
}

struct PlacedTensor {
  GgufTensor tensor;
  uint64_t offset = 0;  // within the data section
};

absl::StatusOr<PlacedTensor> ReadTensorEntry(GgufReader& reader, uint64_t index, uint64_t tensor_count) {
  const std::string position = fmt::format("tensor {} of {}", index + 1, tensor_count);
  PlacedTensor placed;
  EPIC_ASSIGN_OR_RETURN(const std::string_view name, reader.String(kGgufTensorNameBytesMax, "the name of " + position));
  if (name.empty()) return BrokenFile(reader.path(), "{} has no name", position);
  GgufTensor& tensor = placed.tensor;
  tensor.name = std::string(name);
  const std::string what = "tensor " + Quoted(name);
  EPIC_ASSIGN_OR_RETURN(const uint32_t dimensions, reader.Scalar<uint32_t>("the dimension count of " + what));
  if (dimensions == 0 || dimensions > kGgufDimensionsMax) {
    return BrokenFile(reader.path(), "{} has {} dimensions, expected 1 to {}", what, dimensions, kGgufDimensionsMax);
  }
  tensor.shape.resize(dimensions);
  for (uint32_t i = 0; i < dimensions; ++i) {
    EPIC_ASSIGN_OR_RETURN(const uint64_t dimension, reader.Scalar<uint64_t>("the dimensions of " + what));
    if (dimension == 0 || dimension > static_cast<uint64_t>(kTensorElementsMax)) {
      return BrokenFile(reader.path(), "{} has a dimension of {}, expected 1 to {}", what, dimension,
                        kTensorElementsMax);
    }
    tensor.shape[dimensions - 1 - i] = static_cast<int64_t>(dimension);
  }
  if (!TensorElementCount(tensor.shape).has_value()) {
    return BrokenFile(reader.path(), "{} of {} has more than {} elements", what, ShapeText(tensor.shape),
                      kTensorElementsMax);
  }
  EPIC_ASSIGN_OR_RETURN(tensor.stored_type, reader.Scalar<uint32_t>("the type of " + what));
  EPIC_ASSIGN_OR_RETURN(placed.offset, reader.Scalar<uint64_t>("the offset of " + what));
  return placed;
}

// Gives each tensor its bytes within `data` and checks that no two share any.
absl::Status PlaceTensors(std::span<const std::byte> data, uint64_t alignment, std::vector<PlacedTensor>& placed,
                          const std::string& path) {
  for (PlacedTensor& entry : placed) {
    GgufTensor& tensor = entry.tensor;
    if (entry.offset % alignment != 0) {
      return BrokenFile(path, "tensor {} begins at offset {}, expected a multiple of the alignment {}",
                        Quoted(tensor.name), entry.offset, alignment);
    }
    if (entry.offset > data.size()) {
      return BrokenFile(path, "tensor {} begins at offset {}, but the data section has only {} bytes",
                        Quoted(tensor.name), entry.offset, data.size());
    }
    tensor.type = TensorTypeFromGguf(tensor.stored_type);
    if (!tensor.type.has_value()) continue;
    const std::optional<int64_t> byte_count = TensorByteCount(*tensor.type, tensor.shape);
    if (!byte_count.has_value()) {
      return BrokenFile(path, "tensor {} of type {} has rows of {} elements, expected a multiple of {}",
                        Quoted(tensor.name), TensorTypeName(*tensor.type), tensor.shape.back(),
                        BlockLayoutOf(*tensor.type).elements);
    }
    if (static_cast<uint64_t>(*byte_count) > data.size() - entry.offset) {
      return BrokenFile(
          path, "tensor {} needs {} bytes at offset {}, but the data section has only {}; the file is cut short",
          Quoted(tensor.name), *byte_count, entry.offset, data.size());
    }
    tensor.bytes = data.subspan(entry.offset, static_cast<size_t>(*byte_count));
  }
  std::vector<const PlacedTensor*> by_offset;
  for (const PlacedTensor& entry : placed) by_offset.push_back(&entry);
  std::sort(by_offset.begin(), by_offset.end(),
            [](const PlacedTensor* a, const PlacedTensor* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const PlacedTensor& before = *by_offset[i - 1];
    const PlacedTensor& after = *by_offset[i];
    if (after.offset == before.offset || after.offset - before.offset < before.tensor.bytes.size()) {
      return BrokenFile(path, "tensors {} (offset {}, {} bytes) and {} (offset {}) overlap", Quoted(before.tensor.name),
                        before.offset, before.tensor.bytes.size(), Quoted(after.tensor.name), after.offset);
    }
  }
  return absl::OkStatus();
}

struct Counts {
  uint64_t tensors = 0;
  uint64_t keys = 0;
};

absl::StatusOr<Counts> ReadHeader(GgufReader& reader, GgufFile& file) {
  EPIC_ASSIGN_OR_RETURN(const std::span<const std::byte> magic, reader.Bytes(kMagic.size(), "the magic \"GGUF\""));
  if (std::memcmp(magic.data(), kMagic.data(), kMagic.size()) != 0) {
    return BrokenFile(file.path, "expected the magic \"GGUF\", found {}",
                      Quoted({reinterpret_cast<const char*>(magic.data()), magic.size()}));
  }
  EPIC_ASSIGN_OR_RETURN(file.version, reader.Scalar<uint32_t>("the version"));
  if (file.version != 0 && (file.version & 0xffff) == 0) {
    return NotRunHere(file.path, "the GGUF file is big-endian; only little-endian files are read");
  }
  if (file.version != 2 && file.version != 3) {
    return NotRunHere(file.path, "GGUF version {}; versions 2 and 3 are read", file.version);
  }
  Counts counts;
  EPIC_ASSIGN_OR_RETURN(counts.tensors, reader.Scalar<uint64_t>("the tensor count"));
  EPIC_ASSIGN_OR_RETURN(counts.keys, reader.Scalar<uint64_t>("the key count"));
  if (counts.tensors > kGgufTensorsMax || counts.tensors > reader.remaining() / kTensorBytesMin) {
    return BrokenFile(file.path, "the file claims {} tensors; at most {} are allowed and {} bytes are left",
                      counts.tensors, kGgufTensorsMax, reader.remaining());
  }
  if (counts.keys > kGgufKeysMax || counts.keys > reader.remaining() / kKeyBytesMin) {
    return BrokenFile(file.path, "the file claims {} keys; at most {} are allowed and {} bytes are left", counts.keys,
                      kGgufKeysMax, reader.remaining());
  }
  return counts;
}

absl::StatusOr<uint64_t> Alignment(const GgufFile& file) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<uint64_t> stored, file.Unsigned("general.alignment"));
  const uint64_t alignment = stored.value_or(kDefaultAlignment);
  if (alignment < 8 || alignment > kGgufAlignmentMax || !std::has_single_bit(alignment)) {
    return BrokenFile(file.path, "general.alignment is {}, expected a power of two from 8 to {}", alignment,
                      kGgufAlignmentMax);
  }
  return alignment;
}

}  // namespace

absl::StatusOr<GgufFile> ParseGguf(std::span<const std::byte> bytes, const std::string& path) {
  GgufReader reader(bytes, path);
  GgufFile file;
  file.path = path;
  EPIC_ASSIGN_OR_RETURN(const Counts counts, ReadHeader(reader, file));
  EPIC_RETURN_IF_ERROR(ReadMetadata(reader, counts.keys, file));
  EPIC_ASSIGN_OR_RETURN(const uint64_t alignment, Alignment(file));

  std::vector<PlacedTensor> placed;
  std::set<std::string> names;
  for (uint64_t i = 0; i < counts.tensors; ++i) {
    EPIC_ASSIGN_OR_RETURN(PlacedTensor entry, ReadTensorEntry(reader, i, counts.tensors));
    if (!names.insert(entry.tensor.name).second) {
      return BrokenFile(path, "tensor {} stands twice in the file", Quoted(entry.tensor.name));
    }
    placed.push_back(std::move(entry));
  }
  const size_t data_begin = (reader.position() + alignment - 1) / alignment * alignment;
  if (data_begin > bytes.size() && !placed.empty()) {
    return BrokenFile(path, "tensor data should begin at byte {}, but the file ends at {}", data_begin, bytes.size());
  }
  const std::span<const std::byte> data = bytes.subspan(std::min(data_begin, bytes.size()));
  EPIC_RETURN_IF_ERROR(PlaceTensors(data, alignment, placed, path));
  for (PlacedTensor& entry : placed) file.tensors.push_back(std::move(entry.tensor));
  return file;
}

}  // namespace epic
