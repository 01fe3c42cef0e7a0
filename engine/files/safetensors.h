// The safetensors container: the length of a JSON header (u64, little-endian), the header, tensor bytes.
//
// The header maps each tensor's name to its dtype, its shape and its begin and end within the bytes that follow. As the
// format demands, the tensors must fill those bytes without overlap and without holes. The bytes are treated as
// hostile: INVALID_ARGUMENT names file and tensor, what was expected and what was seen. A tensor of a type that we do
// not run is no error here; its `type` is absent.
//
// Ownership: a SafetensorsFile views the bytes that it was parsed from; they must outlive it. Immutable, hence safe
// from any thread.
#ifndef EPIC_ENGINE_FILES_SAFETENSORS_H_
#define EPIC_ENGINE_FILES_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/files/model_file.h"

namespace epic {

inline constexpr uint64_t kSafetensorsHeaderBytesMax = uint64_t{16} << 20;
inline constexpr size_t kSafetensorsTensorsMax = 1 << 16;

struct SafetensorsTensor {
  std::string name;
  std::string dtype;
  std::optional<TensorType> type;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

struct SafetensorsFile {
  std::vector<SafetensorsTensor> tensors;  // by name
};

[[nodiscard]] absl::StatusOr<SafetensorsFile> ParseSafetensors(std::span<const std::byte> bytes,
                                                               const std::string& path);

// Whether the bytes begin as a safetensors file does: a header length that fits, and an object.
bool LooksLikeSafetensors(std::span<const std::byte> bytes);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_SAFETENSORS_H_
