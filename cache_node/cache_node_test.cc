// Documents on a node: registration, listing, deletion, restart, and what they are refused for.
#include "cache_node/cache_node.h"

#include <limits>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cache_node/node_harness.h"
#include "core/limits.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(CacheNode, ARegisteredDocumentIsCompiledInChunksAndReady) {
  NodeHarness harness;
  const auto created = harness.Create("a", TokenRange(100, 20));
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_TRUE(created->created);
  EXPECT_EQ(created->document.record.tenant, "default");
  EXPECT_EQ(created->document.progress.phase == DocumentPhase::kRegistered, false);
  const DocumentProgress progress = harness.WaitFor("a", DocumentPhase::kReady);
  EXPECT_EQ(progress.chunk_count, 3);
  EXPECT_EQ(progress.compiled_chunk_count, 3);
  EXPECT_EQ(progress.token_count, 20);
  EXPECT_EQ(harness.node().ResidentChunks({"default", "a"}), 3);
  EXPECT_THAT(harness.compiler().order(), ElementsAre(100, 108, 116));
}

TEST(CacheNode, TextIsTokenisedAndCutAndKept) {
  NodeHarness harness;
  ASSERT_TRUE(harness.CreateText("t", "One two three. Four five six <|im_end|> seven.").ok());
  harness.WaitFor("t", DocumentPhase::kReady);
  const auto info = harness.node().GetDocument("", "t", Soon());
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->record.text, "One two three. Four five six <|im_end|> seven.");
  EXPECT_EQ(info->progress.token_count, static_cast<int32_t>(info->record.text.size()));
  EXPECT_GT(info->progress.chunk_count, 1);
}

TEST(CacheNode, TheSameRegistrationAgainIsTheSameAndCompilesNothing) {
  NodeHarness harness;
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 16))->created);
  harness.WaitFor("a", DocumentPhase::kReady);
  const auto again = harness.Create("a", TokenRange(100, 16));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(again->created);
  EXPECT_EQ(again->document.progress.phase, DocumentPhase::kReady);
  EXPECT_EQ(harness.compiler().compiled_total(), 2);
}

TEST(CacheNode, AnotherTextUnderTheSameIdIsRefusedAndChangesNothing) {
  NodeHarness harness;
  ASSERT_TRUE(harness.CreateText("a", "the first text").ok());
  const auto other = harness.CreateText("a", "the second text");
  EXPECT_EQ(other.status().code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(Message(other.status()), HasSubstr("\"a\""));
  EXPECT_EQ(harness.node().GetDocument("", "a", Soon())->record.text, "the first text");
}

TEST(CacheNode, DocumentsThatShareChunksCompileThemOnce) {
  NodeHarness harness;
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 16)).ok());
  ASSERT_TRUE(harness.Create("same", TokenRange(100, 16)).ok());
  ASSERT_TRUE(harness.Create("longer", TokenRange(100, 24)).ok());
  harness.WaitFor("a", DocumentPhase::kReady);
  harness.WaitFor("same", DocumentPhase::kReady);
  harness.WaitFor("longer", DocumentPhase::kReady);
  EXPECT_THAT(harness.compiler().order(), ElementsAre(100, 108, 116));
}

TEST(CacheNode, AChunkTwiceInADocumentIsCompiledOnceAndCountedTwice) {
  NodeHarness harness;
  std::vector<int32_t> tokens = TokenRange(100, 8);
  tokens.insert(tokens.end(), tokens.begin(), tokens.begin() + 8);
  ASSERT_TRUE(harness.Create("a", tokens).ok());
  EXPECT_EQ(harness.WaitFor("a", DocumentPhase::kReady).compiled_chunk_count, 2);
  EXPECT_EQ(harness.compiler().compiled_total(), 1);
  ASSERT_TRUE(harness.node().DeleteDocument("", "a", Soon()).ok());
  EXPECT_EQ(harness.node().StoreStats().blocks, 0u);
}

