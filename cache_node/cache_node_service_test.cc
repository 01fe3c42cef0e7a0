// The services of a cache node on a real socket: codes, sentences, streams, leases and the server around them.
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cache_node/cache_node.h"
#include "cache_node/cache_service.h"
#include "cache_node/harness_server.h"
#include "core/limits.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

std::unique_ptr<grpc::ClientContext> NewContext() { return MakeClientContext(Soon()); }

v1::CreateDocumentRequest TextDocument(const std::string& id, const std::string& text) {
  v1::CreateDocumentRequest request;
  request.set_document_id(id);
  request.set_text(text);
  return request;
}

grpc::Status Create(ServiceHarness& harness, const v1::CreateDocumentRequest& request,
                    v1::CreateDocumentResponse* response) {
  return harness.documents().CreateDocument(NewContext().get(), request, response);
}

// Everything that a watch says, and how it ended.
std::pair<grpc::Status, std::vector<v1::Document>> Watch(ServiceHarness& harness, const std::string& id) {
  const auto context = NewContext();
  v1::WatchDocumentRequest request;
  request.set_document_id(id);
  const auto reader = harness.documents().WatchDocument(context.get(), request);
  std::vector<v1::Document> documents;
  v1::WatchDocumentResponse response;
  while (reader->Read(&response)) documents.push_back(response.document());
  return {reader->Finish(), documents};
}

v1::LocateRequest LocateRequestFor(const std::vector<int32_t>& tokens) {
  const LocateQuery query = SyntheticQuery({tokens});
  v1::LocateRequest request;
  request.set_model_fingerprint(query.model_fingerprint_hex);
  request.mutable_recipe()->set_id("plain");
  v1::ChunkRef* chunk = request.add_chunks();
  chunk->set_key(std::string(query.chunks[0].key.AsBytes()));
  chunk->mutable_token_ids()->Add(tokens.begin(), tokens.end());
  request.set_compile_missing(true);
  return request;
}

TEST(DocumentService, ADocumentsWholeLife) {
  ServiceHarness harness;
  v1::CreateDocumentRequest create = TextDocument("report", std::string(40, 'x') + " end.");
  create.mutable_context()->set_tenant("blue");
  (*create.mutable_labels())["kind"] = "report";
  v1::CreateDocumentResponse created;
  ASSERT_TRUE(Create(harness, create, &created).ok());
  EXPECT_TRUE(created.created());
  EXPECT_EQ(created.document().tenant(), "blue");
  EXPECT_EQ(created.document().text_bytes(), 45);
  EXPECT_EQ(created.document().model_fingerprint(), std::string(64, 'a'));
  ASSERT_TRUE(Create(harness, create, &created).ok());
  EXPECT_FALSE(created.created());

  v1::GetDocumentRequest get;
  *get.mutable_context() = create.context();
  get.set_document_id("report");
  get.set_include_text(true);
  v1::GetDocumentResponse got;
  ASSERT_TRUE(harness.documents().GetDocument(NewContext().get(), get, &got).ok());
  EXPECT_EQ(got.text(), create.text());
  EXPECT_EQ(got.document().labels().at("kind"), "report");

  v1::ListDocumentsRequest list;
  v1::ListDocumentsResponse listed;
  ASSERT_TRUE(harness.documents().ListDocuments(NewContext().get(), list, &listed).ok());
  EXPECT_EQ(listed.documents_size(), 0);  // the tenant "default" has none
  *list.mutable_context() = create.context();
  ASSERT_TRUE(harness.documents().ListDocuments(NewContext().get(), list, &listed).ok());
  ASSERT_EQ(listed.documents_size(), 1);
  EXPECT_EQ(listed.documents(0).id(), "report");

  v1::DeleteDocumentRequest remove;
  *remove.mutable_context() = create.context();
  remove.set_document_id("report");
  v1::DeleteDocumentResponse removed;
  ASSERT_TRUE(harness.documents().DeleteDocument(NewContext().get(), remove, &removed).ok());
  EXPECT_EQ(harness.documents().DeleteDocument(NewContext().get(), remove, &removed).error_code(),
            StatusCode::NOT_FOUND);
}

