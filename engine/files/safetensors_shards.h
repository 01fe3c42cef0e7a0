// The weights of a safetensors model: one file, or several shards that `model.safetensors.index.json` lists.
//
// The index maps each tensor to the shard that has it ("weight_map"). It is checked against what the shards really
// hold, in both directions: a tensor that it names must be in that shard, and a shard must have no tensor that it does
// not name. A shard's name must be one of a file in the index's own folder. The sum of bytes that an index may state
// (metadata.total_size) is not looked at: tools that change a model leave it as it was.
//
// Errors as ParseSafetensors; NOT_FOUND names a shard that is missing. Ownership: the table views the files.
#ifndef EPIC_ENGINE_FILES_SAFETENSORS_SHARDS_H_
#define EPIC_ENGINE_FILES_SAFETENSORS_SHARDS_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/files/mapped_file.h"
#include "engine/files/safetensors.h"

namespace epic {

inline constexpr const char* kSafetensorsIndexName = "model.safetensors.index.json";
inline constexpr size_t kSafetensorsShardsMax = 1024;

struct SafetensorsWeights {
  std::vector<MappedFile> files;
  SafetensorsFile table;  // tensors of all files
};

// `path` is a safetensors file, or an index (a file called kSafetensorsIndexName).
[[nodiscard]] absl::StatusOr<SafetensorsWeights> OpenSafetensorsWeights(const std::string& path);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_SAFETENSORS_SHARDS_H_