TEST(CacheNode, TenantsDoNotMeet) {
  NodeHarness harness;
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 8), "blue").ok());
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 8), "green").ok());
  harness.WaitFor("a", DocumentPhase::kReady, "blue");
  harness.WaitFor("a", DocumentPhase::kReady, "green");
  // The salt is part of the key: the same content is compiled for each.
  EXPECT_EQ(harness.compiler().CompiledCount(100), 2);
  const absl::Status absent = harness.node().GetDocument("blue", "b", Soon()).status();
  const absl::Status others = harness.node().GetDocument("red", "a", Soon()).status();
  EXPECT_EQ(absent.code(), StatusCode::kNotFound);
  EXPECT_EQ(others.code(), StatusCode::kNotFound);
  EXPECT_EQ(Message(others), "document \"a\" does not exist");
  EXPECT_EQ(Message(absent), "document \"b\" does not exist");
  ASSERT_TRUE(harness.node().DeleteDocument("blue", "a", Soon()).ok());
  EXPECT_TRUE(harness.node().GetDocument("green", "a", Soon()).ok());
  EXPECT_EQ(harness.node().StoreStats().blocks, 1u);
}

TEST(CacheNode, BadInputIsRefusedWithFieldValueAndLimitAndNothingIsStored) {
  NodeHarness harness;
  const auto refused = [&](NewDocument document, StatusCode code, const std::string& words) {
    const auto created = harness.node().CreateDocument(document, Soon());
    EXPECT_EQ(created.status().code(), code) << created.status();
    EXPECT_THAT(Message(created.status()), HasSubstr(words));
  };
  NewDocument good;
  good.id = "a";
  good.text = "some text";
  const auto with = [&](auto change) {
    NewDocument document = good;
    change(document);
    return document;
  };
  refused(with([](NewDocument& d) { d.text = ""; }), StatusCode::kInvalidArgument, "text is empty");
  refused(with([](NewDocument& d) { d.text.reset(); }), StatusCode::kInvalidArgument, "content is empty");
  refused(with([](NewDocument& d) { d.text = std::string(kDocumentTextBytesMax + 1, 'x'); }),
          StatusCode::kInvalidArgument, "text has 4194305 bytes, the limit is 4194304");
  refused(with([](NewDocument& d) { d.text = "caf\xff"; }), StatusCode::kInvalidArgument, "text: byte 3 is not UTF-8");
  refused(with([](NewDocument& d) { d.text = std::string("ELF\0binary", 10); }), StatusCode::kInvalidArgument,
          "zero byte at offset 3");
  refused(with([](NewDocument& d) { d.id = ""; }), StatusCode::kInvalidArgument, "document_id");
  refused(with([](NewDocument& d) { d.id = std::string(kDocumentIdBytesMax + 1, 'x'); }), StatusCode::kInvalidArgument,
          "128");
  refused(with([](NewDocument& d) { d.id = "a b\n"; }), StatusCode::kInvalidArgument, "document_id");
  refused(with([](NewDocument& d) { d.tenant = std::string(kTenantBytesMax + 1, 'x'); }), StatusCode::kInvalidArgument,
          "tenant");
  refused(with([](NewDocument& d) { d.labels["k"] = std::string(kLabelBytesMax + 1, 'x'); }),
          StatusCode::kInvalidArgument, "labels");
  refused(with([](NewDocument& d) { d.ttl_ms = -1; }), StatusCode::kInvalidArgument, "ttl_ms is -1");
  refused(with([](NewDocument& d) { d.ttl_ms = std::numeric_limits<int64_t>::max(); }), StatusCode::kInvalidArgument,
          "ttl_ms is 9223372036854775807");
  const auto ids = [&](std::vector<int32_t> token_ids, const std::string& fingerprint = "") {
    return with([&](NewDocument& d) {
      d.text.reset();
      d.token_ids = token_ids;
      d.token_ids_model_fingerprint = fingerprint;
    });
  };
  refused(ids({}), StatusCode::kInvalidArgument, "token_ids is empty");
  refused(ids({1, -2}), StatusCode::kInvalidArgument, "token_ids[1] is -2, expected 0 to 4095");
  refused(ids({4096}), StatusCode::kInvalidArgument, "token_ids[0] is 4096, expected 0 to 4095");
  refused(ids(std::vector<int32_t>(kDocumentTokensMax + 1, 1)), StatusCode::kInvalidArgument,
          "1048577 tokens, the limit is 1048576");
  refused(ids({1, 2}, std::string(64, 'b')), StatusCode::kFailedPrecondition, std::string(64, 'a'));
  EXPECT_EQ(harness.node().Status()->documents, 0);
  EXPECT_TRUE(harness.node().ListDocuments("", 0, "", Soon())->documents.empty());
}

