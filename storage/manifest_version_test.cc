// Format versions: older manifests are migrated, newer ones refused and left alone.
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/byte_codec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "rocksdb/db.h"
#include "rocksdb/write_batch.h"
#include "storage/manifest.h"
#include "storage/manifest_keys.h"
#include "storage/manifest_testing.h"
#include "storage/sequence_file.h"

namespace epic {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr int kDocuments = 20;

std::unique_ptr<rocksdb::DB> OpenDatabase(const std::string& folder) {
  rocksdb::Options options;
  options.create_if_missing = true;
  rocksdb::DB* database = nullptr;
  EXPECT_TRUE(rocksdb::DB::Open(options, folder, &database).ok());
  return std::unique_ptr<rocksdb::DB>(database);
}

void SetVersion(const std::string& folder, const std::string& bytes) {
  EXPECT_TRUE(OpenDatabase(folder)->Put({}, "V", bytes).ok());
}

std::string VersionBytes(uint32_t version) {
  ByteWriter writer;
  writer.Put(version);
  return writer.bytes();
}

// As version 1 wrote it: an index without values, neither pins nor a state, one copy.
void WriteVersion1(const std::string& folder) {
  const std::unique_ptr<rocksdb::DB> database = OpenDatabase(folder);
  rocksdb::WriteOptions synced;
  synced.sync = true;
  EXPECT_TRUE(database->Put(synced, ManifestKey(ManifestKeyKind::kFormatVersion, {}), VersionBytes(1)).ok());
  for (int i = 0; i < kDocuments; ++i) {
    DocumentRecord document = TestDocument(i);
    document.expires_unix_ms = i % 2 == 0 ? 0 : 1'800'000'000'000 + i;
    document.recipe_id = i % 3 == 0 ? "document" : "plain";
    rocksdb::WriteBatch batch;
    batch.Put(ManifestKey(ManifestKeyKind::kDocument, {document.tenant, document.id}), EncodeDocumentRecord(document));
    batch.Put(ManifestKey(ManifestKeyKind::kIndex, {document.tenant, document.id}), "");
    batch.Put(ManifestKey(ManifestKeyKind::kChunkList, {document.tenant, document.id, TestFingerprint(), "plain"}),
              EncodeChunkListRecord(TestChunkList(i)));
    EXPECT_TRUE(database->Write(synced, &batch).ok());
    if (i == kDocuments / 2) {
      EXPECT_TRUE(database->Flush({}).ok());
    }
  }
  EXPECT_TRUE(WriteSequenceFile(folder, database->GetLatestSequenceNumber()).ok());
}

std::vector<DocumentHeader> Headers(const Manifest& manifest) {
  std::vector<DocumentHeader> headers;
  EXPECT_TRUE(manifest
                  .ForEachDocumentHeader([&](const DocumentHeader& header) {
                    headers.push_back(header);
                    return absl::OkStatus();
                  })
                  .ok());
  return headers;
}

// Name to size and time of every file below.
std::map<std::string, std::pair<uintmax_t, fs::file_time_type>> Listing(const std::string& folder) {
  std::map<std::string, std::pair<uintmax_t, fs::file_time_type>> listing;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) listing[entry.path()] = {entry.file_size(), entry.last_write_time()};
  }
  return listing;
}

