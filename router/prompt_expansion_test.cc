#include "router/prompt_expansion.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "core/limits.h"

namespace epic {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::GenerateRequest ChatRequest() {
  v1::GenerateRequest request;
  v1::ChatMessage* message = request.mutable_chat()->add_messages();
  message->set_role("user");
  message->add_segments()->mutable_document()->set_document_id("manual");
  message->add_segments()->set_text("When does the ferry leave?");
  return request;
}

v1::ModelInfo Model() {
  v1::ModelInfo model;
  model.set_name("tiny");
  model.set_fingerprint("f00d");
  model.set_vocab_size(100);
  model.set_context_length(64);
  return model;
}

// Documents "manual" (3 chunks of 10 tokens) and "minutes" (1 chunk, the same as the manual's first).
v1::ResolveDocumentsResponse Resolved() {
  v1::ResolveDocumentsResponse resolved;
  for (const auto& [id, chunks] : {std::pair<std::string, int>{"manual", 3}, {"minutes", 1}}) {
    v1::ResolvedDocument* document = resolved.add_documents();
    document->set_document_id(id);
    document->mutable_recipe()->set_id("plain");
    for (int i = 0; i < chunks; ++i) {
      v1::ResolvedChunk* chunk = document->add_chunks();
      chunk->set_key(std::string(32, static_cast<char>('a' + i)));
      for (int t = 0; t < 10; ++t) chunk->add_token_ids(i * 10 + t);
      chunk->set_home("node:1");
      chunk->set_block_bytes(1000 + i);
    }
  }
  return resolved;
}

TEST(ValidateGenerateRequestTest, AGoodRequestPasses) {
  EXPECT_TRUE(ValidateGenerateRequest(ChatRequest()).ok());
  v1::GenerateRequest raw;
  raw.mutable_raw()->add_segments()->mutable_token_ids()->add_ids(3);
  EXPECT_TRUE(ValidateGenerateRequest(raw).ok());
}

TEST(ValidateGenerateRequestTest, HostileRequestsNameFieldValueAndLimit) {
  struct Case {
    std::function<void(v1::GenerateRequest*)> spoil;
    std::string words;
  };
  const auto segment = [](v1::GenerateRequest* r) {
    return r->mutable_chat()->mutable_messages(0)->mutable_segments(0);
  };
  const std::vector<Case> cases = {
      {[](auto* r) { r->clear_prompt(); }, "prompt is absent"},
      {[](auto* r) { r->mutable_chat()->clear_messages(); }, "chat.messages is empty"},
      {[](auto* r) { r->mutable_raw(); }, "raw.segments is empty"},
      {[](auto* r) { r->mutable_chat()->mutable_messages(0)->set_role("root\n"); }, "role is \"root\\x0a\""},
      {[&](auto* r) { segment(r)->Clear(); }, "chat.messages[0].segments[0] is empty"},
      {[&](auto* r) { segment(r)->mutable_document()->set_document_id(""); }, "document_id is empty"},
      {[&](auto* r) { segment(r)->mutable_document()->set_document_id("../\x01"); }, "document.document_id"},
      {[&](auto* r) { segment(r)->mutable_document()->set_first_chunk(-1); }, "first_chunk is -1"},
      {[&](auto* r) { segment(r)->mutable_document()->set_chunk_count(-2); }, "chunk_count -2"},
      {[&](auto* r) { segment(r)->mutable_token_ids()->add_ids(-7); }, "token_ids has -7"},
      {[&](auto* r) { segment(r)->set_text(std::string(kPromptTextBytesMax + 1, 'x')); }, "8388608 bytes"},
      {[](auto* r) {
         for (size_t i = 0; i <= kPromptSegmentsMax; ++i) {
           r->mutable_chat()->mutable_messages(0)->add_segments()->set_text("x");
         }
       },
       "more than 4096 segments"},
      {[](auto* r) {
         for (size_t i = 0; i <= kPromptSegmentsMax; ++i) r->mutable_chat()->add_messages()->set_role("user");
       },
       "more than 4096 messages"},
      {[](auto* r) { r->set_linker("legolink:-1"); }, "legolink:-1"},
      {[](auto* r) { r->set_linker("legolnik:16"); }, "legolnik"},
      {[](auto* r) { r->mutable_sampling()->set_temperature(-0.5f); }, "temperature is -0.5"},
      {[](auto* r) { r->mutable_sampling()->set_temperature(std::nanf("")); }, "temperature is nan"},
      {[](auto* r) { r->mutable_sampling()->set_top_p(1.5f); }, "top_p is 1.5"},
      {[](auto* r) { r->mutable_sampling()->set_top_k(-1); }, "top_k is -1"},
      {[](auto* r) { r->mutable_sampling()->set_max_output_tokens(-3); }, "max_output_tokens is -3"},
      {[](auto* r) { r->mutable_sampling()->add_stop(std::string()); }, "has 0 bytes; expected 1 to 256"},
      {[](auto* r) { r->mutable_sampling()->add_stop(std::string(257, 's')); }, "has 257 bytes"},
      {[](auto* r) {
         for (int i = 0; i < 17; ++i) r->mutable_sampling()->add_stop(std::string("s"));
       },
       "has 17 strings; the limit is 16"},
      {[](auto* r) { r->mutable_continuation_token_ids()->Resize(4097, 1); }, "has 4097 ids; the limit is 4096"},
      {[](auto* r) { r->add_continuation_token_ids(-1); }, "continuation_token_ids has -1"},
      {[](auto* r) { r->set_top_logprobs(-1); }, "top_logprobs is -1"},
  };
  for (const Case& bad : cases) {
    v1::GenerateRequest request = ChatRequest();
    bad.spoil(&request);
    const absl::Status status = ValidateGenerateRequest(request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.words;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.words));
  }
}

