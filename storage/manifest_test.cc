#include "storage/manifest.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "rocksdb/db.h"
#include "storage/manifest_testing.h"

namespace epic {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Ids(const std::vector<DocumentRecord>& documents) {
  std::vector<std::string> ids;
  for (const DocumentRecord& document : documents) ids.push_back(document.id);
  return ids;
}

class ManifestTest : public testing::Test {
 protected:
  void Reopen() {
    manifest_.reset();
    manifest_ = Manifest::Open(folder_.path()).value();
  }
  bool Put(const DocumentRecord& document) { return manifest_->PutDocument(document, nullptr).value(); }
  absl::Status OpenStatus() const { return Manifest::Open(folder_.path()).status(); }

  const TemporaryFolder folder_;
  std::unique_ptr<Manifest> manifest_ = Manifest::Open(folder_.path()).value();
};

TEST_F(ManifestTest, WhatWasPutIsThereAfterReopening) {
  const ChunkListRecord chunks = TestChunkList(1);
  EXPECT_TRUE(manifest_->PutDocument(TestDocument(1), &chunks).value());
  EXPECT_TRUE(Put(TestDocument(2)));
  ASSERT_TRUE(manifest_->PutChunkList("acme", TestDocument(2).id, TestChunkList(2, "sink4")).ok());
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(manifest_->GetDocument("acme", TestDocument(1).id).value(), TestDocument(1));
    EXPECT_EQ(manifest_->GetDocument("acme", TestDocument(2).id).value(), TestDocument(2));
    EXPECT_EQ(manifest_->GetChunkList("acme", TestDocument(1).id, TestFingerprint(), "plain")->keys, chunks.keys);
    EXPECT_EQ(manifest_->GetChunkList("acme", TestDocument(2).id, TestFingerprint(), "sink4")->token_ids,
              TestChunkList(2).token_ids);
    EXPECT_EQ(manifest_->CountDocuments().value(), 2);
    Reopen();
  }
}

