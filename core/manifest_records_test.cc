#include "core/manifest_records.h"

#include <cstring>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "xxhash.h"

namespace epic {
namespace {

using ::testing::HasSubstr;

DocumentRecord TestDocument() {
  DocumentRecord record;
  record.tenant = "acme";
  record.id = "manual/1";
  record.text = std::string("Text with a zero byte \0 and \xF0\x9F\x98\x80.", 33);
  record.labels = {{"kind", "manual"}, {"language", ""}};
  record.created_unix_ms = 1'700'000'000'123;
  record.expires_unix_ms = -1;
  record.recipe_id = "plain";
  return record;
}

ChunkListRecord TestChunkList() {
  ChunkListRecord record;
  record.model_fingerprint_hex = std::string(64, 'a');
  record.recipe = {"sink4", {1, 9690, 198, 2683}};
  record.token_ids = {5, 6, 7, 8, 9};
  record.spans = {{0, 2}, {2, 5}};
  record.keys.resize(2);
  record.keys[0].bytes.fill(1);
  record.keys[1].bytes.fill(2);
  return record;
}

std::string WithChecksum(std::string bytes) {
  bytes.resize(bytes.size() - 8);
  const uint64_t checksum = XXH3_64bits(bytes.data(), bytes.size());
  bytes.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
  return bytes;
}

TEST(ManifestRecordsTest, DocumentsRoundTrip) {
  EXPECT_EQ(DecodeDocumentRecord(EncodeDocumentRecord(TestDocument())).value(), TestDocument());
  DocumentRecord ids;
  ids.token_ids = {0, 1, INT32_MAX};
  ids.token_ids_model_fingerprint = std::string(64, 'f');
  EXPECT_EQ(DecodeDocumentRecord(EncodeDocumentRecord(ids)).value(), ids);
  EXPECT_EQ(DecodeDocumentRecord(EncodeDocumentRecord({})).value(), DocumentRecord());
}

ChunkListRecord TestSections() {
  ChunkListRecord record = TestChunkList();
  record.recipe = {"document", {1}};
  record.token_ids = {5, 6, 7, 8, 9, 10};
  record.spans = {{0, 2}, {2, 5}, {5, 6}};
  record.keys.resize(3);
  record.section_begins = {0, 0, 5};
  return record;
}

TEST(ManifestRecordsTest, SectionsRoundTripAndMakeRecipes) {
  const ChunkListRecord record = DecodeChunkListRecord(EncodeChunkListRecord(TestSections())).value();
  EXPECT_EQ(record.section_begins, TestSections().section_begins);
  EXPECT_EQ(record.BaseRecipe(), (Recipe{"plain", {1}}));
  EXPECT_EQ(record.RecipeOf(0), (Recipe{"plain", {1}}));
  EXPECT_EQ(record.RecipeOf(1), (Recipe{"document", {1, 5, 6}}));
  EXPECT_EQ(record.RecipeOf(2), (Recipe{"plain", {1}}));
  EXPECT_EQ(TestChunkList().RecipeOf(1), TestChunkList().recipe);
  const std::span<const int32_t> tokens = record.TokensOf(1);
  EXPECT_EQ(std::vector<int32_t>(tokens.begin(), tokens.end()), (std::vector<int32_t>{7, 8, 9}));
}

TEST(ManifestRecordsTest, SectionsThatBeginNowhereAreDamage) {
  for (const std::vector<int32_t>& begins :
       {std::vector<int32_t>{}, {0, 0}, {0, 1, 5}, {1, 1, 5}, {0, 2, 0}, {0, 0, 6}, {-1, -1, 5}}) {
    ChunkListRecord record = TestSections();
    record.section_begins = begins;
    EXPECT_EQ(DecodeChunkListRecord(EncodeChunkListRecord(record)).status().code(), absl::StatusCode::kDataLoss);
  }
  ChunkListRecord plain = TestChunkList();
  plain.section_begins = {0, 0};
  EXPECT_EQ(DecodeChunkListRecord(EncodeChunkListRecord(plain)).status().code(), absl::StatusCode::kDataLoss);
}

// What version 1 wrote: the same without the field that version 2 added at the end.
TEST(ManifestRecordsTest, RecordsOfVersion1AreRead) {
  std::string document = EncodeDocumentRecord(TestDocument());
  document.erase(document.size() - 8 - 4 - std::string("plain").size(), 4 + std::string("plain").size());
  document[0] = 1;
  EXPECT_EQ(DecodeDocumentRecord(WithChecksum(document)).value(), TestDocument());
  std::string list = EncodeChunkListRecord(TestChunkList());
  list.erase(list.size() - 8 - 4, 4);
  list[0] = 1;
  const ChunkListRecord decoded = DecodeChunkListRecord(WithChecksum(list)).value();
  EXPECT_EQ(decoded.keys, TestChunkList().keys);
  EXPECT_TRUE(decoded.section_begins.empty());
}

TEST(ManifestRecordsTest, ChunkListsRoundTrip) {
  const ChunkListRecord record = TestChunkList();
  const ChunkListRecord decoded = DecodeChunkListRecord(EncodeChunkListRecord(record)).value();
  EXPECT_EQ(decoded.model_fingerprint_hex, record.model_fingerprint_hex);
  EXPECT_EQ(decoded.recipe, record.recipe);
  EXPECT_EQ(decoded.chunker_version, record.chunker_version);
  EXPECT_EQ(decoded.token_ids, record.token_ids);
  EXPECT_EQ(decoded.spans, record.spans);
  EXPECT_EQ(decoded.keys, record.keys);
}

TEST(ManifestRecordsTest, ContentIsTextIdsAndLabelsButNotTimes) {
  const DocumentRecord record = TestDocument();
  DocumentRecord other = record;
  other.created_unix_ms = 0;
  other.expires_unix_ms = 7;
  EXPECT_TRUE(record.SameContent(other));
  other.text += "x";
  EXPECT_FALSE(record.SameContent(other));
  other = record;
  other.labels["kind"] = "minutes";
  EXPECT_FALSE(record.SameContent(other));
  other = record;
  other.token_ids = {1};
  EXPECT_FALSE(record.SameContent(other));
}

TEST(ManifestRecordsTest, EveryFlippedBitAndEveryTruncationIsDataLoss) {
  for (const std::string& intact : {EncodeDocumentRecord(TestDocument()), EncodeChunkListRecord(TestChunkList())}) {
    const bool is_document = DecodeDocumentRecord(intact).ok();
    const auto code = [&](std::string_view bytes) {
      return is_document ? DecodeDocumentRecord(bytes).status().code() : DecodeChunkListRecord(bytes).status().code();
    };
    ASSERT_EQ(code(intact), absl::StatusCode::kOk);
    for (size_t bit = 0; bit < 8 * intact.size(); ++bit) {
      std::string damaged = intact;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
      ASSERT_EQ(code(damaged), absl::StatusCode::kDataLoss) << "bit " << bit;
    }
    for (size_t length = 0; length < intact.size(); ++length) {
      ASSERT_EQ(code(std::string_view(intact).substr(0, length)), absl::StatusCode::kDataLoss) << length;
    }
    EXPECT_EQ(code(intact + "x"), absl::StatusCode::kDataLoss);
  }
}

// Damage under a checksum that fits: every byte of a record set to extreme values must give an error or a record, never
// a crash or a huge allocation.
TEST(ManifestRecordsTest, ForgedRecordsDoNotCrash) {
  for (const std::string& intact : {EncodeDocumentRecord(TestDocument()), EncodeChunkListRecord(TestChunkList())}) {
    for (size_t i = 1; i + 8 < intact.size(); ++i) {
      for (const char value : {'\x00', '\x7f', '\x80', '\xff'}) {
        std::string forged = intact;
        forged[i] = value;
        forged = WithChecksum(forged);
        static_cast<void>(DecodeDocumentRecord(forged));
        static_cast<void>(DecodeChunkListRecord(forged));
      }
    }
  }
}

TEST(ManifestRecordsTest, KindsAreNotMixedUp) {
  EXPECT_EQ(DecodeDocumentRecord(EncodeChunkListRecord(TestChunkList())).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(DecodeChunkListRecord(EncodeDocumentRecord(TestDocument())).status().code(), absl::StatusCode::kDataLoss);
}

TEST(ManifestRecordsTest, ANewerVersionIsAPreconditionThatNamesBoth) {
  std::string bytes = EncodeDocumentRecord(TestDocument());
  bytes[0] = 9;
  const absl::Status status = DecodeDocumentRecord(WithChecksum(bytes)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("version 9"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("up to 2"));
}

TEST(ManifestRecordsTest, SpansWithGapsOrTooFewKeysAreDataLoss) {
  const auto code = [](auto&& change) {
    ChunkListRecord record = TestChunkList();
    change(record);
    return DecodeChunkListRecord(EncodeChunkListRecord(record)).status().code();
  };
  EXPECT_EQ(code([](ChunkListRecord& r) { r.spans[1].begin = 3; }), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code([](ChunkListRecord& r) { r.spans[1].end = 4; }), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code([](ChunkListRecord& r) { r.spans[0].end = 0; }), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code([](ChunkListRecord& r) { r.keys.pop_back(); }), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code([](ChunkListRecord& r) { r.token_ids.push_back(1); }), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code([](ChunkListRecord& r) { r.token_ids[0] = -1; }), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace epic
