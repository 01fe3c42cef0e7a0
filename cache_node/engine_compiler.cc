#include "cache_node/engine_compiler.h"

#include <utility>

#include "core/status_macros.h"

namespace epic {
namespace {

class EngineJob : public ChunkCompiler::Job {
 public:
  explicit EngineJob(std::shared_ptr<Engine::Handle> handle) : handle_(std::move(handle)) {}
  void Cancel() override { handle_->Cancel(); }

 private:
  const std::shared_ptr<Engine::Handle> handle_;
};

}  // namespace

absl::StatusOr<ChunkCompiler::Encoding> EngineCompiler::EncodeText(std::string_view text) const {
  EPIC_ASSIGN_OR_RETURN(Tokenizer::Encoding encoding, engine_->tokenizer().EncodeText(text));
  return Encoding{.ids = std::move(encoding.ids), .byte_ends = std::move(encoding.byte_ends)};
}

absl::StatusOr<std::shared_ptr<ChunkCompiler::Job>> EngineCompiler::Compile(Request request) {
  CompileRequest compile;
  compile.info = std::move(request.info);
  compile.recipe = std::move(request.recipe);
  for (const std::shared_ptr<const KvBlockView>& view : request.context) {
    compile.context.push_back(std::make_shared<ChunkKv>(*view, view));
  }
  compile.block = request.block;
  compile.urgent = request.urgent;
  compile.on_done = std::move(request.on_done);
  EPIC_ASSIGN_OR_RETURN(std::shared_ptr<Engine::Handle> handle, engine_->Compile(std::move(compile)));
  return std::make_shared<EngineJob>(std::move(handle));
}

}  // namespace epic