TEST_F(ManifestTest, AbsentThingsAreNotFound) {
  Put(TestDocument(1));
  EXPECT_EQ(manifest_->GetDocument("acme", "none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(manifest_->GetDocument("other", TestDocument(1).id).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(manifest_->DeleteDocument("other", TestDocument(1).id).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(manifest_->GetChunkList("acme", TestDocument(1).id, TestFingerprint(), "plain").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ManifestTest, TheSameContentAgainChangesNothing) {
  EXPECT_TRUE(Put(TestDocument(1)));
  DocumentRecord again = TestDocument(1);
  again.created_unix_ms += 1000;
  EXPECT_FALSE(Put(again));
  EXPECT_EQ(manifest_->GetDocument("acme", again.id)->created_unix_ms, TestDocument(1).created_unix_ms);
  EXPECT_EQ(manifest_->CountDocuments().value(), 1);
}

TEST_F(ManifestTest, OtherContentUnderTheSameIdExistsAlready) {
  Put(TestDocument(1));
  for (const auto& change : std::vector<std::function<void(DocumentRecord&)>>{
           [](DocumentRecord& d) { d.text += "."; }, [](DocumentRecord& d) { d.labels.clear(); },
           [](DocumentRecord& d) { d.token_ids = {1}; }}) {
    DocumentRecord other = TestDocument(1);
    change(other);
    const absl::Status status = manifest_->PutDocument(other, nullptr).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
    EXPECT_THAT(std::string(status.message()), HasSubstr(other.id));
  }
  EXPECT_EQ(manifest_->GetDocument("acme", TestDocument(1).id).value(), TestDocument(1));
  DocumentRecord elsewhere = TestDocument(1);
  elsewhere.tenant = "other";
  elsewhere.text = "Other text.";
  EXPECT_TRUE(Put(elsewhere)) << "tenants have ids of their own";
}

TEST_F(ManifestTest, DeleteTakesTheChunkListsAlong) {
  const ChunkListRecord chunks = TestChunkList(1);
  for (const std::string id : {"a", "ab"}) {
    DocumentRecord document = TestDocument(1);
    document.id = id;
    ASSERT_TRUE(manifest_->PutDocument(document, &chunks).ok());
    ASSERT_TRUE(manifest_->PutChunkList("acme", id, TestChunkList(1, "sink4")).ok());
  }
  ASSERT_TRUE(manifest_->DeleteDocument("acme", "a").ok());
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(manifest_->GetDocument("acme", "a").status().code(), absl::StatusCode::kNotFound);
    for (const std::string recipe : {"plain", "sink4"}) {
      EXPECT_EQ(manifest_->GetChunkList("acme", "a", TestFingerprint(), recipe).status().code(),
                absl::StatusCode::kNotFound);
      EXPECT_TRUE(manifest_->GetChunkList("acme", "ab", TestFingerprint(), recipe).ok()) << "a longer id was hit";
    }
    EXPECT_EQ(manifest_->DeleteDocument("acme", "a").code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(manifest_->CountDocuments().value(), 1);
    Reopen();
  }
}

TEST_F(ManifestTest, ChunkListsOfADeletedDocumentAreRefused) {
  Put(TestDocument(1));
  ASSERT_TRUE(manifest_->DeleteDocument("acme", TestDocument(1).id).ok());
  EXPECT_EQ(manifest_->PutChunkList("acme", TestDocument(1).id, TestChunkList(1)).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(manifest_->GetChunkList("acme", TestDocument(1).id, TestFingerprint(), "plain").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ManifestTest, ListingsArePagedInTheOrderOfIdsAndKeepTenantsApart) {
  for (int i = 9; i >= 0; --i) Put(TestDocument(i));
  DocumentRecord other = TestDocument(3);
  for (const std::string tenant : {"acm", "acme2", "acmd"}) {
    other.tenant = tenant;
    Put(other);
  }
  std::vector<std::string> all;
  std::string after;
  while (true) {
    const std::vector<std::string> page = Ids(manifest_->ListDocuments("acme", after, 4).value());
    if (page.empty()) break;
    EXPECT_LE(page.size(), 4u);
    all.insert(all.end(), page.begin(), page.end());
    after = page.back();
  }
  std::vector<std::string> expected;
  for (int i = 0; i < 10; ++i) expected.push_back(TestDocument(i).id);
  EXPECT_EQ(all, expected);
  // A page may follow an id that was deleted meanwhile.
  ASSERT_TRUE(manifest_->DeleteDocument("acme", expected[3]).ok());
  EXPECT_THAT(Ids(manifest_->ListDocuments("acme", expected[3], 2).value()), ElementsAre(expected[4], expected[5]));
  EXPECT_TRUE(manifest_->ListDocuments("nobody", "", 5)->empty());
  EXPECT_EQ(manifest_->ListDocuments("acme", "", 0).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ManifestTest, ForEachVisitsTheChunkListsOfOneModelAndStopsAtAnError) {
  for (int i = 0; i < 5; ++i) {
    Put(TestDocument(i));
    ASSERT_TRUE(manifest_->PutChunkList("acme", TestDocument(i).id, TestChunkList(i)).ok());
    ChunkListRecord other_model = TestChunkList(i);
    other_model.model_fingerprint_hex = std::string(64, 'b');
    ASSERT_TRUE(manifest_->PutChunkList("acme", TestDocument(i).id, other_model).ok());
  }
  std::vector<std::string> ids;
  EXPECT_TRUE(
      manifest_
          ->ForEachChunkList(TestFingerprint(),
                             [&](const std::string& tenant, const std::string& id, const ChunkListRecord& chunks) {
                               EXPECT_EQ(tenant, "acme");
                               EXPECT_EQ(chunks.model_fingerprint_hex, TestFingerprint());
                               ids.push_back(id);
                               return absl::OkStatus();
                             })
          .ok());
  EXPECT_EQ(ids.size(), 5u);
  int visits = 0;
  EXPECT_EQ(manifest_
                ->ForEachChunkList(TestFingerprint(),
                                   [&](const std::string&, const std::string&, const ChunkListRecord&) {
                                     return ++visits == 2 ? absl::CancelledError("enough") : absl::OkStatus();
                                   })
                .code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(visits, 2);
}

TEST_F(ManifestTest, PinsAreKeptUntilTheyAreTakenAwayOrTheDocumentIs) {
  const auto pinned = [&] {
    std::vector<std::string> ids;
    EXPECT_TRUE(manifest_
                    ->ForEachPinned([&](const std::string& tenant, const std::string& id) {
                      ids.push_back(tenant + "/" + id);
                      return absl::OkStatus();
                    })
                    .ok());
    return ids;
  };
  for (const std::string id : {"a", "ab", "b"}) {
    DocumentRecord document = TestDocument(1);
    document.id = id;
    Put(document);
    EXPECT_FALSE(manifest_->IsPinned("acme", id).value());
    ASSERT_TRUE(manifest_->SetPinned("acme", id, true).ok());
  }
  ASSERT_TRUE(manifest_->SetPinned("acme", "a", true).ok()) << "again";
  ASSERT_TRUE(manifest_->SetPinned("acme", "b", false).ok());
  ASSERT_TRUE(manifest_->SetPinned("acme", "b", false).ok()) << "again";
  Reopen();
  EXPECT_THAT(pinned(), ElementsAre("acme/a", "acme/ab"));
  EXPECT_TRUE(manifest_->IsPinned("acme", "a").value());
  EXPECT_FALSE(manifest_->IsPinned("acme", "b").value());
  ASSERT_TRUE(manifest_->DeleteDocument("acme", "a").ok());
  EXPECT_EQ(manifest_->IsPinned("acme", "a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(manifest_->SetPinned("acme", "a", true).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(manifest_->SetPinned("other", "ab", true).code(), absl::StatusCode::kNotFound);
  Reopen();
  EXPECT_THAT(pinned(), ElementsAre("acme/ab"));
  // A document that takes its name is another one.
  DocumentRecord again = TestDocument(2);
  again.id = "a";
  Put(again);
  EXPECT_FALSE(manifest_->IsPinned("acme", "a").value());
  EXPECT_EQ(
      manifest_->ForEachPinned([](const std::string&, const std::string&) { return absl::CancelledError("enough"); })
          .code(),
      absl::StatusCode::kCancelled);
}

TEST_F(ManifestTest, HeadersSayWhatRecordsSayWithoutTheText) {
  std::vector<DocumentHeader> expected;
  for (int i = 0; i < 5; ++i) {
    DocumentRecord document = TestDocument(i);
    document.expires_unix_ms = i * 1000;
    document.recipe_id = i % 2 == 0 ? "plain" : "document";
    Put(document);
    expected.push_back(HeaderOf(document));
  }
  ASSERT_TRUE(manifest_->DeleteDocument("acme", expected[2].id).ok());
  expected.erase(expected.begin() + 2);
  for (int round = 0; round < 2; ++round) {
    std::vector<DocumentHeader> headers;
    const auto visit = [&](const DocumentHeader& header) {
      headers.push_back(header);
      return absl::OkStatus();
    };
    EXPECT_TRUE(manifest_->ForEachDocumentHeader(visit).ok());
    EXPECT_EQ(headers, expected);
    Reopen();
  }
}

TEST_F(ManifestTest, FoldersThatAreNotApartAreRefused) {
  for (const char* const copy : {"/.", "/below", "/..", "/../"}) {
    ManifestOptions options;
    options.folder = folder_.path() + "-other/manifest";
    options.copy_folder = options.folder + copy;
    EXPECT_EQ(Manifest::Open(options).status().code(), absl::StatusCode::kInvalidArgument) << copy;
  }
}

TEST_F(ManifestTest, TheCopyOfAnotherManifestIsRefused) {
  const TemporaryFolder other;
  ASSERT_TRUE(Manifest::Open(other.path()).ok());
  manifest_.reset();
  ManifestOptions options;
  options.folder = folder_.path();
  options.copy_folder = other.path();
  const absl::Status status = Manifest::Open(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("two different nodes"));
  EXPECT_TRUE(OpenStatus().ok());
}

TEST_F(ManifestTest, WritersOfOneDocumentAgreeOnOneWinner) {
  std::vector<std::thread> threads;
  std::array<absl::StatusCode, 8> codes;
  std::array<bool, 8> written = {};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      DocumentRecord document = TestDocument(1);
      document.text = fmt::format("Version {}.", i % 4);
      const absl::StatusOr<bool> result = manifest_->PutDocument(document, nullptr);
      codes[i] = result.status().code();
      written[i] = result.ok() && *result;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(std::count(written.begin(), written.end(), true), 1);
  EXPECT_EQ(std::count(codes.begin(), codes.end(), absl::StatusCode::kOk), 2);
  EXPECT_EQ(std::count(codes.begin(), codes.end(), absl::StatusCode::kAlreadyExists), 6);
  EXPECT_EQ(manifest_->CountDocuments().value(), 1);
}

TEST_F(ManifestTest, ASecondOpenIsRefused) {
  Put(TestDocument(1));
  const absl::Status status = OpenStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr(folder_.path() + " belongs to a running instance"));
  EXPECT_TRUE(manifest_->GetDocument("acme", TestDocument(1).id).ok());
  // Nor can another manifest have this one's copy.
  ManifestOptions options;
  options.folder = folder_.path() + "-other";
  options.copy_folder = folder_.copy_path();
  EXPECT_EQ(Manifest::Open(options).status().code(), absl::StatusCode::kFailedPrecondition);
  manifest_.reset();
  EXPECT_TRUE(OpenStatus().ok());
}

TEST_F(ManifestTest, ADatabaseOfSomethingElseIsRefused) {
  const TemporaryFolder other;
  rocksdb::DB* database = nullptr;
  rocksdb::Options options;
  options.create_if_missing = true;
  ASSERT_TRUE(rocksdb::DB::Open(options, other.path(), &database).ok());
  ASSERT_TRUE(database->Put({}, "key", "value").ok());
  delete database;
  EXPECT_EQ(Manifest::Open(other.path()).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(ManifestTest, AFolderThatCannotBeMadeIsPermissionDenied) {
  const std::string file = folder_.path() + "/a-file";
  std::ofstream(file) << "x";
  const absl::Status below_a_file = Manifest::Open(file + "/manifest").status();
  EXPECT_EQ(below_a_file.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(below_a_file.message()), HasSubstr(file + "/manifest"));
  EXPECT_EQ(Manifest::Open(file).status().code(), absl::StatusCode::kPermissionDenied);
}

TEST_F(ManifestTest, AFolderThatMayNotBeWrittenIsPermissionDenied) {
  if (geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  const std::string locked = folder_.path() + "/locked";
  std::filesystem::create_directory(locked);
  std::filesystem::permissions(locked, std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  for (const std::string& folder : {locked, locked + "/below"}) {
    const absl::Status status = Manifest::Open(folder).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
    EXPECT_THAT(std::string(status.message()), HasSubstr(folder));
  }
}

}  // namespace
}  // namespace epic
