#include "inference_worker/infer_messages.h"

#include <utility>

#include "core/identifiers.h"
#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {
namespace {

std::vector<int32_t> Ids(const google::protobuf::RepeatedField<int32_t>& ids) { return {ids.begin(), ids.end()}; }

absl::StatusOr<JobPart> PartFromSegment(const v1::InferSegment& segment) {
  JobPart part;
  switch (segment.content_case()) {
    case v1::InferSegment::kText:
      part.kind = JobPart::Kind::kText;
      part.text = segment.text();
      return part;
    case v1::InferSegment::kTokenIds:
      part.kind = JobPart::Kind::kTokens;
      part.token_ids = Ids(segment.token_ids().ids());
      return part;
    case v1::InferSegment::kChunk: {
      part.kind = JobPart::Kind::kChunk;
      const v1::InferChunk& chunk = segment.chunk();
      absl::StatusOr<ChunkKey> key = ChunkKey::FromBytes(chunk.chunk().key());
      if (!key.ok()) {
        return absl::InvalidArgumentError(fmt::format("key of chunk {} of document \"{}\": {}", chunk.chunk_index(),
                                                      chunk.document_id(), std::string(key.status().message())));
      }
      part.chunk.key = *key;
      part.chunk.token_ids = Ids(chunk.chunk().token_ids());
      part.chunk.context_token_ids = Ids(chunk.context_token_ids());
      part.chunk.home = chunk.chunk().home();
      part.chunk.document_id = chunk.document_id();
      part.chunk.chunk_index = chunk.chunk_index();
      return part;
    }
    case v1::InferSegment::CONTENT_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("a segment of the prompt is empty: it must hold a chunk, text or token ids");
}

void TakeSampling(const v1::Sampling& sampling, InferJob* job) {
  job->sampling.temperature = sampling.temperature();
  // The wire cannot tell absent from 0, and 0 would keep nothing.
  if (sampling.top_p() != 0) job->sampling.top_p = sampling.top_p();
  job->sampling.top_k = sampling.top_k();
  job->sampling.seed = sampling.seed();
  if (sampling.max_output_tokens() != 0) job->max_output_tokens = sampling.max_output_tokens();
  job->stop_strings = {sampling.stop().begin(), sampling.stop().end()};
  job->ignore_end_of_turn = sampling.ignore_end_of_turn();
}

v1::FinishReason WireReason(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kScored:
      return v1::FINISH_REASON_SCORED;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

const char* ReasonDetail(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "end of turn or a stop string";
    case FinishReason::kLength:
      return "max_output_tokens or the model's context was reached";
    case FinishReason::kScored:
      return "the given continuation was scored";
  }
  return "";
}

}  // namespace

absl::StatusOr<InferJob> JobFromRequest(const v1::InferRequest& request, std::chrono::steady_clock::time_point arrival,
                                        std::chrono::steady_clock::time_point deadline) {
  InferJob job;
  job.tenant = request.context().tenant().empty() ? "default" : request.context().tenant();
  job.request_id = request.context().request_id();
  job.traceparent = request.context().traceparent();
  EPIC_RETURN_IF_ERROR(ValidateTenant("context.tenant", job.tenant));
  if (!job.request_id.empty()) EPIC_RETURN_IF_ERROR(ValidateRequestId("context.request_id", job.request_id));
  job.model_fingerprint_hex = request.model_fingerprint();
  job.chat = request.chat();
  for (const v1::InferMessage& message : request.messages()) {
    JobMessage& taken = job.messages.emplace_back();
    taken.role = message.role();
    for (const v1::InferSegment& segment : message.segments()) {
      EPIC_ASSIGN_OR_RETURN(JobPart part, PartFromSegment(segment));
      taken.parts.push_back(std::move(part));
    }
  }
  job.linker = request.linker();
  job.recipe = Recipe{request.recipe().id(), Ids(request.recipe().prefix_token_ids())};
  TakeSampling(request.sampling(), &job);
  job.continuation = Ids(request.continuation_token_ids());
  job.logprobs = request.logprobs();
  job.top_logprobs = request.top_logprobs();
  job.explain = request.explain();
  job.afresh = request.afresh();
  job.router_lookup_us = request.router_lookup_us();
  job.router_elapsed_us = request.router_elapsed_us();
  job.arrival = arrival;
  job.deadline = deadline;
  return job;
}

v1::GenerateResponse TokensToResponse(const std::vector<GeneratedToken>& tokens, bool with_logprobs) {
  v1::GenerateResponse response;
  for (const GeneratedToken& token : tokens) {
    response.mutable_text()->append(token.text);
    if (token.id == GeneratedToken::kNoToken) continue;
    v1::Token* sent = response.add_tokens();
    sent->set_token_id(token.id);
    if (!with_logprobs) continue;
    sent->set_logprob(token.logprob);
    for (const auto& [id, logprob] : token.top) {
      v1::TokenLogprob* likely = sent->add_top();
      likely->set_token_id(id);
      likely->set_logprob(logprob);
    }
  }
  return response;
}

v1::GenerateResponse FinalToResponse(const JobFinal& final) {
  v1::GenerateResponse response;
  v1::GenerateFinal* sent = response.mutable_final();
  sent->set_finish_reason(WireReason(final.finish_reason));
  sent->set_finish_detail(ReasonDetail(final.finish_reason));
  sent->set_linker(final.linker);
  sent->set_linker_note(final.linker_note);

  v1::Usage* usage = sent->mutable_usage();
  usage->set_prompt_tokens(final.stats.prompt_tokens);
  usage->set_cached_tokens(final.stats.cached_tokens);
  usage->set_recomputed_tokens(static_cast<int32_t>(final.stats.recomputed_tokens + 0.5));
  usage->set_selected_tokens(final.stats.selected_tokens);
  usage->set_reused_tokens(final.stats.prefix_hit_tokens);
  usage->set_completion_tokens(final.stats.completion_tokens);

  v1::Timing* timing = sent->mutable_timing();
  timing->set_queue_us(final.timing.queue_us);
  timing->set_lookup_us(final.timing.lookup_us);
  timing->set_load_us(final.timing.load_us);
  timing->set_compile_us(final.timing.compile_us);
  timing->set_link_us(final.timing.link_us);
  timing->set_first_token_us(final.timing.first_token_us);
  timing->set_ttft_us(final.timing.ttft_us);
  timing->set_total_us(final.timing.total_us);
  timing->set_bytes_pulled(final.timing.bytes_pulled);

  for (const ChunkPlanEntry& entry : final.plan) {
    v1::ChunkPlan* plan = sent->add_plan();
    plan->set_document_id(entry.document_id);
    plan->set_chunk_index(entry.chunk_index);
    plan->set_token_count(entry.token_count);
    plan->set_offset(entry.offset);
    plan->set_recomputed_tokens(entry.recomputed_tokens);
    plan->set_source(ChunkSourceName(entry.source));
    plan->set_reason(entry.reason);
    plan->set_key(std::string(entry.key.AsBytes()));
  }
  return response;
}

v1::ModelInfo DescribeModel(const Engine& engine) {
  const ModelConfig& config = engine.config();
  v1::ModelInfo model;
  model.set_name(config.name);
  model.set_architecture(config.architecture);
  model.set_fingerprint(engine.fingerprint_hex());
  model.set_layers(config.layers);
  model.set_width(config.width);
  model.set_heads(config.heads);
  model.set_kv_heads(config.kv_heads);
  model.set_head_dim(config.head_dim);
  model.set_vocab_size(config.vocab_size);
  model.set_context_length(config.context_length);
  const KvShape shape = engine.kv_shape();
  // Of a whole tile, so that the padding of a single token does not count.
  model.set_kv_bytes_per_token(
      static_cast<int64_t>(2 * shape.layers * shape.MatrixBytes(kTokensPerTile) / kTokensPerTile));
  if (const auto chat_template = engine.chat_template(); chat_template.ok()) {
    model.set_chat_template((*chat_template)->name());
  } else {
    model.set_chat_template_refusal(std::string(chat_template.status().message()));
  }
  model.set_weight_bytes(static_cast<int64_t>(engine.weight_bytes()));
  return model;
}

v1::GetWorkerStatusResponse StatusToResponse(const WorkerStatus& status, const Engine& engine, const LinkerGate& gate) {
  v1::GetWorkerStatusResponse response;
  *response.mutable_model() = DescribeModel(engine);
  response.set_running_requests(status.engine.running_requests);
  response.set_waiting_requests(status.engine.waiting_requests + status.loading_requests);
  response.set_queued_tokens(status.engine.queued_tokens + status.loading_rows);
  response.set_prefill_tokens_per_second(status.engine.prefill_tokens_per_second);
  response.set_pull_bytes_per_second(status.pull_bytes_per_second);
  response.set_cache_used_bytes(static_cast<int64_t>(status.cache.used_bytes));
  response.set_cache_capacity_bytes(static_cast<int64_t>(status.cache.capacity_bytes));
  response.set_uptime_ms(status.uptime_ms);
  response.set_requests_total(status.requests_total);
  response.set_tokens_generated_total(status.engine.generated_tokens_total);
  if (const absl::StatusOr<Recipe> sink = engine.RecipeById("sink4"); sink.ok()) {
    response.mutable_sink_token_ids()->Add(sink->prefix_tokens.begin(), sink->prefix_tokens.end());
  }
  for (const LinkerVerdict& verdict : gate.verdicts()) {
    v1::LinkerVerdict* sent = response.add_linker_verdicts();
    sent->set_linker(verdict.linker);
    sent->set_recipe_id(verdict.recipe_id);
    sent->set_prompts(verdict.prompts);
    sent->set_first_token_agreement(verdict.first_token_agreement);
    sent->set_mean_kl(verdict.mean_kl);
    sent->set_passes(verdict.passes);
    sent->set_reason(verdict.reason);
  }
  for (const ShadowFigures& figures : status.shadow) {
    v1::ShadowFigures* sent = response.add_shadow();
    sent->set_linker(figures.linker);
    sent->set_checks(figures.checks);
    sent->set_first_token_agreement(figures.first_token_agreement);
    sent->set_mean_kl(figures.mean_kl);
    sent->set_problem(figures.problem);
  }
  response.mutable_allowed_linkers()->Add(gate.allowed().begin(), gate.allowed().end());
  return response;
}

}  // namespace epic
