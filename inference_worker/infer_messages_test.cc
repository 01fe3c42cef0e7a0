#include "inference_worker/infer_messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "inference_worker/fake_engine.h"

namespace epic {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::chrono::steady_clock::time_point kNever = std::chrono::steady_clock::time_point::max();

absl::StatusOr<InferJob> Convert(const v1::InferRequest& request) {
  return JobFromRequest(request, std::chrono::steady_clock::now(), kNever);
}

v1::InferRequest FullRequest() {
  v1::InferRequest request;
  request.mutable_context()->set_tenant("acme");
  request.mutable_context()->set_request_id("r-1");
  request.set_model_fingerprint("f");
  request.set_chat(true);
  v1::InferMessage* message = request.add_messages();
  message->set_role("user");
  v1::InferChunk* chunk = message->add_segments()->mutable_chunk();
  chunk->set_document_id("manual");
  chunk->set_chunk_index(3);
  chunk->mutable_chunk()->set_key(std::string(32, 'k'));
  chunk->mutable_chunk()->add_token_ids(5);
  chunk->mutable_chunk()->set_home("node:1");
  message->add_segments()->set_text("why?");
  message->add_segments()->mutable_token_ids()->add_ids(9);
  request.set_linker("naive");
  request.mutable_recipe()->set_id("plain");
  request.mutable_recipe()->add_prefix_token_ids(1);
  request.mutable_sampling()->set_temperature(0.5F);
  request.mutable_sampling()->set_top_p(0.9F);
  request.mutable_sampling()->set_top_k(7);
  request.mutable_sampling()->set_seed(8);
  request.mutable_sampling()->set_max_output_tokens(11);
  request.mutable_sampling()->add_stop("END");
  request.mutable_sampling()->set_ignore_end_of_turn(true);
  request.add_continuation_token_ids(4);
  request.set_logprobs(true);
  request.set_top_logprobs(2);
  request.set_explain(true);
  request.set_afresh(true);
  request.set_router_lookup_us(100);
  request.set_router_elapsed_us(200);
  return request;
}

TEST(InferMessagesTest, TakesEveryFieldOfARequest) {
  const absl::StatusOr<InferJob> job = Convert(FullRequest());
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->tenant, "acme");
  EXPECT_EQ(job->request_id, "r-1");
  EXPECT_EQ(job->model_fingerprint_hex, "f");
  EXPECT_TRUE(job->chat);
  ASSERT_EQ(job->messages.size(), 1U);
  EXPECT_EQ(job->messages[0].role, "user");
  ASSERT_EQ(job->messages[0].parts.size(), 3U);
  const JobChunk& chunk = job->messages[0].parts[0].chunk;
  EXPECT_EQ(chunk.key.AsBytes(), std::string(32, 'k'));
  EXPECT_THAT(chunk.token_ids, ElementsAre(5));
  EXPECT_EQ(chunk.home, "node:1");
  EXPECT_EQ(chunk.document_id, "manual");
  EXPECT_EQ(chunk.chunk_index, 3);
  EXPECT_EQ(job->messages[0].parts[1].text, "why?");
  EXPECT_THAT(job->messages[0].parts[2].token_ids, ElementsAre(9));
  EXPECT_EQ(job->linker, "naive");
  EXPECT_EQ(job->recipe, (Recipe{"plain", {1}}));
  EXPECT_EQ(job->sampling.temperature, 0.5F);
  EXPECT_EQ(job->sampling.top_p, 0.9F);
  EXPECT_EQ(job->sampling.top_k, 7);
  EXPECT_EQ(job->sampling.seed, 8U);
  EXPECT_EQ(job->max_output_tokens, 11);
  EXPECT_THAT(job->stop_strings, ElementsAre("END"));
  EXPECT_TRUE(job->ignore_end_of_turn);
  EXPECT_THAT(job->continuation, ElementsAre(4));
  EXPECT_TRUE(job->logprobs);
  EXPECT_EQ(job->top_logprobs, 2);
  EXPECT_TRUE(job->explain);
  EXPECT_TRUE(job->afresh);
  EXPECT_EQ(job->router_lookup_us, 100);
  EXPECT_EQ(job->router_elapsed_us, 200);
}

TEST(InferMessagesTest, AbsentFieldsAreTheContractsDefaults) {
  const absl::StatusOr<InferJob> job = Convert(v1::InferRequest());
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->tenant, "default");
  EXPECT_EQ(job->sampling.temperature, 0);
  EXPECT_EQ(job->sampling.top_p, 1);
  EXPECT_EQ(job->max_output_tokens, 256);
}

TEST(InferMessagesTest, RefusesWhatNoJobCanHave) {
  v1::InferRequest request = FullRequest();
  request.mutable_messages(0)->mutable_segments(0)->mutable_chunk()->mutable_chunk()->set_key("short");
  EXPECT_TRUE(absl::IsInvalidArgument(Convert(request).status()));
  EXPECT_THAT(std::string(Convert(request).status().message()), HasSubstr("manual"));

  request = FullRequest();
  request.mutable_messages(0)->add_segments();
  EXPECT_TRUE(absl::IsInvalidArgument(Convert(request).status()));

  request = FullRequest();
  request.mutable_context()->set_tenant("a tenant\n");
  EXPECT_TRUE(absl::IsInvalidArgument(Convert(request).status()));
  EXPECT_THAT(std::string(Convert(request).status().message()), HasSubstr("context.tenant"));
}