TEST(DocumentService, RefusalsHaveTheirCodeAndSentence) {
  ServiceHarness harness;
  v1::CreateDocumentResponse created;
  ASSERT_TRUE(Create(harness, TextDocument("a", "the first text"), &created).ok());
  const auto refused = [&](const v1::CreateDocumentRequest& request, StatusCode code, const std::string& words) {
    const grpc::Status status = Create(harness, request, &created);
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(words));
  };
  refused(TextDocument("a", "the second text"), StatusCode::ALREADY_EXISTS, "\"a\" exists with other content");
  refused(TextDocument("b", ""), StatusCode::INVALID_ARGUMENT, "text is empty");
  refused(TextDocument("", "text"), StatusCode::INVALID_ARGUMENT, "document_id");
  refused(TextDocument("b", std::string(kDocumentTextBytesMax + 1, 'x')), StatusCode::INVALID_ARGUMENT, "4194304");
  // gRPC itself refuses a message whose string is not UTF-8, before any handler sees it.
  refused(TextDocument("b", "caf\xe9 au lait"), StatusCode::INTERNAL, "");
  v1::CreateDocumentRequest nothing;
  nothing.set_document_id("b");
  refused(nothing, StatusCode::INVALID_ARGUMENT, "content is empty");
  v1::CreateDocumentRequest tenant = TextDocument("b", "text");
  tenant.mutable_context()->set_tenant("a tenant");
  refused(tenant, StatusCode::INVALID_ARGUMENT, "tenant");
  v1::CreateDocumentRequest foreign;
  foreign.set_document_id("b");
  foreign.mutable_token_ids()->add_ids(1);
  foreign.mutable_token_ids()->set_model_fingerprint(std::string(64, 'f'));
  refused(foreign, StatusCode::FAILED_PRECONDITION, std::string(64, 'f'));

  v1::ListDocumentsRequest list;
  list.set_page_size(1001);
  v1::ListDocumentsResponse listed;
  EXPECT_EQ(harness.documents().ListDocuments(NewContext().get(), list, &listed).error_code(),
            StatusCode::INVALID_ARGUMENT);
  v1::GetDocumentRequest get;
  get.set_document_id("nope");
  v1::GetDocumentResponse got;
  const grpc::Status absent = harness.documents().GetDocument(NewContext().get(), get, &got);
  EXPECT_EQ(absent.error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(absent.error_message(), "document \"nope\" does not exist");
  EXPECT_EQ(harness.server().node().Status()->documents, 1);
}

TEST(DocumentService, AWatchTellsProgressAndEndsWhenReady) {
  ServiceHarness harness({.shape = kSmallSyntheticShape, .paused = true});
  v1::CreateDocumentRequest request;
  request.set_document_id("a");
  for (int32_t id : TokenRange(100, 48)) request.mutable_token_ids()->add_ids(id);
  v1::CreateDocumentResponse created;
  ASSERT_TRUE(Create(harness, request, &created).ok());
  const auto context = NewContext();
  v1::WatchDocumentRequest watch;
  watch.set_document_id("a");
  const auto reader = harness.documents().WatchDocument(context.get(), watch);
  v1::WatchDocumentResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.document().state(), v1::DOCUMENT_STATE_COMPILING);
  EXPECT_EQ(response.document().compiled_chunk_count(), 0);
  EXPECT_EQ(response.document().chunk_count(), 3);
  harness.compiler().Resume();
  int32_t compiled = 0;
  while (reader->Read(&response)) {
    EXPECT_GT(response.document().compiled_chunk_count(), compiled);
    compiled = response.document().compiled_chunk_count();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(response.document().state(), v1::DOCUMENT_STATE_READY);
  EXPECT_EQ(response.document().resident_chunk_count(), 3);
  // Once ready, a watch is one message.
  const auto [status, documents] = Watch(harness, "a");
  EXPECT_TRUE(status.ok());
  ASSERT_EQ(documents.size(), 1u);
}

