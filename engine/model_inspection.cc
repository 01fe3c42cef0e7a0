#include "engine/model_inspection.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <system_error>

#include "engine/cpu/cpu_backend.h"
#include "engine/files/config_json.h"
#include "engine/files/gguf.h"
#include "engine/files/gguf_model.h"
#include "engine/files/mapped_file.h"
#include "engine/files/model_file.h"
#include "engine/memory.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "fmt/format.h"

namespace epic {

namespace {

// The configuration alone, so that a model that is refused for its tensors or its tokenizer still shows its sizes.
std::optional<ModelConfig> ConfigAlone(const std::string& path, std::string& format) {
  std::error_code error;
  std::filesystem::path folder = path;
  if (!std::filesystem::is_directory(folder, error)) {
    const absl::StatusOr<MappedFile> mapped = MappedFile::Open(path);
    if (!mapped.ok()) return std::nullopt;
    const absl::StatusOr<GgufFile> gguf = ParseGguf(mapped->bytes(), path);
    if (gguf.ok()) {
      format = fmt::format("GGUF version {}", gguf->version);
      const absl::StatusOr<ModelConfig> config = ConfigFromGguf(*gguf);
      return config.ok() ? std::optional(*config) : std::nullopt;
    }
    folder = folder.parent_path();
  }
  const absl::StatusOr<ModelConfig> config = ConfigFromJsonFile((folder / "config.json").string());
  if (!config.ok()) return std::nullopt;
  format = "safetensors";
  return *config;
}

void CountTensors(const ModelFile& file, ModelInspection& inspection) {
  std::map<std::string, StoredType> by_name;
  for (const std::string& name : file.TensorNames()) {
    const absl::StatusOr<const TensorView*> tensor = file.Tensor(name);
    if (!tensor.ok()) continue;
    StoredType& type = by_name[TensorTypeName((*tensor)->type)];
    type.name = TensorTypeName((*tensor)->type);
    type.tensors += 1;
    type.elements += (*tensor)->ElementCount();
    type.bytes += static_cast<int64_t>((*tensor)->bytes.size());
  }
  for (const auto& [name, type] : by_name) {
    inspection.types.push_back(type);
    inspection.parameters += type.elements;
    inspection.stored_bytes += type.bytes;
  }
  std::ranges::sort(inspection.types, [](const StoredType& a, const StoredType& b) { return a.bytes > b.bytes; });
}

absl::Status InspectText(TokenizerSpec spec, ModelInspection& inspection) {
  inspection.tokenizer =
      fmt::format("{}{}{}, {} tokens", spec.model, spec.pre_tokenizer.empty() ? "" : ", pre-tokenizer ",
                  spec.pre_tokenizer, spec.tokens.size());
  inspection.starts_with_bos = spec.add_bos;
  const absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template = ChatTemplate::Recognise(spec);
  inspection.has_chat_template = chat_template.ok();
  inspection.chat_template =
      chat_template.ok() ? (*chat_template)->name() : std::string(chat_template.status().message());
  if (chat_template.ok()) ProtectControlTokens(**chat_template, spec);
  return Tokenizer::Create(std::move(spec)).status();
}

}  // namespace

ModelInspection InspectModel(const std::string& path) {
  ModelInspection inspection;
  inspection.available_memory_bytes = AvailableMemoryBytes();
  const absl::StatusOr<std::unique_ptr<ModelFile>> file = OpenModelFile(path);
  inspection.config = ConfigAlone(path, inspection.format);
  if (file.ok()) inspection.config = (*file)->config();  // a part of a split file has not all of it
  if (inspection.config.has_value()) {
    const ModelConfig& config = *inspection.config;
    inspection.kv_bytes_per_token = uint64_t{2} * config.layers * config.kv_heads * config.head_dim * sizeof(uint16_t);
  }
  inspection.runs = file.status();
  if (!file.ok()) return inspection;
  CountTensors(**file, inspection);
  const absl::StatusOr<uint64_t> weight_bytes = CpuBackend::WeightBytesOf(**file);
  if (weight_bytes.ok()) inspection.weight_memory_bytes = *weight_bytes;
  inspection.runs = InspectText((*file)->tokenizer(), inspection);
  if (inspection.runs.ok()) inspection.runs = weight_bytes.status();
  if (inspection.runs.ok()) inspection.runs = CheckModelFits(path, *weight_bytes, inspection.available_memory_bytes);
  return inspection;
}

}  // namespace epic