TEST(ExpandPromptTest, DocumentsBecomeTheirChunksInPlace) {
  v1::GenerateRequest request = ChatRequest();
  request.mutable_context()->set_request_id("r1");
  request.mutable_sampling()->set_seed(9);
  request.set_explain(true);
  request.set_afresh(true);
  v1::DocumentRef* range = request.mutable_chat()->mutable_messages(0)->add_segments()->mutable_document();
  range->set_document_id("manual");
  range->set_first_chunk(1);
  range->set_chunk_count(1);
  request.mutable_chat()->mutable_messages(0)->add_segments()->mutable_document()->set_document_id("minutes");
  EXPECT_THAT(DocumentsOf(request), ElementsAre("manual", "minutes"));

  const auto expanded = ExpandPrompt(request, *Linker::Parse("legolink:4"), Model(), Resolved());
  ASSERT_TRUE(expanded.ok()) << expanded.status();
  const v1::InferRequest& infer = expanded->request;
  EXPECT_TRUE(infer.chat());
  EXPECT_TRUE(infer.explain());
  EXPECT_TRUE(infer.afresh());
  EXPECT_EQ(infer.context().request_id(), "r1");
  EXPECT_EQ(infer.sampling().seed(), 9u);
  EXPECT_EQ(infer.linker(), "legolink:4");
  EXPECT_EQ(infer.model_fingerprint(), "f00d");
  EXPECT_EQ(infer.recipe().id(), "plain");
  ASSERT_EQ(infer.messages_size(), 1);
  EXPECT_EQ(infer.messages(0).role(), "user");
  std::vector<std::string> shape;
  for (const v1::InferSegment& segment : infer.messages(0).segments()) {
    shape.push_back(segment.has_chunk()
                        ? fmt::format("{}{}", segment.chunk().document_id(), segment.chunk().chunk_index())
                        : "text");
  }
  EXPECT_THAT(shape, ElementsAre("manual0", "manual1", "manual2", "text", "manual1", "minutes0"));
  EXPECT_EQ(infer.messages(0).segments(4).chunk().chunk().token_ids(0), 10);
  // Bytes once for each distinct chunk; rows for each mention: five chunks of 4 rows, and about a quarter of the text.
  EXPECT_EQ(expanded->distinct_chunks.size(), 3u);
  EXPECT_EQ(expanded->chunk_bytes, 3003);
  EXPECT_NEAR(expanded->link_tokens, 5 * 4 + 26 / 4.0, 0.1);
}

// "manual" compiled as a whole: each chunk has seen those before it.
v1::ResolveDocumentsResponse ResolvedAsAWhole() {
  v1::ResolveDocumentsResponse resolved = Resolved();
  for (int i = 0; i < 3; ++i) resolved.mutable_documents(0)->mutable_chunks(i)->set_context_token_count(10 * i);
  return resolved;
}

TEST(ExpandPromptTest, ChunksComeWithWhatTheyHaveSeen) {
  v1::GenerateRequest request = ChatRequest();
  request.mutable_chat()->mutable_messages(0)->mutable_segments(0)->mutable_document()->set_first_chunk(1);
  v1::ResolveDocumentsResponse resolved = ResolvedAsAWhole();
  resolved.mutable_documents(0)->mutable_chunks(2)->set_context_token_count(10);  // its section begins with chunk 1
  const auto expanded = ExpandPrompt(request, *Linker::Parse("legolink:4"), Model(), resolved);
  ASSERT_TRUE(expanded.ok()) << expanded.status();
  const v1::InferMessage& message = expanded->request.messages(0);
  EXPECT_THAT(message.segments(0).chunk().context_token_ids(), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_THAT(message.segments(1).chunk().context_token_ids(), ElementsAre(10, 11, 12, 13, 14, 15, 16, 17, 18, 19));

  resolved.mutable_documents(0)->mutable_chunks(1)->set_context_token_count(11);
  const absl::Status status = ExpandPrompt(request, *Linker::Parse("naive"), Model(), resolved).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("chunk 1 of document \"manual\" has seen 11 tokens of 10"));
}