TEST(DocumentService, AWatchEndsWithFailureDeletionAndAbsence) {
  ServiceHarness harness({.shape = kSmallSyntheticShape});
  EXPECT_EQ(Watch(harness, "nope").first.error_code(), StatusCode::NOT_FOUND);
  harness.compiler().FailTokens('b', absl::InternalError("the multiplier melted"));
  v1::CreateDocumentResponse created;
  ASSERT_TRUE(Create(harness, TextDocument("bad", "bad"), &created).ok());
  const auto [status, documents] = Watch(harness, "bad");
  EXPECT_TRUE(status.ok());
  ASSERT_FALSE(documents.empty());
  EXPECT_EQ(documents.back().state(), v1::DOCUMENT_STATE_FAILED);
  EXPECT_THAT(documents.back().state_reason(), HasSubstr("melted"));

  harness.compiler().Pause();
  ASSERT_TRUE(Create(harness, TextDocument("gone", "gone"), &created).ok());
  const auto context = NewContext();
  v1::WatchDocumentRequest watch;
  watch.set_document_id("gone");
  const auto reader = harness.documents().WatchDocument(context.get(), watch);
  v1::WatchDocumentResponse response;
  ASSERT_TRUE(reader->Read(&response));
  v1::DeleteDocumentRequest remove;
  remove.set_document_id("gone");
  v1::DeleteDocumentResponse removed;
  ASSERT_TRUE(harness.documents().DeleteDocument(NewContext().get(), remove, &removed).ok());
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::NOT_FOUND);
}

TEST(DocumentService, AWatchEndsWithItsDeadlineItsClientAndItsServer) {
  ServiceHarness harness({.shape = kSmallSyntheticShape, .paused = true});
  v1::CreateDocumentResponse created;
  ASSERT_TRUE(Create(harness, TextDocument("a", "waits"), &created).ok());
  v1::WatchDocumentRequest watch;
  watch.set_document_id("a");
  v1::WatchDocumentResponse response;
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
    const auto reader = harness.documents().WatchDocument(&context, watch);
    while (reader->Read(&response)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), StatusCode::DEADLINE_EXCEEDED);
  }
  {
    grpc::ClientContext context;
    const auto reader = harness.documents().WatchDocument(&context, watch);
    ASSERT_TRUE(reader->Read(&response));
    context.TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  }
  grpc::ClientContext context;
  const auto reader = harness.documents().WatchDocument(&context, watch);
  ASSERT_TRUE(reader->Read(&response));
  // A long grace that the watch must not use up.
  harness.server().Shutdown(std::chrono::hours(1));
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::UNAVAILABLE);
}

TEST(DocumentService, ResolvingNamesTheHomeOfEachChunk) {
  ServiceHarness harness;
  v1::CreateDocumentResponse created;
  ASSERT_TRUE(Create(harness, TextDocument("a", "some text of one chunk"), &created).ok());
  ASSERT_TRUE(Watch(harness, "a").first.ok());
  v1::ResolveDocumentsRequest request;
  request.add_document_ids("a");
  request.set_recipe_id("plain");
  request.set_model_fingerprint(std::string(64, 'a'));
  v1::ResolveDocumentsResponse response;
  ASSERT_TRUE(harness.documents().ResolveDocuments(NewContext().get(), request, &response).ok());
  ASSERT_EQ(response.documents_size(), 1);
  const v1::ResolvedChunk& chunk = response.documents(0).chunks(0);
  EXPECT_EQ(chunk.home(), harness.server().address());
  EXPECT_TRUE(chunk.resident());
  const std::vector<int32_t> tokens(chunk.token_ids().begin(), chunk.token_ids().end());
  EXPECT_EQ(chunk.key(), std::string(SyntheticQuery({tokens}).chunks[0].key.AsBytes()));
  request.set_model_fingerprint(std::string(64, 'b'));
  EXPECT_EQ(harness.documents().ResolveDocuments(NewContext().get(), request, &response).error_code(),
            StatusCode::FAILED_PRECONDITION);
}