TEST(ManifestVersionTest, Version1IsMigratedAndGetsACopy) {
  const TemporaryFolder folder;
  WriteVersion1(folder.path());
  std::vector<std::string> warnings;
  for (int round = 0; round < 3; ++round) {
    const std::unique_ptr<Manifest> manifest = OpenWithWarnings(folder.path(), &warnings).value();
    EXPECT_EQ(manifest->CountDocuments().value(), kDocuments);
    const std::vector<DocumentHeader> headers = Headers(*manifest);
    ASSERT_EQ(headers.size(), size_t{kDocuments});
    for (int i = 0; i < kDocuments; ++i) {
      const DocumentRecord document = manifest->GetDocument("acme", TestDocument(i).id).value();
      EXPECT_TRUE(document.SameContent(TestDocument(i)));
      EXPECT_EQ(headers[i], HeaderOf(document));
      EXPECT_EQ(headers[i].recipe_id, i % 3 == 0 ? "document" : "plain");
      EXPECT_FALSE(manifest->IsPinned("acme", document.id).value());
      EXPECT_TRUE(manifest->GetChunkList("acme", document.id, TestFingerprint(), "plain").ok());
    }
    EXPECT_EQ(manifest->counters().repairs_at_open_total, round == 0 ? 2 : 0);
    EXPECT_EQ(warnings.size(), 2u) << "a later opening has nothing to repair";
  }
  EXPECT_THAT(warnings, Contains(HasSubstr("from format version 1 to 2")));
  EXPECT_THAT(warnings, Contains(HasSubstr("it was made from " + folder.path())));
  // The copy is worth as much as the folder.
  fs::remove_all(folder.path());
  EXPECT_EQ(Headers(*OpenWithWarnings(folder.path(), &warnings).value()).size(), size_t{kDocuments});
}

TEST(ManifestVersionTest, ADocumentThatCannotBeDecodedStopsTheMigrationAndNothingIsChanged) {
  const TemporaryFolder folder;
  WriteVersion1(folder.path());
  const std::string key = ManifestKey(ManifestKeyKind::kDocument, {"acme", TestDocument(3).id});
  EXPECT_TRUE(OpenDatabase(folder.path())->Put({}, key, "no record").ok());
  for (int round = 0; round < 2; ++round) {
    const absl::Status status = Manifest::Open(folder.path()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(TestDocument(3).id));
  }
  EXPECT_FALSE(fs::exists(folder.copy_path()));
  std::string version;
  EXPECT_TRUE(OpenDatabase(folder.path())->Get({}, "V", &version).ok());
  EXPECT_EQ(version, VersionBytes(1));
}

class ManifestNewerVersionTest : public testing::TestWithParam<bool> {};

TEST_P(ManifestNewerVersionTest, IsRefusedAndLeftAlone) {
  const TemporaryFolder folder;
  ASSERT_TRUE(Manifest::Open(folder.path()).value()->PutDocument(TestDocument(1), nullptr).ok());
  const std::string changed = GetParam() ? folder.copy_path() : folder.path();
  SetVersion(changed, VersionBytes(3));
  const auto before = Listing(fs::path(folder.path()).parent_path());
  const absl::Status newer = Manifest::Open(folder.path()).status();
  EXPECT_EQ(newer.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(newer.message()), HasSubstr("the manifest in " + changed + " has format version 3"));
  EXPECT_THAT(std::string(newer.message()), HasSubstr("up to 2"));
  EXPECT_EQ(Listing(fs::path(folder.path()).parent_path()), before);
}

INSTANTIATE_TEST_SUITE_P(EitherCopy, ManifestNewerVersionTest, testing::Bool());

TEST(ManifestVersionTest, AVersionThatCannotBeReadIsDamage) {
  for (const std::string& bytes : {std::string(), std::string(4, '\0'), std::string("\2\0\0\0\0", 5)}) {
    const TemporaryFolder folder;
    ASSERT_TRUE(Manifest::Open(folder.path()).value()->PutDocument(TestDocument(1), nullptr).ok());
    SetVersion(folder.path(), bytes);
    std::vector<std::string> warnings;
    EXPECT_TRUE(OpenWithWarnings(folder.path(), &warnings).value()->GetDocument("acme", TestDocument(1).id).ok());
    EXPECT_THAT(warnings, Contains(HasSubstr(folder.path() + " is damaged: its format version cannot be read")));
    SetVersion(folder.path(), bytes);
    SetVersion(folder.copy_path(), bytes);
    EXPECT_EQ(Manifest::Open(folder.path()).status().code(), absl::StatusCode::kDataLoss);
  }
}

}  // namespace
}  // namespace epic