TEST(CacheNode, ADeadlineInThePastIsRefusedBeforeAnythingIsDone) {
  NodeHarness harness;
  const Deadline past = std::chrono::steady_clock::now() - std::chrono::seconds(1);
  NewDocument document;
  document.id = "a";
  document.text = "text";
  EXPECT_EQ(harness.node().CreateDocument(document, past).status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(harness.node().GetDocument("", "a", past).status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(harness.node().ListDocuments("", 0, "", past).status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(harness.node().DeleteDocument("", "a", past).code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(harness.node().Status()->documents, 0);
}

TEST(CacheNode, ListsInPagesInTheOrderOfIds) {
  NodeHarness harness;
  for (const char* id : {"c", "a", "e", "b", "d"}) ASSERT_TRUE(harness.Create(id, {1, 2, 3}).ok());
  ASSERT_TRUE(harness.Create("z", {1}, "other").ok());
  std::vector<std::string> ids;
  std::string token;
  int pages = 0;
  do {
    const auto page = harness.node().ListDocuments("", 2, token, Soon());
    ASSERT_TRUE(page.ok()) << page.status();
    for (const DocumentInfo& info : page->documents) ids.push_back(info.record.id);
    token = page->next_page_token;
    ++pages;
  } while (!token.empty());
  EXPECT_THAT(ids, ElementsAre("a", "b", "c", "d", "e"));
  EXPECT_EQ(pages, 3);
  // A page that is exactly full is the last one.
  EXPECT_EQ(harness.node().ListDocuments("", 5, "", Soon())->next_page_token, "");
  EXPECT_EQ(harness.node().ListDocuments("", -1, "", Soon()).status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(harness.node().ListDocuments("", 1001, "", Soon()).status()), HasSubstr("page_size is 1001"));
  EXPECT_EQ(harness.node().ListDocuments("", 1, "no token\n", Soon()).status().code(), StatusCode::kInvalidArgument);
}

TEST(CacheNode, DeletingFreesWhatNoOtherDocumentHas) {
  NodeHarness harness;
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 16)).ok());
  ASSERT_TRUE(harness.Create("b", TokenRange(100, 8)).ok());
  harness.WaitFor("a", DocumentPhase::kReady);
  harness.WaitFor("b", DocumentPhase::kReady);
  EXPECT_EQ(harness.node().StoreStats().blocks, 2u);
  ASSERT_TRUE(harness.node().DeleteDocument("", "a", Soon()).ok());
  EXPECT_EQ(harness.node().StoreStats().blocks, 1u);
  EXPECT_EQ(harness.node().ResidentChunks({"default", "b"}), 1);
  EXPECT_EQ(harness.node().DeleteDocument("", "a", Soon()).code(), StatusCode::kNotFound);
  ASSERT_TRUE(harness.node().DeleteDocument("", "b", Soon()).ok());
  EXPECT_EQ(harness.node().StoreStats().blocks, 0u);
}

TEST(CacheNode, ADocumentDeletedWhileItIsCompiledLeavesNothing) {
  NodeHarness harness({.compiler = {.shape = kSmallSyntheticShape, .paused = true}});
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 32)).ok());
  ASSERT_TRUE(harness.Create("marker", TokenRange(500, 8)).ok());
  harness.compiler().WaitForWaiting(2);
  ASSERT_TRUE(harness.node().DeleteDocument("", "a", Soon()).ok());
  harness.compiler().Resume();
  harness.WaitFor("marker", DocumentPhase::kReady);
  // What was with the compiler already came out and was dropped; the rest was never begun.
  EXPECT_THAT(harness.compiler().order(), ElementsAre(100, 108, 500));
  EXPECT_EQ(harness.node().StoreStats().blocks, 1u);
  EXPECT_EQ(harness.node().GetDocument("", "a", Soon()).status().code(), StatusCode::kNotFound);
  harness.Restart();
  EXPECT_EQ(harness.node().GetDocument("", "a", Soon()).status().code(), StatusCode::kNotFound);
}