TEST(CacheService, RefusesWithItsCodes) {
  ServiceHarness harness;
  v1::LocateResponse located;
  const v1::LocateRequest good = LocateRequestFor(TokenRange(1, 16));
  const auto refused = [&](auto change, StatusCode code, const std::string& words) {
    v1::LocateRequest request = good;
    change(request);
    const grpc::Status status = harness.cache().Locate(NewContext().get(), request, &located);
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(words));
  };
  refused([](v1::LocateRequest& r) { r.set_model_fingerprint(std::string(64, 'b')); }, StatusCode::FAILED_PRECONDITION,
          std::string(64, 'b'));
  refused([](v1::LocateRequest& r) { r.mutable_chunks(0)->set_key("short"); }, StatusCode::INVALID_ARGUMENT,
          "chunks[0].key has 5 bytes, expected 32");
  refused([](v1::LocateRequest& r) { r.mutable_chunks(0)->set_token_ids(0, 9); }, StatusCode::INVALID_ARGUMENT,
          "chunks[0].key is");
  refused([](v1::LocateRequest& r) { r.set_lease_ms(-1); }, StatusCode::INVALID_ARGUMENT, "lease_ms is -1");
  refused([](v1::LocateRequest& r) { r.set_lease_ms(kLeaseMsMax + 1); }, StatusCode::INVALID_ARGUMENT, "lease_ms");

  v1::ReadBlockRequest read;
  read.set_lease_id(12345);
  v1::ReadBlockResponse piece;
  auto context = NewContext();
  auto reader = harness.cache().ReadBlock(context.get(), read);
  EXPECT_FALSE(reader->Read(&piece));
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::NOT_FOUND);

  ASSERT_TRUE(harness.cache().Locate(NewContext().get(), good, &located).ok());
  read.set_lease_id(located.chunks(0).lease_id());
  read.set_edition(located.chunks(0).edition() + 1);
  context = NewContext();
  reader = harness.cache().ReadBlock(context.get(), read);
  EXPECT_FALSE(reader->Read(&piece));
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::FAILED_PRECONDITION);
}

TEST(CacheService, AnExpiredLeaseCannotBeReadAndHoldsNothing) {
  ServiceHarness harness;
  v1::LocateRequest request = LocateRequestFor(TokenRange(1, 16));
  request.set_lease_ms(1);
  v1::LocateResponse located;
  ASSERT_TRUE(harness.cache().Locate(NewContext().get(), request, &located).ok());
  // The housekeeper ends it without being asked.
  while (harness.server().node().StoreStats().leases != 0) std::this_thread::yield();
  v1::ReadBlockRequest read;
  read.set_lease_id(located.chunks(0).lease_id());
  read.set_edition(located.chunks(0).edition());
  const auto context = NewContext();
  const auto reader = harness.cache().ReadBlock(context.get(), read);
  v1::ReadBlockResponse piece;
  EXPECT_FALSE(reader->Read(&piece));
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::NOT_FOUND);
}

