// A cache node whose compiler is the real engine, on the tiny model of the golden tests.
#include "cache_node/engine_compiler.h"

#include <bit>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cache_node/cache_node.h"
#include "cache_node/cache_node_server.h"
#include "cache_node/node_harness.h"
#include "engine/cpu/kernels.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/model_info.h"

namespace epic {
namespace {

using testing::HasSubstr;

class EngineNode : public testing::Test {
 protected:
  void SetUp() override {
    const char* source_dir = std::getenv("EPIC_SOURCE_DIR");
    EngineOptions options;
    options.model_path = std::string(source_dir == nullptr ? "." : source_dir) + "/tests/golden/tiny/tiny.gguf";
    options.threads = 1;
    absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Create(options);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    folder_ = FreshFolder();
    Start();
  }
  void TearDown() override {
    server_.reset();
    std::filesystem::remove_all(folder_);
  }
  void Start() {
    server_.reset();
    CacheNodeServerOptions options;
    options.server.listen_address = "127.0.0.1:0";
    options.data_dir = folder_;
    options.chunk_tokens = 32;
    options.kv_capacity_bytes = size_t{64} << 20;
    options.protect_blocks = true;
    auto server = CacheNodeServer::Create(options, engine_, nullptr);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  absl::Status Register(const std::string& id, const std::string& text) {
    NewDocument document;
    document.id = id;
    document.text = text;
    return server_->node().CreateDocument(document, Soon()).status();
  }
  DocumentProgress WaitForEnd(const std::string& id) {
    uint64_t seen = 0;
    while (true) {
      const std::optional<DocumentProgress> progress = server_->node().Progress({"default", id});
      if (progress.has_value() && progress->phase != DocumentPhase::kCompiling) return *progress;
      seen = server_->node().WaitForChange(seen, Soon());
    }
  }
  LocateQuery QueryFor(const std::string& id, const std::string& recipe_id = "") {
    const auto resolved =
        server_->node().ResolveDocuments("", {id}, recipe_id, engine_->fingerprint_hex(), Soon()).value();
    LocateQuery query;
    query.model_fingerprint_hex = engine_->fingerprint_hex();
    query.recipe = resolved[0].recipe;
    std::vector<int32_t> before;
    for (const ResolvedDocument::Chunk& chunk : resolved[0].chunks) {
      query.chunks.push_back({chunk.key, chunk.token_ids, {before.end() - chunk.context_token_count, before.end()}});
      before.insert(before.end(), chunk.token_ids.begin(), chunk.token_ids.end());
    }
    return query;
  }

  std::shared_ptr<Engine> engine_;
  std::string folder_;
  std::unique_ptr<CacheNodeServer> server_;
};

std::string LongText() {
  std::string text;
  for (int i = 0; i < 60; ++i) text += "Valve " + std::to_string(i) + " is opened before <|im_end|> pump 7. ";
  return text;
}

TEST_F(EngineNode, CompilesADocumentAndServesItsBlocksVerified) {
  ASSERT_TRUE(Register("a", LongText()).ok());
  const DocumentProgress progress = WaitForEnd("a");
  ASSERT_EQ(progress.phase, DocumentPhase::kReady) << progress.reason;
  EXPECT_GT(progress.chunk_count, 4);
  const auto located = server_->provider()->Locate(QueryFor("a"), Soon());
  ASSERT_TRUE(located.ok()) << located.status();
  for (const BlockProvider::Located& block : *located) {
    EXPECT_EQ(block.origin, BlockOrigin::kHeld);
    EXPECT_TRUE(block.view->VerifyPayload().ok());
    EXPECT_EQ(block.view->info().shape, engine_->kv_shape());
    EXPECT_NE(block.view->Keys(0)[0], 0);
  }
}

// By a real model: what is compiled over blocks in place is what is compiled from all tokens, to the rounding of bf16.
TEST_F(EngineNode, ADocumentCompiledOverItsOwnBlocksIsTheDocumentCompiledFromTokens) {
  NewDocument document;
  document.id = "whole";
  document.text = LongText();
  document.recipe_id = "document";
  ASSERT_TRUE(server_->node().CreateDocument(document, Soon()).ok());
  ASSERT_EQ(WaitForEnd("whole").phase, DocumentPhase::kReady);
  LocateQuery query = QueryFor("whole", "document");
  const auto over_blocks = server_->provider()->Locate(query, Soon()).value();
  // The last chunk once more, of a document that nobody registered: its context has no blocks.
  query.chunks.erase(query.chunks.begin(), query.chunks.end() - 1);
  LocateQuery alone = query;
  alone.tenant = "other";
  const Recipe recipe = RecipeBehind(query.recipe, query.chunks[0].context_token_ids);
  alone.chunks[0].key = ComputeChunkKey(engine_->fingerprint_hex(), recipe, alone.tenant, query.chunks[0].token_ids);
  const auto from_tokens = server_->provider()->Locate(alone, Soon()).value();
  ASSERT_EQ(from_tokens[0].origin, BlockOrigin::kCompiled);
  const KvBlockView& a = *over_blocks.back().view;
  const KvBlockView& b = *from_tokens[0].view;
  ASSERT_EQ(a.info().recipe_id, "document");
  ASSERT_EQ(a.info().first_position, b.info().first_position);
  const auto widen = [](uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); };
  double difference = 0, size = 0;
  const size_t count = a.info().shape.MatrixBytes(a.padded_tokens()) / sizeof(uint16_t);
  for (int32_t layer = 0; layer < a.info().shape.layers; ++layer) {
    for (size_t i = 0; i < count; ++i) {
      difference += std::pow(widen(a.Keys(layer)[i]) - widen(b.Keys(layer)[i]), 2);
      difference += std::pow(widen(a.Values(layer)[i]) - widen(b.Values(layer)[i]), 2);
      size += std::pow(widen(b.Keys(layer)[i]), 2) + std::pow(widen(b.Values(layer)[i]), 2);
    }
  }
  EXPECT_GT(size, 0);
  // Half of bf16's last place, relatively; more where the processor's products round activations, too.
  EXPECT_LT(std::sqrt(difference / size), (SelectCpuKernels()->rounds_activations ? 1.5 : 1.0) / 256);
}

TEST_F(EngineNode, TheSameChunkAfterARestartIsTheSameEdition) {
  ASSERT_TRUE(Register("a", LongText()).ok());
  ASSERT_EQ(WaitForEnd("a").phase, DocumentPhase::kReady);
  const auto editions = [this] {
    std::vector<uint64_t> found;
    const auto located = server_->provider()->Locate(QueryFor("a"), Soon()).value();
    for (const BlockProvider::Located& block : located) found.push_back(block.view->edition());
    return found;
  };
  const std::vector<uint64_t> before = editions();
  Start();
  ASSERT_EQ(WaitForEnd("a").phase, DocumentPhase::kReady);
  EXPECT_EQ(editions(), before);
}

TEST_F(EngineNode, TextThatIsNotUtf8IsRefusedWithItsPlace) {
  const absl::Status status = Register("a", "caf\xe9 au lait");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("text: "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("3"));
}

TEST_F(EngineNode, ShutsDownInTheMiddleOfCompiling) {
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(Register("doc-" + std::to_string(i), std::to_string(i) + LongText()).ok());
  server_->Shutdown(std::chrono::milliseconds(0));
  server_.reset();
  // What was registered is there again and becomes READY.
  Start();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(WaitForEnd("doc-" + std::to_string(i)).phase, DocumentPhase::kReady);
}

TEST_F(EngineNode, DescribesItsModel) {
  const v1::ModelInfo model = ModelInfoOf(*engine_);
  EXPECT_EQ(model.fingerprint(), engine_->fingerprint_hex());
  EXPECT_EQ(model.kv_bytes_per_token(), 2 * 2 * model.layers() * model.kv_heads() * model.head_dim());
}

}  // namespace
}  // namespace epic