TEST(CacheNode, ADeletedIdCanBeRegisteredAnewWithOtherContentWhileTheOldOneIsCompiled) {
  NodeHarness harness({.compiler = {.shape = kSmallSyntheticShape, .paused = true}});
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 32)).ok());
  harness.compiler().WaitForWaiting(2);
  ASSERT_TRUE(harness.node().DeleteDocument("", "a", Soon()).ok());
  ASSERT_TRUE(harness.Create("a", TokenRange(700, 16)).ok());
  harness.compiler().Resume();
  EXPECT_EQ(harness.WaitFor("a", DocumentPhase::kReady).chunk_count, 2);
  EXPECT_EQ(harness.node().ResidentChunks({"default", "a"}), 2);
}

TEST(CacheNode, AfterARestartDocumentsAreCompiledAgainInTheOrderOfRegistration) {
  NodeHarness harness;
  harness.now_unix_ms() = 1000;
  ASSERT_TRUE(harness.Create("z-first", TokenRange(100, 16)).ok());
  harness.now_unix_ms() = 2000;
  ASSERT_TRUE(harness.Create("a-second", TokenRange(300, 16)).ok());
  harness.WaitFor("a-second", DocumentPhase::kReady);
  harness.Restart();
  const DocumentProgress progress = harness.WaitFor("a-second", DocumentPhase::kReady);
  EXPECT_EQ(progress.compiled_chunk_count, 2);
  EXPECT_THAT(harness.compiler().order(), ElementsAre(100, 108, 300, 308));
  EXPECT_EQ(harness.node().GetDocument("", "z-first", Soon())->progress.phase, DocumentPhase::kReady);
}

TEST(CacheNode, UnderAnotherModelDocumentsAreRegisteredUntilTheyAreAskedFor) {
  NodeHarness harness;
  ASSERT_TRUE(harness.CreateText("text", "a text that outlives models").ok());
  ASSERT_TRUE(harness.Create("ids", TokenRange(100, 8)).ok());
  harness.WaitFor("text", DocumentPhase::kReady);
  // Synthetic blocks carry the synthetic model's fingerprint; the other model is the one they are registered under
  // here.
  harness.Restart({.fingerprint_hex = std::string(64, 'c'), .shape = kSmallSyntheticShape});
  EXPECT_EQ(harness.node().GetDocument("", "text", Soon())->progress.phase, DocumentPhase::kRegistered);
  EXPECT_EQ(harness.compiler().compiled_total(), 0);
  const auto asked = harness.node().AskForDocument("", "text", Soon());
  ASSERT_TRUE(asked.ok()) << asked.status();
  harness.WaitFor("text", DocumentPhase::kReady);
  // Token ids are bound to their model.
  const absl::Status bound = harness.node().AskForDocument("", "ids", Soon()).status();
  EXPECT_EQ(bound.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(bound), HasSubstr(std::string(64, 'a')));
  EXPECT_THAT(Message(bound), HasSubstr(std::string(64, 'c')));
  // Back under the first model nothing has to be asked for.
  harness.Restart({.shape = kSmallSyntheticShape});
  harness.WaitFor("text", DocumentPhase::kReady);
  harness.WaitFor("ids", DocumentPhase::kReady);
}