TEST(InferMessagesTest, TokensCarryLogprobsWhereAsked) {
  GeneratedToken token;
  token.id = 5;
  token.text = "a";
  token.logprob = -1;
  token.top = {{5, -1.0F}, {6, -2.0F}};
  GeneratedToken tail;
  tail.id = GeneratedToken::kNoToken;
  tail.text = "b";
  v1::GenerateResponse response = TokensToResponse({token, tail}, true);
  EXPECT_EQ(response.text(), "ab");
  ASSERT_EQ(response.tokens_size(), 1) << "text without a token is text alone";
  EXPECT_EQ(response.tokens(0).token_id(), 5);
  EXPECT_EQ(response.tokens(0).logprob(), -1);
  ASSERT_EQ(response.tokens(0).top_size(), 2);
  EXPECT_EQ(response.tokens(0).top(1).token_id(), 6);
  response = TokensToResponse({token}, false);
  EXPECT_EQ(response.tokens(0).top_size(), 0);
  EXPECT_FALSE(response.has_final());
}

TEST(InferMessagesTest, FinalCarriesUsageTimingAndPlan) {
  JobFinal final;
  final.finish_reason = FinishReason::kLength;
  final.linker = "naive";
  final.stats.prompt_tokens = 10;
  final.stats.cached_tokens = 8;
  final.stats.recomputed_tokens = 2.6;
  final.stats.selected_tokens = 2;
  final.stats.prefix_hit_tokens = 5;
  final.stats.completion_tokens = 4;
  final.timing = {.queue_us = 1,
                  .lookup_us = 2,
                  .load_us = 3,
                  .compile_us = 4,
                  .link_us = 5,
                  .first_token_us = 6,
                  .ttft_us = 7,
                  .total_us = 8,
                  .bytes_pulled = 9};
  ChunkPlanEntry entry;
  entry.document_id = "manual";
  entry.source = ChunkSource::kHeldByNode;
  final.plan.push_back(entry);
  const v1::GenerateResponse response = FinalToResponse(final);
  EXPECT_EQ(response.final().finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(response.final().linker(), "naive");
  const v1::Usage& usage = response.final().usage();
  EXPECT_EQ(usage.prompt_tokens(), 10);
  EXPECT_EQ(usage.cached_tokens(), 8);
  EXPECT_EQ(usage.recomputed_tokens(), 3);
  EXPECT_EQ(usage.selected_tokens(), 2);
  EXPECT_EQ(usage.reused_tokens(), 5);
  EXPECT_EQ(usage.completion_tokens(), 4);
  const v1::Timing& timing = response.final().timing();
  EXPECT_THAT((std::vector<int64_t>{timing.queue_us(), timing.lookup_us(), timing.load_us(), timing.compile_us(),
                                    timing.link_us(), timing.first_token_us(), timing.ttft_us(), timing.total_us(),
                                    timing.bytes_pulled()}),
              ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9));
  ASSERT_EQ(response.final().plan_size(), 1);
  EXPECT_EQ(response.final().plan(0).source(), "held by node");
  EXPECT_EQ(response.final().plan(0).key().size(), 32U);
}

TEST(InferMessagesTest, StatusAddsWhatIsOnItsWayToTheEngine) {
  FakeEngine engine;
  WorkerStatus status;
  status.engine.waiting_requests = 1;
  status.engine.queued_tokens = 100;
  status.loading_requests = 2;
  status.loading_rows = 50;
  status.shadow = {{"legolink:2", 20, 0.75, 0.5, "too far"}};
  const LinkerGate gate = *LinkerGate::Create({JudgeLinker("naive", "plain", 12, 0.5, 0.25, {})}, {"legolink:2"});
  const v1::GetWorkerStatusResponse response = StatusToResponse(status, engine, gate);
  ASSERT_EQ(response.linker_verdicts_size(), 1);
  EXPECT_EQ(response.linker_verdicts(0).linker(), "naive");
  EXPECT_EQ(response.linker_verdicts(0).recipe_id(), "plain");
  EXPECT_EQ(response.linker_verdicts(0).prompts(), 12);
  EXPECT_EQ(response.linker_verdicts(0).first_token_agreement(), 0.5);
  EXPECT_EQ(response.linker_verdicts(0).mean_kl(), 0.25);
  EXPECT_FALSE(response.linker_verdicts(0).passes());
  EXPECT_EQ(response.linker_verdicts(0).reason(), gate.verdicts()[0].reason);
  EXPECT_THAT(response.allowed_linkers(), ElementsAre("legolink:2"));
  ASSERT_EQ(response.shadow_size(), 1);
  EXPECT_EQ(response.shadow(0).linker(), "legolink:2");
  EXPECT_EQ(response.shadow(0).checks(), 20);
  EXPECT_EQ(response.shadow(0).first_token_agreement(), 0.75);
  EXPECT_EQ(response.shadow(0).mean_kl(), 0.5);
  EXPECT_EQ(response.shadow(0).problem(), "too far");
  EXPECT_EQ(response.waiting_requests(), 3);
  EXPECT_EQ(response.queued_tokens(), 150);
  EXPECT_EQ(response.sink_token_ids_size(), 4);
  EXPECT_EQ(response.model().fingerprint(), engine.fingerprint_hex());
  EXPECT_EQ(response.model().chat_template(), "angle");
  const KvShape& shape = kSmallSyntheticShape;
  EXPECT_EQ(response.model().kv_bytes_per_token(), 2 * shape.layers * shape.kv_heads * shape.head_dim * 2);
}

}  // namespace
}  // namespace epic
