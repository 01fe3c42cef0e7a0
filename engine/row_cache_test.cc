// The cache of private rows by itself: what is found, what is shared and what is copied, what goes first.
#include "engine/row_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

namespace epic {
namespace {

using Pages = std::vector<std::shared_ptr<KvPage>>;

constexpr KvShape kShape{.layers = 1, .kv_heads = 1, .head_dim = 16};

RowId Row(int32_t position, int32_t token) { return {0, 0, position, token}; }

// `count` rows of tokens that differ from seed to seed.
std::vector<RowId> Rows(int32_t count, int32_t seed, int32_t first = 0) {
  std::vector<RowId> rows;
  for (int32_t i = 0; i < count; ++i) rows.push_back(Row(first + i, seed * 1000 + first + i));
  return rows;
}

std::vector<RowId> operator+(std::vector<RowId> a, const std::vector<RowId>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Pages PagesFor(const std::vector<RowId>& rows, uint16_t mark = 0) {
  Pages pages;
  for (size_t i = 0; i < rows.size(); i += kPageTokens) {
    pages.push_back(std::make_shared<KvPage>(kShape, 0, kShape.layers));
    pages.back()->Keys(0)[0] = mark;
  }
  return pages;
}

class RowCacheTest : public ::testing::Test {
 protected:
  static size_t PageBytes() { return KvPage::Bytes(kShape, 0, kShape.layers); }
  // As a request that ends: its pages are let go afterwards.
  int32_t PublishEnded(const std::vector<RowId>& rows, const std::string& salt = "a") {
    return cache_.Publish(salt, rows, PagesFor(rows), RowCache::LastPage::kShared);
  }
  int32_t Found(const std::vector<RowId>& rows, const std::string& salt = "a") {
    return cache_.Lookup(salt, rows).rows;
  }

  RowCache cache_{8 * KvPage::Bytes(kShape, 0, kShape.layers), kShape};
};

TEST_F(RowCacheTest, RowsAreFoundUpToTheFirstDifference) {
  const std::vector<RowId> rows = Rows(150, 1);
  EXPECT_EQ(PublishEnded(rows), 3);
  EXPECT_EQ(Found(rows), 150);
  EXPECT_EQ(Found(Rows(10, 1)), 10);
  EXPECT_EQ(Found(rows + Rows(20, 2, 150)), 150);
  for (const int32_t at : {0, 1, 63, 64, 65, 127, 128, 149}) {
    for (int field = 0; field < 4; ++field) {
      std::vector<RowId> other = rows;
      if (field == 0) ++other[at].token_id;
      if (field == 1) ++other[at].position;
      if (field == 2) ++other[at].context_high;
      if (field == 3) ++other[at].context_low;
      EXPECT_EQ(Found(other), at) << field;
    }
  }
  EXPECT_EQ(Found({}), 0);
  EXPECT_EQ(Found(Rows(150, 2)), 0);
}

TEST_F(RowCacheTest, AnotherSaltFindsNothing) {
  PublishEnded(Rows(100, 1), "one tenant");
  EXPECT_EQ(Found(Rows(100, 1), "one tenant"), 100);
  EXPECT_EQ(Found(Rows(100, 1), "one tenan"), 0);
  EXPECT_EQ(Found(Rows(100, 1), ""), 0);
}

TEST_F(RowCacheTest, OfBranchesTheLongestIsTaken) {
  const std::vector<RowId> common = Rows(80, 1);
  for (const int32_t seed : {5, 3, 9}) PublishEnded(common + Rows(20, seed, 80));
  PublishEnded(Rows(70, 1) + Rows(20, 7, 70));
  for (const int32_t seed : {3, 5, 9}) EXPECT_EQ(Found(common + Rows(20, seed, 80)), 100);
  EXPECT_EQ(Found(common + Rows(20, 4, 80)), 80);
  EXPECT_EQ(Found(common + Rows(7, 5, 80) + Rows(5, 6, 87)), 87);
  EXPECT_EQ(Found(Rows(72, 1)), 72);
  EXPECT_EQ(cache_.pages(), 5u);  // the first page once, four that begin alike
}

TEST_F(RowCacheTest, WholePagesOfARunningSequenceAreSharedAndItsLastOneIsCopied) {
  const std::vector<RowId> rows = Rows(100, 1);
  const Pages pages = PagesFor(rows, 7);
  EXPECT_EQ(cache_.Publish("a", rows, pages, RowCache::LastPage::kCopied), 1);
  pages[1]->Keys(0)[0] = 8;  // the sequence goes on
  const RowCache::Match match = cache_.Lookup("a", rows);
  ASSERT_EQ(match.rows, 100);
  EXPECT_EQ(match.whole_pages(), 1);
  EXPECT_EQ(match.pages[0], pages[0]);
  EXPECT_NE(match.pages[1], pages[1]);
  EXPECT_EQ(match.pages[1]->Keys(0)[0], 7);
  EXPECT_EQ(cache_.Publish("a", rows, pages, RowCache::LastPage::kCopied), 0);  // nothing new
  // At its end the page has come to hold more rows: it takes the copy's place.
  const std::vector<RowId> longer = rows + Rows(28, 1, 100);
  EXPECT_EQ(cache_.Publish("a", longer, pages, RowCache::LastPage::kShared), 1);
  EXPECT_EQ(cache_.Lookup("a", longer).pages[1], pages[1]);
  EXPECT_EQ(cache_.pages(), 2u);
}

TEST_F(RowCacheTest, TheLeastRecentlyUsedChainLosesItsEndFirst) {
  PublishEnded(Rows(256, 1));
  PublishEnded(Rows(256, 2));
  EXPECT_EQ(cache_.used_bytes(), cache_.capacity_bytes());
  EXPECT_EQ(Found(Rows(256, 1)), 256);  // now the more recent
  PublishEnded(Rows(64, 3));
  EXPECT_EQ(Found(Rows(256, 2)), 192);
  EXPECT_EQ(Found(Rows(256, 1)), 256);
  PublishEnded(Rows(128, 4));
  EXPECT_EQ(cache_.used_bytes(), cache_.capacity_bytes());
  EXPECT_EQ(Found(Rows(64, 3)), 0);
  EXPECT_EQ(Found(Rows(256, 2)), 128);
  EXPECT_EQ(Found(Rows(128, 4)), 128);
}

TEST_F(RowCacheTest, WhatIsLargerThanTheCacheKeepsItsBeginning) {
  PublishEnded(Rows(64, 2));
  EXPECT_EQ(PublishEnded(Rows(1000, 1)), 8);
  EXPECT_EQ(Found(Rows(1000, 1)), 512);
  EXPECT_EQ(cache_.used_bytes(), cache_.capacity_bytes());
}

TEST_F(RowCacheTest, PagesInUseStayAndNothingIsTakenBeyondTheCapacity) {
  const std::vector<RowId> rows = Rows(500, 1);
  const Pages held = PagesFor(rows);
  EXPECT_EQ(cache_.Publish("a", rows, held, RowCache::LastPage::kCopied), 7);
  EXPECT_EQ(PublishEnded(Rows(128, 2)), 1);  // in the place of the copy; no other page can go
  EXPECT_EQ(cache_.used_bytes(), cache_.capacity_bytes());
  EXPECT_EQ(Found(rows), 448);
  EXPECT_EQ(PublishEnded(Rows(64, 3), "b"), 1);
  EXPECT_EQ(Found(Rows(128, 2)), 0);
  EXPECT_EQ(Found(rows), 448);
}

TEST_F(RowCacheTest, WithoutCapacityNothingIsKept) {
  RowCache none(0, kShape);
  EXPECT_EQ(none.Publish("a", Rows(100, 1), PagesFor(Rows(100, 1)), RowCache::LastPage::kShared), 0);
  EXPECT_EQ(none.Lookup("a", Rows(100, 1)).rows, 0);
  EXPECT_EQ(none.pages(), 0u);
}

// Many chains in little room, against a list of what was published: whatever is found must have been.
TEST_F(RowCacheTest, ALongHistoryStaysWithinItsCapacity) {
  std::vector<std::vector<RowId>> published;
  uint32_t state = 1;
  const auto next = [&state](uint32_t below) { return (state = state * 1664525u + 1013904223u) / 65536u % below; };
  for (int round = 0; round < 2000; ++round) {
    std::vector<RowId> rows = Rows(static_cast<int32_t>(next(130)), static_cast<int32_t>(next(3)));
    rows = rows +
           Rows(1 + static_cast<int32_t>(next(130)), static_cast<int32_t>(next(4)), static_cast<int32_t>(rows.size()));
    const int32_t found = Found(rows);
    const auto was_published = [&](const std::vector<RowId>& other) {
      return std::equal(rows.begin(), rows.begin() + found, other.begin(),
                        other.begin() + std::min<ptrdiff_t>(found, static_cast<ptrdiff_t>(other.size())));
    };
    ASSERT_TRUE(found == 0 || std::ranges::any_of(published, was_published));
    PublishEnded(rows);
    published.push_back(rows);
    ASSERT_LE(cache_.used_bytes(), cache_.capacity_bytes());
    ASSERT_EQ(Found(rows), static_cast<int32_t>(rows.size()));  // at most 5 of 8 pages
  }
}

class RowIdsTest : public ::testing::Test {
 protected:
  static PromptSegment Segment(int32_t count, int32_t seed, bool is_chunk) {
    PromptSegment segment;
    segment.token_ids.resize(count);
    std::iota(segment.token_ids.begin(), segment.token_ids.end(), seed);
    segment.is_chunk = is_chunk;
    return segment;
  }
  static std::vector<RowId> Ids(const std::vector<PromptSegment>& prompt, const std::string& linker,
                                const Recipe& recipe = {"plain", {}}) {
    return RowIdsOf(prompt, PlanLink(prompt, *Linker::Parse(linker), recipe), recipe);
  }
  static int32_t Common(const std::vector<RowId>& a, const std::vector<RowId>& b) {
    return static_cast<int32_t>(std::ranges::mismatch(a, b).in1 - a.begin());
  }
  const std::vector<PromptSegment> prompt_ = {Segment(10, 0, false), Segment(80, 100, true), Segment(70, 300, true),
                                              Segment(5, 500, false)};
};

TEST_F(RowIdsTest, RowsAgreeUntilTheirContextDiffers) {
  const std::vector<RowId> rows = Ids(prompt_, "legolink:8");
  ASSERT_EQ(rows.size(), 10u + 8 + 8 + 5);
  EXPECT_EQ(rows[10].context_low, 0u);  // a head has seen nothing shared
  EXPECT_NE(rows[18].context_low, 0u);
  EXPECT_EQ(rows[19].context_low, 0u);  // what stands before the row before needs no repeating
  EXPECT_EQ(Ids(prompt_, "legolink:8"), rows);

  std::vector<PromptSegment> other = prompt_;
  other[1].token_ids[50] += 1;  // a row that is used as it was compiled
  EXPECT_EQ(Common(rows, Ids(other, "legolink:8")), 18);
  other = prompt_;
  std::swap(other[1], other[2]);
  EXPECT_EQ(Common(rows, Ids(other, "legolink:8")), 10);
  other = prompt_;
  other[2] = Segment(71, 300, true);
  EXPECT_EQ(Common(rows, Ids(other, "legolink:8")), 26);
  EXPECT_EQ(Common(rows, Ids(prompt_, "legolink:9")), 18);
  EXPECT_EQ(Common(rows, Ids(prompt_, "naive")), 10);
  EXPECT_EQ(Common(rows, Ids(prompt_, "prefix")), 18);  // the first head: everything before it has run
  EXPECT_EQ(Common(rows, Ids(prompt_, "legolink:8", {"plain", {1}})), 18);
  EXPECT_EQ(Common(Ids(prompt_, "naive", {"plain", {1}}), Ids(prompt_, "naive", {"sink4", {1}})), 10);
  other = prompt_;
  other[1].context_token_ids = {7, 8};  // the same tokens, compiled in sight of others
  EXPECT_EQ(Common(rows, Ids(other, "legolink:8")), 18);
}

TEST_F(RowIdsTest, LinkersOfEqualStructureAgree) {
  EXPECT_EQ(Ids(prompt_, "legolink:80"), Ids(prompt_, "prefix"));
  EXPECT_EQ(Ids(prompt_, "naive"), Ids(prompt_, "legolink:0"));  // by the same recipe, that is
}

}  // namespace
}  // namespace epic
