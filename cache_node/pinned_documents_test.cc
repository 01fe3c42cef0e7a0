#include "cache_node/pinned_documents.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

ChunkKey Key(uint8_t number) {
  ChunkKey key;
  key.bytes[0] = number;
  return key;
}
DocumentName Name(const std::string& id) { return {"default", id}; }
bool Nothing(const ChunkKey&) { return false; }

TEST(PinnedDocuments, ChunksOfSeveralDocumentsCountOnce) {
  PinnedDocuments pinned(100);
  EXPECT_THAT(*pinned.Add(Name("a"), {{Key(1), 40}, {Key(2), 20}, {Key(1), 40}}), UnorderedElementsAre(Key(1), Key(2)));
  EXPECT_EQ(pinned.bytes(), 60u);
  EXPECT_THAT(*pinned.Add(Name("b"), {{Key(2), 20}, {Key(3), 40}}), ElementsAre(Key(3)));
  EXPECT_EQ(pinned.bytes(), 100u);
  EXPECT_THAT(*pinned.Add(Name("a"), {{Key(9), 1000}}), IsEmpty()) << "it is pinned already";
  EXPECT_EQ(pinned.count(), 2u);
  EXPECT_THAT(*pinned.Remove(Name("a")), ElementsAre(Key(1)));
  EXPECT_EQ(pinned.bytes(), 60u);
  EXPECT_FALSE(pinned.Remove(Name("a")).has_value());
  EXPECT_THAT(*pinned.Remove(Name("b")), UnorderedElementsAre(Key(2), Key(3)));
  EXPECT_EQ(pinned.bytes(), 0u);
}

TEST(PinnedDocuments, TheLimitIsKeptAndNamed) {
  PinnedDocuments pinned(100);
  ASSERT_TRUE(pinned.Add(Name("a"), {{Key(1), 60}}).ok());
  const absl::Status refused = pinned.Add(Name("b"), {{Key(1), 60}, {Key(2), 41}}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("\"b\" has 41 bytes"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("60 bytes are pinned and the limit is 100"));
  EXPECT_FALSE(pinned.Contains(Name("b")));
  EXPECT_EQ(pinned.bytes(), 60u);
  EXPECT_TRUE(pinned.Add(Name("b"), {{Key(1), 60}, {Key(2), 40}}).ok());
}

TEST(PinnedDocuments, HandsOutWhatIsMissingUntilItIsThere) {
  PinnedDocuments pinned(100);
  ASSERT_TRUE(pinned.Add(Name("a"), {{Key(1), 10}, {Key(2), 10}, {Key(3), 10}}).ok());
  const auto holds_second = [](const ChunkKey& key) { return key == Key(2); };
  EXPECT_EQ(pinned.NextMissing(holds_second), Key(1));
  EXPECT_EQ(pinned.NextMissing(holds_second), Key(3));
  EXPECT_EQ(pinned.NextMissing(holds_second), std::nullopt);
  pinned.OnMissing(Key(1));
  pinned.OnMissing(Key(7));  // nobody pinned that
  EXPECT_EQ(pinned.NextMissing(Nothing), Key(1));
  EXPECT_EQ(pinned.NextMissing(Nothing), std::nullopt);
  pinned.OnMissing(Key(3));
  pinned.Remove(Name("a"));
  EXPECT_EQ(pinned.NextMissing(Nothing), std::nullopt);
}

TEST(PinnedDocuments, ListsInOrder) {
  PinnedDocuments pinned(100);
  ASSERT_TRUE(pinned.Add(Name("b"), {{Key(1), 10}}).ok());
  ASSERT_TRUE(pinned.Add(Name("a"), {{Key(1), 10}, {Key(2), 30}}).ok());
  const std::vector<PinnedDocuments::Pinned> all = pinned.List(9);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].name, Name("a"));
  EXPECT_EQ(all[0].bytes, 40u);
  EXPECT_EQ(pinned.List(1).size(), 1u);
}

}  // namespace
}  // namespace epic
