// The engine as a cache node's compiler.
#ifndef EPIC_CACHE_NODE_ENGINE_COMPILER_H_
#define EPIC_CACHE_NODE_ENGINE_COMPILER_H_

#include <memory>
#include <string>

#include "cache_node/compiler.h"
#include "engine/engine.h"

namespace epic {

// Thread-safe.
class EngineCompiler : public ChunkCompiler {
 public:
  // `engine` must outlive this object and every job.
  explicit EngineCompiler(Engine* engine) : engine_(engine) {}

  const std::string& fingerprint_hex() const override { return engine_->fingerprint_hex(); }
  KvShape kv_shape() const override { return engine_->kv_shape(); }
  int32_t vocab_size() const override { return engine_->config().vocab_size; }
  int32_t context_length() const override { return engine_->config().context_length; }
  absl::StatusOr<Recipe> RecipeById(const std::string& id) const override { return engine_->RecipeById(id); }
  absl::StatusOr<Encoding> EncodeText(std::string_view text) const override;
  absl::StatusOr<std::shared_ptr<Job>> Compile(Request request) override;

 private:
  Engine* const engine_;
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_ENGINE_COMPILER_H_