TEST(CacheService, AReaderThatStopsReadingIsCutOffWhenItsTimeIsOver) {
  NodeHarness harness({.compiler = {.shape = kSyntheticShape}, .capacity_bytes = size_t{64} << 20});
  CacheServiceImpl service(&harness.node(), {});
  const auto server = GrpcServer::Start({}, {&service});
  ASSERT_TRUE(server.ok()) << server.status();
  const auto stub = v1::CacheService::NewStub(CreateNetworkChannel((*server)->address()));
  // More bytes than the connection takes in before its reader has to read.
  v1::LocateResponse located;
  ASSERT_TRUE(stub->Locate(NewContext().get(), LocateRequestFor(TokenRange(1, 1024)), &located).ok());
  EXPECT_GT(located.chunks(0).block_bytes(), 20 << 20);
  v1::ReadBlockRequest read;
  read.set_lease_id(located.chunks(0).lease_id());
  read.set_edition(located.chunks(0).edition());
  grpc::ClientContext context;
  const auto reader = stub->ReadBlock(&context, read);
  v1::ReadBlockResponse piece;
  ASSERT_TRUE(reader->Read(&piece));
  service.Tick(std::chrono::steady_clock::now() + std::chrono::hours(1));
  while (reader->Read(&piece)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  while (harness.node().StoreStats().leases != 0) std::this_thread::yield();
}

TEST(CacheService, StatusAndMetricsSayWhatTheNodeHolds) {
  ServiceHarness harness;
  v1::CreateDocumentResponse created;
  ASSERT_TRUE(Create(harness, TextDocument("a", "a text"), &created).ok());
  ASSERT_TRUE(Watch(harness, "a").first.ok());
  v1::LocateResponse located;
  ASSERT_TRUE(harness.cache().Locate(NewContext().get(), LocateRequestFor(TokenRange(1, 16)), &located).ok());
  // A copy to disk holds its block as a reader does.
  ASSERT_TRUE(harness.server().node().tiers().WaitForWrites(Soon()));
  v1::GetNodeStatusResponse status;
  ASSERT_TRUE(harness.cache().GetNodeStatus(NewContext().get(), {}, &status).ok());
  EXPECT_EQ(status.model().name(), "synthetic");
  EXPECT_EQ(status.document_count(), 1);
  EXPECT_EQ(status.block_count(), 2);
  EXPECT_EQ(status.lease_count(), 1);
  EXPECT_EQ(status.compiled_chunks_total(), 2u);
  EXPECT_EQ(status.capacity_bytes(), 64 << 20);
  EXPECT_FALSE(status.version().empty());
  const std::string text = harness.metrics().TextExposition();
  EXPECT_THAT(text, HasSubstr("epic_cache_node_kv_blocks 2"));
  EXPECT_THAT(text, HasSubstr("epic_cache_node_compiled_chunks_total 2"));
  EXPECT_THAT(text, HasSubstr("epic_cache_node_leases 1"));
  v1::ReleaseRequest release;
  release.add_lease_ids(located.chunks(0).lease_id());
  release.add_lease_ids(99);  // unknown ids are ignored
  v1::ReleaseResponse released;
  ASSERT_TRUE(harness.cache().Release(NewContext().get(), release, &released).ok());
  EXPECT_EQ(harness.server().node().StoreStats().leases, 0u);
}

TEST(CacheNodeServer, IsHealthyAndRefusesASecondOnItsFolderOrPort) {
  ServiceHarness harness;
  EXPECT_TRUE(CheckHealth(harness.channel().get(), "", Soon()).ok());
  EXPECT_TRUE(CheckHealth(harness.channel().get(), "epic.v1.CacheService", Soon()).ok());
  const auto compiler = std::make_shared<FakeCompiler>(FakeCompiler::Options{.shape = kSyntheticShape});
  const auto same_folder =
      CacheNodeServer::Create(ServiceHarness::OptionsFor(harness.folder()), compiler, {}, nullptr).status();
  EXPECT_EQ(same_folder.code(), absl::StatusCode::kFailedPrecondition) << same_folder;
  EXPECT_THAT(std::string(same_folder.message()), HasSubstr(harness.folder()));
  const std::string other_folder = FreshFolder();
  CacheNodeServerOptions options = ServiceHarness::OptionsFor(other_folder);
  options.server.listen_address = harness.server().address();
  const auto same_port = CacheNodeServer::Create(options, compiler, {}, nullptr).status();
  EXPECT_EQ(same_port.code(), absl::StatusCode::kFailedPrecondition) << same_port;
  EXPECT_THAT(std::string(same_port.message()), HasSubstr(harness.server().address()));
  std::filesystem::remove_all(other_folder);
}

TEST(CacheNodeServer, OptionsAreRefusedWithFieldValueAndLimit) {
  CacheNodeServerOptions options;
  options.server.listen_address = "0.0.0.0:7401";
  options.chunk_tokens = 3;
  options.kv_capacity_bytes = 10;
  const std::string problems(options.Validate().message());
  EXPECT_THAT(problems, HasSubstr("advertise is empty while listen is 0.0.0.0:7401"));
  EXPECT_THAT(problems, HasSubstr("data-dir is empty"));
  EXPECT_THAT(problems, HasSubstr("chunk-tokens is 3, expected 16 to 4096"));
  EXPECT_THAT(problems, HasSubstr("10 bytes"));
  const FakeCompiler compiler({.shape = kSyntheticShape});
  options.chunk_tokens = 4096;
  EXPECT_THAT(std::string(options.ValidateFor(compiler).message()), HasSubstr("the model's context has 8192"));
  options.chunk_tokens = 512;
  options.kv_capacity_bytes = 1 << 20;
  EXPECT_THAT(std::string(options.ValidateFor(compiler).message()), HasSubstr("kv-capacity-bytes is 1048576"));
}

}  // namespace
}  // namespace epic
