#include "engine/engine.h"

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

#include "core/limits.h"
#include "core/status_macros.h"
#include "engine/cpu/cpu_backend.h"
#include "engine/files/model_file.h"
#include "engine/memory.h"
#include "engine/scheduler.h"
#include "fmt/format.h"

namespace epic {
namespace {

constexpr size_t kSinkTokens = 4;  // of recipe sink4 (linking.md §4, legolink:0)

class EngineImpl : public Engine {
 public:
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options);
  ~EngineImpl() override { scheduler_.reset(); }

  const ModelConfig& config() const override { return file_->config(); }
  const std::string& fingerprint_hex() const override { return fingerprint_; }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  absl::StatusOr<const ChatTemplate*> chat_template() const override {
    if (!template_.ok()) return absl::FailedPreconditionError(std::string(template_.status().message()));
    return template_->get();
  }
  KvShape kv_shape() const override { return backend_->kv_shape(); }
  size_t weight_bytes() const override { return backend_->weight_bytes(); }
  absl::StatusOr<Recipe> RecipeById(const std::string& id) const override;
  absl::StatusOr<std::shared_ptr<Handle>> Generate(GenerationRequest request) override;
  absl::StatusOr<std::shared_ptr<Handle>> Compile(CompileRequest request) override;
  EngineLoad Load() const override { return scheduler_->Load(); }

 private:
  absl::Status PrepareRecipes();
  absl::Status CheckIds(std::span<const int32_t> ids, const std::string& what) const;
  absl::Status CheckChunk(const PromptSegment& segment, size_t index, const Recipe& base) const;
  absl::Status CheckRequest(const GenerationRequest& request, const Recipe& recipe) const;

  std::unique_ptr<ModelFile> file_;
  std::string fingerprint_;
  std::unique_ptr<Tokenizer> tokenizer_;
  absl::StatusOr<std::unique_ptr<ChatTemplate>> template_ = absl::UnknownError("not read");
  std::unique_ptr<CpuBackend> backend_;
  Recipe plain_;
  Recipe sink_;
  std::unique_ptr<Scheduler> scheduler_;
};

absl::StatusOr<std::unique_ptr<Engine>> EngineImpl::Create(const EngineOptions& options) {
  EPIC_RETURN_IF_ERROR(options.Validate());
  auto engine = std::make_unique<EngineImpl>();
  EPIC_ASSIGN_OR_RETURN(engine->file_, OpenModelFile(options.model_path));
  EPIC_ASSIGN_OR_RETURN(const uint64_t weight_bytes, CpuBackend::WeightBytesOf(*engine->file_));
  EPIC_RETURN_IF_ERROR(CheckModelFits(options.model_path, weight_bytes, AvailableMemoryBytes()));
  EPIC_ASSIGN_OR_RETURN(engine->fingerprint_, engine->file_->Fingerprint(options.cache_dir));
  TokenizerSpec tokenizer = engine->file_->tokenizer();
  engine->template_ = ChatTemplate::Recognise(tokenizer);
  if (engine->template_.ok()) ProtectControlTokens(**engine->template_, tokenizer);
  EPIC_ASSIGN_OR_RETURN(engine->tokenizer_, Tokenizer::Create(std::move(tokenizer)));
  if (engine->tokenizer_->vocab_size() > engine->file_->config().vocab_size) {
    return absl::InvalidArgumentError(fmt::format("the tokenizer has {} tokens, the model's embedding only {}",
                                                  engine->tokenizer_->vocab_size(),
                                                  engine->file_->config().vocab_size));
  }
  const int threads =
      options.threads > 0 ? options.threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  EPIC_ASSIGN_OR_RETURN(engine->backend_, CpuBackend::Create(*engine->file_, threads));
  EPIC_RETURN_IF_ERROR(engine->PrepareRecipes());

  RequestEnvironment environment{*engine->backend_, *engine->tokenizer_, {}, engine->plain_, engine->fingerprint_};
  const std::span<const int32_t> stop_ids = engine->tokenizer_->stop_ids();
  environment.stop_tokens.assign(stop_ids.begin(), stop_ids.end());
  if (engine->template_.ok()) {
    for (const std::string& token : (*engine->template_)->stop_tokens()) {
      if (const auto id = engine->tokenizer_->TokenId(token)) environment.stop_tokens.push_back(*id);
    }
  }
  engine->scheduler_ = std::make_unique<Scheduler>(std::move(environment), options);
  return engine;
}

// plain: behind BOS where the model's tokenizer starts a sequence with one. sink4: behind the first four tokens of the
// rendered prompt, whose beginning is the same for every conversation that has no system message of its own.
absl::Status EngineImpl::PrepareRecipes() {
  plain_.id = "plain";
  if (const auto start = tokenizer_->sequence_start_id()) plain_.prefix_tokens = {*start};
  sink_.id = "sink4";
  std::vector<PromptSegment> rendered;
  if (template_.ok()) {
    EPIC_ASSIGN_OR_RETURN(rendered, BuildChatPrompt(*tokenizer_, **template_, {{"user", {}}}));
  } else {
    EPIC_ASSIGN_OR_RETURN(
        rendered,
        BuildRawPrompt(*tokenizer_, {{PromptPart::Kind::kText, "Answer the question from the text.", {}, nullptr}}));
  }
  const std::vector<int32_t>& ids = rendered.front().token_ids;
  sink_.prefix_tokens.assign(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(std::min(kSinkTokens, ids.size())));
  return absl::OkStatus();
}

absl::StatusOr<Recipe> EngineImpl::RecipeById(const std::string& id) const {
  if (id == plain_.id) return plain_;
  if (id == sink_.id) return sink_;
  return absl::InvalidArgumentError(
      fmt::format("there is no recipe \"{}\" for chunks without context; there are plain and sink4", id.substr(0, 64)));
}

absl::Status EngineImpl::CheckIds(std::span<const int32_t> ids, const std::string& what) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= config().vocab_size) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: token id {} at index {} is outside the model's vocabulary of {}", what, ids[i], i, config().vocab_size));
    }
  }
  return absl::OkStatus();
}

