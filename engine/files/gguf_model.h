// A GGUF file as a model. Opened through OpenModelFile (model_file.h), which states the errors.
#ifndef EPIC_ENGINE_FILES_GGUF_MODEL_H_
#define EPIC_ENGINE_FILES_GGUF_MODEL_H_

#include <string>

#include "absl/status/statusor.h"
#include "engine/files/gguf.h"
#include "engine/files/loaded_model.h"
#include "engine/files/mapped_file.h"

namespace epic {

// `mapped` is the file at `path`, of a split model any part of it (gguf_parts.h). Takes the mapping over: the result's
// tensors view it.
[[nodiscard]] absl::StatusOr<LoadedModel> LoadGgufModel(MappedFile mapped, const std::string& path);

// Sizes, rotation and what else the metadata say, for a look at a model that may be refused for another reason.
[[nodiscard]] absl::StatusOr<ModelConfig> ConfigFromGguf(const GgufFile& file);

// The tokenizer and chat template in a GGUF file's metadata, not yet padded to the embedding.
[[nodiscard]] absl::StatusOr<TokenizerSpec> TokenizerFromGguf(const GgufFile& file);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_GGUF_MODEL_H_
