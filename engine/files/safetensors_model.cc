#include "engine/files/safetensors_model.h"

#include <cstring>
#include <filesystem>
#include <limits>
#include <utility>

#include "core/status_macros.h"
#include "engine/files/config_json.h"
#include "engine/files/file_error.h"
#include "engine/files/json_file.h"
#include "engine/files/safetensors.h"
#include "engine/files/safetensors_shards.h"
#include "engine/files/tokenizer_json.h"

namespace epic {

namespace {

// The token ids that `key` names: one, several, or none where it is absent.
absl::StatusOr<std::vector<int32_t>> TokenIds(const JsonObject& config, std::string_view key) {
  std::vector<int32_t> ids;
  const nlohmann::json* member = config.Find(key);
  if (member == nullptr) return ids;
  const nlohmann::json list = member->is_array() ? *member : nlohmann::json::array({*member});
  if (list.empty()) return BrokenFile(config.path(), "{} is an empty list, expected token ids", key);
  for (const nlohmann::json& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(kVocabularyMax)) {
      return BrokenFile(config.path(), "{} is {}, expected token ids", key, JsonText(*member));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

// BOS and EOS as config.json has them, for a tokenizer that names none.
absl::StatusOr<SequenceTokens> ReadSequenceTokens(const JsonObject& config) {
  SequenceTokens tokens;
  EPIC_ASSIGN_OR_RETURN(const std::vector<int32_t> bos, TokenIds(config, "bos_token_id"));
  EPIC_ASSIGN_OR_RETURN(const std::vector<int32_t> eos, TokenIds(config, "eos_token_id"));
  if (!bos.empty()) tokens.bos_id = bos.front();
  if (!eos.empty()) tokens.eos_id = eos.front();
  return tokens;
}

// Everything that ends a generation: generation_config.json has the last word on it, config.json where there is none.
absl::StatusOr<std::vector<int32_t>> ReadStopIds(const std::string& folder, const JsonObject& config) {
  const std::string path = folder + "/generation_config.json";
  const absl::StatusOr<nlohmann::json> document = ReadJsonFile(path);
  if (absl::IsNotFound(document.status())) return TokenIds(config, "eos_token_id");
  EPIC_RETURN_IF_ERROR(document.status());
  const JsonObject generation(*document, path);
  return TokenIds(generation.Find("eos_token_id") != nullptr ? generation : config, "eos_token_id");
}

// Stored tensors without those that repeat what is known otherwise: the table of rotation frequencies that old files
// carry, and an output matrix equal to the embedding that it is tied to.
absl::StatusOr<std::map<std::string, StoredTensor>> TensorsOf(const SafetensorsFile& file, const ModelConfig& config,
                                                              std::map<std::string, TensorView>& views,
                                                              const std::string& path) {
  std::map<std::string, StoredTensor> stored;
  for (const SafetensorsTensor& tensor : file.tensors) {
    if (tensor.name.ends_with("rotary_emb.inv_freq")) continue;
    StoredTensor& entry = stored[tensor.name];
    entry.stored_type = tensor.dtype;
    entry.shape = &tensor.shape;
    if (!tensor.type.has_value()) continue;
    entry.view =
        &views
             .emplace(
                 tensor.name,
                 TensorView{.name = tensor.name, .type = *tensor.type, .shape = tensor.shape, .bytes = tensor.bytes})
             .first->second;
  }
  const auto output = stored.find("lm_head.weight");
  const auto embedding = stored.find("model.embed_tokens.weight");
  if (!config.tied_embeddings || output == stored.end() || embedding == stored.end()) return stored;
  const TensorView* a = output->second.view;
  const TensorView* b = embedding->second.view;
  if (a == nullptr || b == nullptr || a->type != b->type || a->bytes.size() != b->bytes.size() ||
      std::memcmp(a->bytes.data(), b->bytes.data(), a->bytes.size()) != 0) {
    return NotRunHere(path, "config.json ties the output to the embedding, but \"lm_head.weight\" is another matrix");
  }
  stored.erase(output);
  return stored;
}

}  // namespace

absl::StatusOr<LoadedModel> LoadSafetensorsModel(const std::string& folder, const std::string& weights_path) {
  const std::string config_path = folder + "/config.json";
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json document, ReadJsonFile(config_path));
  const JsonObject json(document, config_path);
  EPIC_ASSIGN_OR_RETURN(ModelConfig config, ConfigFromJson(json));
  EPIC_ASSIGN_OR_RETURN(const SequenceTokens sequence_tokens, ReadSequenceTokens(json));
  EPIC_ASSIGN_OR_RETURN(std::vector<int32_t> stop_ids, ReadStopIds(folder, json));
  EPIC_ASSIGN_OR_RETURN(SafetensorsWeights weights, OpenSafetensorsWeights(weights_path));
  LoadedModel model{.weights = std::move(weights.files),
                    .config = std::move(config),
                    .tokenizer = {},
                    .rotation_pairs_are_adjacent = false,
                    .tensor_names = {},
                    .tensors = {}};
  std::map<std::string, TensorView> views;
  EPIC_ASSIGN_OR_RETURN(const auto stored, TensorsOf(weights.table, model.config, views, weights_path));
  EPIC_RETURN_IF_ERROR(PlaceCanonicalTensors(TensorNaming::kSafetensors, stored, weights_path, model));

  // Last, because only now the embedding's rows, which bound the ids, are known to be there.
  EPIC_ASSIGN_OR_RETURN(model.tokenizer, TokenizerFromFolder(folder, model.config.vocab_size, sequence_tokens));
  model.tokenizer.stop_ids = std::move(stop_ids);
  EPIC_RETURN_IF_ERROR(CheckAndPadTokenizer(model.config, folder + "/tokenizer.json", model.tokenizer));
  return model;
}

}  // namespace epic