TEST(RecipesOfTest, AreThoseOfTheChunksThatThePromptNames) {
  v1::GenerateRequest request = ChatRequest();
  EXPECT_THAT(RecipesOf(request, Resolved()), ElementsAre("plain"));
  EXPECT_THAT(RecipesOf(request, ResolvedAsAWhole()), ElementsAre("document"));
  v1::DocumentRef* range = request.mutable_chat()->mutable_messages(0)->mutable_segments(0)->mutable_document();
  range->set_chunk_count(1);  // the first chunk has seen nothing
  EXPECT_THAT(RecipesOf(request, ResolvedAsAWhole()), ElementsAre("plain"));
  range->set_first_chunk(2);
  range->set_chunk_count(7);
  EXPECT_THAT(RecipesOf(request, ResolvedAsAWhole()), ElementsAre("document"));
}

TEST(ExpandPromptTest, OnlyTheFirstChunkOfARunIsRunAgain) {
  const auto rows = [](const v1::ResolveDocumentsResponse& resolved, const char* linker) {
    return ExpandPrompt(ChatRequest(), *Linker::Parse(linker), Model(), resolved)->link_tokens;
  };
  EXPECT_EQ(rows(Resolved(), "legolink:4") - rows(ResolvedAsAWhole(), "legolink:4"), 8);
  EXPECT_EQ(rows(Resolved(), "cacheblend:50"), rows(ResolvedAsAWhole(), "cacheblend:50"));
}

TEST(ExpandPromptTest, WorkAndBytesFollowTheLinker) {
  const auto link_tokens = [](const std::string& linker) {
    v1::GenerateRequest request;
    request.mutable_raw()->add_segments()->mutable_document()->set_document_id("manual");
    const auto expanded = ExpandPrompt(request, *Linker::Parse(linker), Model(), Resolved());
    EXPECT_EQ(expanded->chunk_bytes > 0, linker != "full" && linker != "prefix") << linker;
    EXPECT_FALSE(expanded->request.chat());
    return expanded->link_tokens;
  };
  EXPECT_EQ(link_tokens("full"), 30);
  EXPECT_EQ(link_tokens("prefix"), 30);
  EXPECT_EQ(link_tokens("naive"), 0);
  EXPECT_EQ(link_tokens("naive-last"), 0);
  EXPECT_EQ(link_tokens("cacheblend:20"), 6);
  EXPECT_EQ(link_tokens("random:20"), 6);
  EXPECT_EQ(link_tokens("legolink:4"), 12);
  EXPECT_EQ(link_tokens("legolink:1000"), 30);
}

TEST(ExpandPromptTest, WhatCannotRunIsRefused) {
  const Linker linker;
  struct Case {
    std::function<void(v1::RawPrompt*)> build;
    absl::StatusCode code;
    std::string words;
  };
  const auto document = [](v1::RawPrompt* raw, int first, int count) {
    v1::DocumentRef* reference = raw->add_segments()->mutable_document();
    reference->set_document_id("manual");
    reference->set_first_chunk(first);
    reference->set_chunk_count(count);
  };
  const int max = std::numeric_limits<int32_t>::max();
  const std::vector<Case> cases = {
      {[&](auto* raw) { document(raw, 3, 0); }, absl::StatusCode::kInvalidArgument, "\"manual\" has 3 chunks"},
      {[&](auto* raw) { document(raw, 1, 3); }, absl::StatusCode::kInvalidArgument, "range of 3 from chunk 1"},
      {[&](auto* raw) { document(raw, max, max); }, absl::StatusCode::kInvalidArgument, "is outside"},
      {[&](auto* raw) {
         for (int i = 0; i < 3; ++i) document(raw, 0, 0);
       },
       absl::StatusCode::kInvalidArgument, "at least 70 tokens; the context of model \"tiny\" is 64"},
      {[&](auto* raw) { raw->add_segments()->mutable_token_ids()->add_ids(100); }, absl::StatusCode::kInvalidArgument,
       "vocabulary ends at 99"},
      {[&](auto* raw) { raw->add_segments()->mutable_token_ids()->set_model_fingerprint("beef"); },
       absl::StatusCode::kFailedPrecondition, "token_ids are of model \"beef\"; the request runs on model f00d"},
  };
  for (const Case& bad : cases) {
    v1::GenerateRequest request;
    bad.build(request.mutable_raw());
    const absl::Status status = ExpandPrompt(request, linker, Model(), Resolved()).status();
    EXPECT_EQ(status.code(), bad.code) << bad.words;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.words));
  }
}

}  // namespace
}  // namespace epic
