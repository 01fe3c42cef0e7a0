#include "engine/files/safetensors_shards.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>

#include "core/status_macros.h"
#include "engine/files/file_error.h"
#include "engine/files/json_file.h"

namespace epic {

namespace {

// Tensor names by the shard that has them.
using ShardTensors = std::map<std::string, std::vector<std::string>>;

absl::StatusOr<SafetensorsWeights> OpenOneFile(const std::string& path) {
  SafetensorsWeights weights;
  EPIC_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  EPIC_ASSIGN_OR_RETURN(weights.table, ParseSafetensors(mapped.bytes(), path));
  weights.files.push_back(std::move(mapped));
  return weights;
}

// A name of a file, which cannot lead out of the folder that it is looked up in.
bool IsShardName(const std::string& name) {
  return name.size() <= 255 && !name.starts_with('.') && name.ends_with(".safetensors") &&
         std::none_of(name.begin(), name.end(), [](char c) { return c == '/' || c == '\\' || c == '\0'; });
}

absl::StatusOr<ShardTensors> ReadWeightMap(const JsonObject& index) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<JsonObject> weight_map, index.Object("weight_map"));
  if (!weight_map.has_value() || weight_map->value().empty()) {
    return BrokenFile(index.path(), "weight_map is missing or empty");
  }
  if (weight_map->value().size() > kSafetensorsTensorsMax) {
    return BrokenFile(index.path(), "weight_map lists {} tensors, at most {} are allowed", weight_map->value().size(),
                      kSafetensorsTensorsMax);
  }
  ShardTensors shards;
  for (const auto& [tensor, shard] : weight_map->value().items()) {
    if (!shard.is_string() || !IsShardName(shard.get_ref<const std::string&>())) {
      return BrokenFile(index.path(),
                        "tensor {} is said to be in {}, expected the name of a .safetensors file beside "
                        "the index",
                        Quoted(tensor), JsonText(shard));
    }
    shards[shard.get<std::string>()].push_back(tensor);
  }
  if (shards.size() > kSafetensorsShardsMax) {
    return BrokenFile(index.path(), "weight_map names {} files, at most {} are allowed", shards.size(),
                      kSafetensorsShardsMax);
  }
  return shards;
}

// `listed` and the shard's own tensors are both in order of their names.
absl::Status CheckShard(const SafetensorsFile& shard, std::vector<std::string> listed, const std::string& shard_path,
                        const std::string& index_path) {
  std::sort(listed.begin(), listed.end());
  for (const SafetensorsTensor& tensor : shard.tensors) {
    if (!std::binary_search(listed.begin(), listed.end(), tensor.name)) {
      return BrokenFile(shard_path, "the file has a tensor {}, which {} does not place in it; is it of another model?",
                        Quoted(tensor.name), index_path);
    }
  }
  if (shard.tensors.size() == listed.size()) return absl::OkStatus();
  for (const std::string& name : listed) {
    const bool found = std::any_of(shard.tensors.begin(), shard.tensors.end(),
                                   [&name](const SafetensorsTensor& tensor) { return tensor.name == name; });
    if (!found) {
      return BrokenFile(shard_path, "tensor {} is missing, which {} places in this file; is it of another model?",
                        Quoted(name), index_path);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<SafetensorsWeights> OpenShards(const std::string& index_path) {
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json document, ReadJsonFile(index_path));
  const JsonObject index(document, index_path);
  EPIC_ASSIGN_OR_RETURN(const ShardTensors shards, ReadWeightMap(index));
  const std::filesystem::path folder = std::filesystem::path(index_path).parent_path();
  SafetensorsWeights weights;
  for (const auto& [name, listed] : shards) {
    const std::string path = (folder / name).string();
    absl::StatusOr<SafetensorsWeights> shard = OpenOneFile(path);
    if (absl::IsNotFound(shard.status())) {
      return absl::NotFoundError(
          fmt::format("{}: the file is missing, one of {} that {} names", path, shards.size(), index_path));
    }
    EPIC_RETURN_IF_ERROR(shard.status());
    EPIC_RETURN_IF_ERROR(CheckShard(shard->table, listed, path, index_path));
    // Each tensor is listed once, so that none can come from two shards.
    std::ranges::move(shard->table.tensors, std::back_inserter(weights.table.tensors));
    weights.files.push_back(std::move(shard->files.front()));
  }
  return weights;
}

}  // namespace

absl::StatusOr<SafetensorsWeights> OpenSafetensorsWeights(const std::string& path) {
  return std::filesystem::path(path).filename() == kSafetensorsIndexName ? OpenShards(path) : OpenOneFile(path);
}

}  // namespace epic
