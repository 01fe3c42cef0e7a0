#include "router/document_listing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace epic {
namespace {

using ::testing::ElementsAre;
using ::testing::StartsWith;

v1::ListDocumentsResponse Page(const std::vector<std::string>& ids, bool has_more) {
  v1::ListDocumentsResponse page;
  for (const std::string& id : ids) page.add_documents()->set_id(id);
  if (has_more) page.set_next_page_token(ids.empty() ? "x" : ids.back());
  return page;
}

std::vector<std::string> Ids(const v1::ListDocumentsResponse& page) {
  std::vector<std::string> ids;
  for (const v1::Document& document : page.documents()) ids.push_back(document.id());
  return ids;
}

TEST(PageTokenTest, RoundTripAndRefusal) {
  EXPECT_EQ(*DecodePageToken(""), "");
  EXPECT_EQ(*DecodePageToken(EncodePageToken("manual/2.1:a")), "manual/2.1:a");
  for (const std::string bad : {"manual", "after-", "after-6", "after-zz", "after-00", "after-6D", "after-20"}) {
    EXPECT_EQ(DecodePageToken(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_FALSE(DecodePageToken(EncodePageToken(std::string(129, 'a'))).ok());
}

TEST(MergePagesTest, IdsComeInOrderAndTheRestIsForTheNextPage) {
  const auto merged = MergePages({Page({"a", "d"}, false), Page({"b", "c", "e"}, false)}, 3);
  ASSERT_TRUE(merged.ok());
  EXPECT_THAT(Ids(*merged), ElementsAre("a", "b", "c"));
  EXPECT_EQ(*DecodePageToken(merged->next_page_token()), "c");
}

TEST(MergePagesTest, TheLastPageHasNoToken) {
  const auto merged = MergePages({Page({"a"}, false), Page({}, false), Page({"b"}, false)}, 2);
  EXPECT_THAT(Ids(*merged), ElementsAre("a", "b"));
  EXPECT_EQ(merged->next_page_token(), "");
}

TEST(MergePagesTest, AShortPageOfANodeThatHasMoreEndsTheMergedOne) {
  // Between "b" and "z" the first node may have documents that it did not send.
  const auto merged = MergePages({Page({"a", "b"}, true), Page({"z"}, false)}, 10);
  EXPECT_THAT(Ids(*merged), ElementsAre("a", "b"));
  EXPECT_EQ(*DecodePageToken(merged->next_page_token()), "b");
}

TEST(MergePagesTest, AnIdOnTwoNodesIsListedOnce) {
  EXPECT_THAT(Ids(*MergePages({Page({"a", "b"}, false), Page({"b", "c"}, false)}, 10)), ElementsAre("a", "b", "c"));
}

TEST(MergePagesTest, AnEmptyPageWithMoreBehindItIsAnError) {
  EXPECT_EQ(MergePages({Page({}, true)}, 10).status().code(), absl::StatusCode::kInternal);
}

TEST(NameFromContentTest, DependsOnEverythingThatMakesARegistration) {
  v1::CreateDocumentRequest request;
  request.set_text("Helvetia tide tables");
  const std::string name = NameFromContent("default", request);
  EXPECT_THAT(name, StartsWith("doc-"));
  EXPECT_EQ(name.size(), 20u);
  EXPECT_EQ(NameFromContent("default", request), name);
  EXPECT_NE(NameFromContent("acme", request), name);
  v1::CreateDocumentRequest labelled = request;
  (*labelled.mutable_labels())["team"] = "harbour";
  EXPECT_NE(NameFromContent("default", labelled), name);
  v1::CreateDocumentRequest ids;
  for (const int32_t id : {1, 23}) ids.mutable_token_ids()->add_ids(id);
  v1::CreateDocumentRequest other_ids;
  for (const int32_t id : {12, 3}) other_ids.mutable_token_ids()->add_ids(id);
  EXPECT_NE(NameFromContent("default", ids), NameFromContent("default", other_ids));
}

}  // namespace
}  // namespace epic