TEST(CacheNode, ResolvesDocumentsAndMakesListsForOtherRecipesOnDemand) {
  NodeHarness harness;
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 16)).ok());
  ASSERT_TRUE(harness.Create("b", TokenRange(300, 8)).ok());
  harness.WaitFor("b", DocumentPhase::kReady);
  const std::string fingerprint(64, 'a');
  const auto plain = harness.node().ResolveDocuments("", {"b", "a", "b"}, "plain", fingerprint, Soon());
  ASSERT_TRUE(plain.ok()) << plain.status();
  ASSERT_EQ(plain->size(), 3u);
  EXPECT_EQ((*plain)[0].id, "b");
  EXPECT_EQ((*plain)[1].chunks.size(), 2u);
  EXPECT_EQ((*plain)[1].chunks[1].token_ids, TokenRange(108, 8));
  EXPECT_EQ((*plain)[1].chunks[1].block_bytes, KvBlockBytes(kSmallSyntheticShape, 8));
  EXPECT_TRUE((*plain)[1].chunks[1].resident);
  const auto sink = harness.node().ResolveDocuments("", {"a"}, "sink4", fingerprint, Soon());
  ASSERT_TRUE(sink.ok()) << sink.status();
  EXPECT_EQ((*sink)[0].recipe.prefix_tokens, (std::vector<int32_t>{1, 2, 3, 4}));
  EXPECT_NE((*sink)[0].chunks[0].key, (*plain)[1].chunks[0].key);
  // The list was stored: after a restart its chunks are compiled without being asked for.
  harness.Restart();
  uint64_t seen = 0;
  while (harness.compiler().CompiledCount(100) < 2) seen = harness.node().WaitForChange(seen, Soon());

  const auto absent = harness.node().ResolveDocuments("", {"a", "nope"}, "plain", fingerprint, Soon()).status();
  EXPECT_EQ(absent.code(), StatusCode::kNotFound);
  EXPECT_THAT(Message(absent), HasSubstr("\"nope\""));
  EXPECT_EQ(harness.node().ResolveDocuments("", {"a"}, "nope", fingerprint, Soon()).status().code(),
            StatusCode::kInvalidArgument);
  const auto other = harness.node().ResolveDocuments("", {"a"}, "plain", std::string(64, 'd'), Soon()).status();
  EXPECT_EQ(other.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(other), HasSubstr(std::string(64, 'd')));
}

TEST(CacheNode, AFailedDocumentSaysWhyAndIsTriedAgainWhenAskedFor) {
  NodeHarness harness;
  harness.compiler().FailTokens(108, absl::InternalError("the multiplier melted"));
  ASSERT_TRUE(harness.Create("a", TokenRange(100, 24)).ok());
  EXPECT_EQ(harness.WaitFor("a", DocumentPhase::kFailed).reason, "the multiplier melted");
  EXPECT_EQ(harness.node().CompileStats().failures_total, 1u);
  harness.compiler().FailTokens(108, absl::OkStatus());
  ASSERT_TRUE(harness.node().AskForDocument("", "a", Soon()).ok());
  EXPECT_EQ(harness.WaitFor("a", DocumentPhase::kReady).compiled_chunk_count, 3);
  EXPECT_EQ(harness.compiler().CompiledCount(100), 1);
}