absl::Status EngineImpl::CheckChunk(const PromptSegment& segment, size_t index, const Recipe& base) const {
  const Recipe recipe = RecipeBehind(base, segment.context_token_ids);
  if (segment.chunk == nullptr) {
    return absl::InvalidArgumentError(fmt::format("segment {} of the prompt is a chunk without KV", index));
  }
  const KvBlockInfo& info = segment.chunk->view().info();
  if (info.model_fingerprint_hex != fingerprint_) {
    return absl::FailedPreconditionError(
        fmt::format("segment {}: the chunk was compiled by model {}, this engine runs {}", index,
                    info.model_fingerprint_hex, fingerprint_));
  }
  if (info.recipe_id != recipe.id || info.first_position != recipe.first_position() || !(info.shape == kv_shape())) {
    return absl::FailedPreconditionError(
        fmt::format("segment {}: the chunk was compiled by recipe {} (first position {}), the linker needs {} ({})",
                    index, info.recipe_id, info.first_position, recipe.id, recipe.first_position()));
  }
  if (info.token_ids != segment.token_ids) {
    return absl::InvalidArgumentError(fmt::format("segment {}: the chunk holds other tokens than the prompt", index));
  }
  return absl::OkStatus();
}

absl::Status EngineImpl::CheckRequest(const GenerationRequest& request, const Recipe& recipe) const {
  EPIC_RETURN_IF_ERROR(request.sampling.Validate());
  int64_t tokens = 0;
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    const PromptSegment& segment = request.prompt[i];
    EPIC_RETURN_IF_ERROR(CheckIds(segment.token_ids, fmt::format("segment {} of the prompt", i)));
    EPIC_RETURN_IF_ERROR(CheckIds(segment.context_token_ids, fmt::format("the context of segment {}", i)));
    if (segment.is_chunk && request.linker.UsesChunks()) EPIC_RETURN_IF_ERROR(CheckChunk(segment, i, recipe));
    tokens += static_cast<int64_t>(segment.token_ids.size());
  }
  if (tokens == 0) return absl::InvalidArgumentError("the prompt has no tokens");
  const int64_t answer = std::max<int64_t>(1, static_cast<int64_t>(request.continuation.size()));
  if (tokens + answer > config().context_length) {
    return absl::InvalidArgumentError(fmt::format(
        "the prompt has {} tokens and the answer needs at least {}, the model's context is {}; use fewer or "
        "shorter documents",
        tokens, answer, config().context_length));
  }
  if (request.continuation.empty() && request.max_output_tokens < 1) {
    return absl::InvalidArgumentError(
        fmt::format("max_output_tokens is {}, it must be at least 1", request.max_output_tokens));
  }
  EPIC_RETURN_IF_ERROR(CheckIds(request.continuation, "continuation_token_ids"));
  if (request.top_logprobs < 0 || request.top_logprobs > config().vocab_size) {
    return absl::InvalidArgumentError(fmt::format("top_logprobs is {}, it must be from 0 to the vocabulary's {}",
                                                  request.top_logprobs, config().vocab_size));
  }
  if (request.deadline <= std::chrono::steady_clock::now()) {
    return absl::DeadlineExceededError("the request's deadline had passed when it reached the engine");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Engine::Handle>> EngineImpl::Generate(GenerationRequest request) {
  EPIC_ASSIGN_OR_RETURN(const Recipe recipe, RecipeById(request.linker.BaseRecipeId()));
  EPIC_RETURN_IF_ERROR(CheckRequest(request, recipe));
  return scheduler_->Submit(std::move(request), recipe);
}

absl::StatusOr<std::shared_ptr<Engine::Handle>> EngineImpl::Compile(CompileRequest request) {
  const int64_t tokens = static_cast<int64_t>(request.info.token_ids.size()) + request.recipe.first_position();
  if (request.info.token_ids.empty()) return absl::InvalidArgumentError("a chunk to compile has no tokens");
  if (tokens > config().context_length) {
    return absl::InvalidArgumentError(
        fmt::format("a chunk of {} tokens with its recipe is longer than the model's context of {}", tokens,
                    config().context_length));
  }
  EPIC_RETURN_IF_ERROR(CheckIds(request.info.token_ids, "chunk"));
  EPIC_RETURN_IF_ERROR(CheckIds(request.recipe.prefix_tokens, "recipe"));
  if (request.info.model_fingerprint_hex != fingerprint_) {
    return absl::FailedPreconditionError(fmt::format("the chunk is for model {}, this engine runs {}",
                                                     request.info.model_fingerprint_hex, fingerprint_));
  }
  if (!(request.info.shape == kv_shape()) || request.block.size() != KvBlockBytes(request.info)) {
    return absl::InvalidArgumentError(fmt::format("the block's memory is {} bytes, this chunk takes {}",
                                                  request.block.size(), KvBlockBytes(request.info)));
  }
  EPIC_RETURN_IF_ERROR(CheckContext(request.info, request.recipe, request.context));
  return scheduler_->Submit(std::move(request));
}

}  // namespace

absl::Status EngineOptions::Validate() const {
  std::string problems;
  const auto check = [&problems](const char* field, int64_t value, int64_t min, int64_t max) {
    if (value >= min && value <= max) return;
    if (!problems.empty()) problems += "; ";
    problems += fmt::format("{} is {}, it must be from {} to {}", field, value, min, max);
  };
  const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
  check("threads", threads, 0, cores);
  check("piece_tokens", piece_tokens, 1, 4096);
  check("running_requests_max", running_requests_max, 1, static_cast<int64_t>(kSchedulerRequestsMax));
  check("private_kv_bytes", static_cast<int64_t>(private_kv_bytes), 1 << 20, int64_t{1} << 44);
  check("prefix_cache_bytes", static_cast<int64_t>(prefix_cache_bytes), 0, int64_t{1} << 44);
  if (model_path.empty()) problems += problems.empty() ? "model_path is empty" : "; model_path is empty";
  return problems.empty() ? absl::OkStatus() : absl::InvalidArgumentError(problems);
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options) {
  return EngineImpl::Create(options);
}

}  // namespace epic
