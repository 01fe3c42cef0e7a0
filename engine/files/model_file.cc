#include "engine/files/model_file.h"

#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

#include "core/status_macros.h"
#include "engine/files/file_error.h"
#include "engine/files/fingerprint.h"
#include "engine/files/gguf_model.h"
#include "engine/files/loaded_model.h"
#include "engine/files/mapped_file.h"
#include "engine/files/safetensors.h"
#include "engine/files/safetensors_model.h"
#include "engine/files/safetensors_shards.h"

namespace epic {

namespace {

class OpenedModelFile final : public ModelFile {
 public:
  OpenedModelFile(LoadedModel model, std::string path) : model_(std::move(model)), path_(std::move(path)) {}

  const ModelConfig& config() const override { return model_.config; }
  const TokenizerSpec& tokenizer() const override { return model_.tokenizer; }
  const std::vector<std::string>& TensorNames() const override { return model_.tensor_names; }
  bool RotationPairsAreAdjacent() const override { return model_.rotation_pairs_are_adjacent; }

  absl::StatusOr<const TensorView*> Tensor(const std::string& canonical_name) const override {
    const auto found = model_.tensors.find(canonical_name);
    if (found == model_.tensors.end()) {
      return absl::NotFoundError(fmt::format("{}: the model has no tensor {}", path_, Quoted(canonical_name)));
    }
    return &found->second;
  }

  void ReleasePages() const override {
    for (const MappedFile& weights : model_.weights) weights.ReleasePages();
  }

  absl::StatusOr<std::string> Fingerprint(const std::string& cache_dir) const override {
    return FingerprintWithCache(model_, cache_dir);
  }

 private:
  const LoadedModel model_;
  const std::string path_;
};

absl::StatusOr<LoadedModel> LoadFolder(const std::string& folder) {
  std::error_code error;
  // One file goes before an index, as in transformers.
  for (const char* name : {"model.safetensors", kSafetensorsIndexName}) {
    const std::filesystem::path weights = std::filesystem::path(folder) / name;
    if (std::filesystem::exists(weights, error)) return LoadSafetensorsModel(folder, weights.string());
  }
  return absl::NotFoundError(
      fmt::format("{}: the folder has neither model.safetensors nor {}; give a folder with config.json, tokenizer.json "
                  "and one of them, or a GGUF file",
                  folder, kSafetensorsIndexName));
}

absl::StatusOr<LoadedModel> LoadFile(const std::string& path) {
  EPIC_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  const std::string_view text(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
  if (text.starts_with("GGUF")) return LoadGgufModel(std::move(mapped), path);
  const std::filesystem::path file(path);
  const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  if (file.filename() == kSafetensorsIndexName) return LoadSafetensorsModel(folder.string(), path);
  if (file.extension() == ".safetensors" || LooksLikeSafetensors(mapped.bytes())) {
    // Any shard stands for the model that it is a part of.
    const std::filesystem::path index = folder / kSafetensorsIndexName;
    std::error_code error;
    const bool is_shard = file.filename() != "model.safetensors" && std::filesystem::exists(index, error);
    return LoadSafetensorsModel(folder.string(), is_shard ? index.string() : path);
  }
  return BrokenFile(path, "expected a GGUF file (magic \"GGUF\") or a safetensors file, the file begins with {}",
                    Quoted(text.substr(0, 8)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelFile>> OpenModelFile(const std::string& path) {
  std::error_code error;
  const bool is_folder = std::filesystem::is_directory(path, error);
  EPIC_ASSIGN_OR_RETURN(LoadedModel model, is_folder ? LoadFolder(path) : LoadFile(path));
  return std::make_unique<OpenedModelFile>(std::move(model), path);
}

}  // namespace epic