TEST(CacheNode, AnExpiredDocumentIsAbsentAtOnceAndSwept) {
  NodeHarness harness;
  NewDocument document;
  document.id = "a";
  document.token_ids = TokenRange(100, 8);
  document.ttl_ms = 500;
  harness.now_unix_ms() = 1000;
  ASSERT_TRUE(harness.node().CreateDocument(document, Soon()).ok());
  ASSERT_TRUE(harness.Create("stays", TokenRange(300, 8)).ok());
  harness.WaitFor("a", DocumentPhase::kReady);
  harness.WaitFor("stays", DocumentPhase::kReady);
  harness.now_unix_ms() = 1499;
  EXPECT_TRUE(harness.node().GetDocument("", "a", Soon()).ok());
  harness.now_unix_ms() = 1500;
  EXPECT_EQ(harness.node().GetDocument("", "a", Soon()).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(harness.node().DeleteDocument("", "a", Soon()).code(), StatusCode::kNotFound);
  EXPECT_EQ(harness.node().ResolveDocuments("", {"a"}, "plain", std::string(64, 'a'), Soon()).status().code(),
            StatusCode::kNotFound);
  // It takes no room on a page.
  const auto page = harness.node().ListDocuments("", 1, "", Soon());
  ASSERT_EQ(page->documents.size(), 1u);
  EXPECT_EQ(page->documents[0].record.id, "stays");
  EXPECT_EQ(harness.node().Status()->documents, 2);
  harness.node().SweepExpired(Soon());
  EXPECT_EQ(harness.node().Status()->documents, 1);
  EXPECT_EQ(harness.node().StoreStats().blocks, 1u);
}

TEST(CacheNode, TheIdOfAnExpiredDocumentIsFree) {
  NodeHarness harness;
  NewDocument document;
  document.id = "a";
  document.token_ids = TokenRange(100, 8);
  document.ttl_ms = 500;
  ASSERT_TRUE(harness.node().CreateDocument(document, Soon()).ok());
  harness.WaitFor("a", DocumentPhase::kReady);
  harness.now_unix_ms() += 500;
  const auto anew = harness.Create("a", TokenRange(300, 8));
  ASSERT_TRUE(anew.ok()) << anew.status();
  EXPECT_TRUE(anew->created);
  harness.WaitFor("a", DocumentPhase::kReady);
  EXPECT_EQ(harness.compiler().CompiledCount(300), 1);
  harness.node().SweepExpired(Soon());
  EXPECT_TRUE(harness.node().GetDocument("", "a", Soon()).ok());
  EXPECT_EQ(harness.node().StoreStats().blocks, 1u);
}

TEST(CacheNode, ManyThreadsRegisterDeleteAndReadTheSameDocuments) {
  NodeHarness harness;
  constexpr int kThreads = 4;
  constexpr int kRounds = 40;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&harness, t] {
      for (int round = 0; round < kRounds; ++round) {
        const std::string id = "doc-" + std::to_string((round + t) % 3);
        const auto created = harness.Create(id, TokenRange(100 * ((round + t) % 3 + 1), 16));
        EXPECT_TRUE(created.ok()) << created.status();
        const auto got = harness.node().GetDocument("", id, Soon());
        EXPECT_TRUE(got.ok() || got.status().code() == StatusCode::kNotFound) << got.status();
        if (t % 2 == 0) {
          const absl::Status deleted = harness.node().DeleteDocument("", id, Soon());
          EXPECT_TRUE(deleted.ok() || deleted.code() == StatusCode::kNotFound) << deleted;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  // Memory and manifest agree in the end.
  for (int i = 0; i < 3; ++i) {
    const std::string id = "doc-" + std::to_string(i);
    ASSERT_TRUE(harness.Create(id, TokenRange(100 * (i + 1), 16)).ok());
    harness.WaitFor(id, DocumentPhase::kReady);
    ASSERT_TRUE(harness.node().DeleteDocument("", id, Soon()).ok());
    EXPECT_FALSE(harness.node().Progress({"default", id}).has_value());
  }
  EXPECT_EQ(harness.node().Status()->documents, 0);
  EXPECT_EQ(harness.node().StoreStats().blocks, 0u);
}

}  // namespace
}  // namespace epic
