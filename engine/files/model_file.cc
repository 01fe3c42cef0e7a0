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

namespace epic {

namespace {

constexpr const char* kIndexName = "model.safetensors.index.json";

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

  absl::StatusOr<std::string> Fingerprint(const std::string& cache_dir) const override {
    return FingerprintWithCache(model_, cache_dir);
  }

 private:
  const LoadedModel model_;
  const std::string path_;
};

absl::Status RefuseShards(const std::string& folder) {
  return NotRunHere(folder,
                    "the model is spread over several safetensors files ({}); one file is read so far: join them first",
                    kIndexName);
}

absl::StatusOr<LoadedModel> LoadFolder(const std::string& folder) {
  const std::filesystem::path weights = std::filesystem::path(folder) / "model.safetensors";
  std::error_code error;
  if (!std::filesystem::exists(weights, error)) {
    if (std::filesystem::exists(std::filesystem::path(folder) / kIndexName, error)) return RefuseShards(folder);
    return absl::NotFoundError(
        fmt::format("{}: the folder has no model.safetensors; give a folder with config.json, tokenizer.json and "
                    "model.safetensors, or a GGUF file",
                    folder));
  }
  return LoadSafetensorsModel(folder, weights.string());
}

absl::StatusOr<LoadedModel> LoadFile(const std::string& path) {
  EPIC_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  const std::string_view text(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
  if (text.starts_with("GGUF")) return LoadGgufModel(std::move(mapped), path);
  const std::filesystem::path file(path);
  if (file.extension() == ".safetensors" || LooksLikeSafetensors(mapped.bytes())) {
    const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
    std::error_code error;
    if (file.filename() != "model.safetensors" && std::filesystem::exists(folder / kIndexName, error)) {
      return RefuseShards(folder.string());
    }
    return LoadSafetensorsModel(folder.string(), path);
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
