#include "server/model_info.h"

#include <string>

namespace epic {

v1::ModelInfo ModelInfoOf(const Engine& engine) {
  const ModelConfig& config = engine.config();
  v1::ModelInfo info;
  info.set_name(config.name);
  info.set_architecture(config.architecture);
  info.set_fingerprint(engine.fingerprint_hex());
  info.set_layers(config.layers);
  info.set_width(config.width);
  info.set_heads(config.heads);
  info.set_kv_heads(config.kv_heads);
  info.set_head_dim(config.head_dim);
  info.set_vocab_size(config.vocab_size);
  info.set_context_length(config.context_length);
  const KvShape shape = engine.kv_shape();
  // Of a chunk without padding: a tile's bytes, K and V in every layer, divided by its tokens.
  info.set_kv_bytes_per_token(
      static_cast<int64_t>(2 * shape.MatrixBytes(kTokensPerTile) * static_cast<size_t>(shape.layers)) / kTokensPerTile);
  const absl::StatusOr<const ChatTemplate*> chat_template = engine.chat_template();
  if (chat_template.ok()) {
    info.set_chat_template((*chat_template)->name());
  } else {
    info.set_chat_template_refusal(std::string(chat_template.status().message()));
  }
  info.set_weight_bytes(static_cast<int64_t>(engine.weight_bytes()));
  return info;
}

}  // namespace epic
