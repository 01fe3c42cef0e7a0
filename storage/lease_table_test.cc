#include "storage/lease_table.h"

#include <chrono>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/kv_block_testing.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

class LeaseTableTest : public testing::Test {
 protected:
  BlockStore::Lease MakeLease(int32_t token) {
    const KvBlockInfo info = MakeTestBlockInfo({.layers = 1, .kv_heads = 1, .head_dim = 8}, {token});
    BlockStore::Reservation reservation = store_->Reserve(KvBlockBytes(info)).value();
    WriteTestBlock(info, reservation.bytes());
    return store_->Publish(std::move(reservation)).value();
  }
  uint64_t Grant(int32_t token, int ttl_seconds) {
    return table_.Grant(MakeLease(token), now_, seconds(ttl_seconds)).value();
  }

  const std::unique_ptr<BlockStore> store_ = BlockStore::Create({.capacity_bytes = size_t{1} << 20}).value();
  uint64_t next_random_ = 41;
  LeaseTable table_{4, [this] { return ++next_random_; }};
  LeaseTable::TimePoint now_ = LeaseTable::TimePoint() + seconds(1000);
};

TEST_F(LeaseTableTest, FindGivesTheBlockOfAnIdAndEdition) {
  const BlockStore::Lease lease = MakeLease(1);
  const uint64_t id = table_.Grant(lease.Share(), now_, seconds(60)).value();
  EXPECT_EQ(id, 42u);
  const auto found = table_.Find(id, lease.edition(), now_).value();
  EXPECT_EQ(found->view().bytes().data(), lease.view().bytes().data());
  EXPECT_EQ(table_.Find(id + 1, lease.edition(), now_).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(LeaseTableTest, AnotherEditionIsAPreconditionThatNamesBoth) {
  const BlockStore::Lease lease = MakeLease(1);
  const uint64_t id = table_.Grant(lease.Share(), now_, seconds(60)).value();
  const absl::Status status = table_.Find(id, 0xabc, now_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("0000000000000abc"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(fmt::format("{:016x}", lease.edition())));
}

TEST_F(LeaseTableTest, ASessionsLeasesEndWithItAndNotByTheClock) {
  table_.OpenSession(7);
  table_.OpenSession(8);
  const BlockStore::Lease lease = MakeLease(1);
  const uint64_t first = table_.GrantInSession(lease.Share(), 7).value();
  const uint64_t second = table_.GrantInSession(lease.Share(), 7).value();
  const uint64_t others = table_.GrantInSession(lease.Share(), 8).value();
  now_ += std::chrono::hours(1000);
  EXPECT_EQ(table_.Sweep(now_), 0u);
  EXPECT_TRUE(table_.Find(first, lease.edition(), now_).ok()) << "its reader is slow, not gone";
  EXPECT_TRUE(table_.Release(second));
  EXPECT_EQ(table_.EndSession(7), 1u);
  EXPECT_EQ(table_.EndSession(7), 0u);
  EXPECT_EQ(table_.Find(first, lease.edition(), now_).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(table_.Find(others, lease.edition(), now_).ok());
  EXPECT_EQ(table_.session_count(), 1u);
  const absl::Status closed = table_.GrantInSession(lease.Share(), 7).status();
  EXPECT_EQ(closed.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(table_.EndSession(8), 1u);
  EXPECT_EQ(table_.size(), 0u);
  EXPECT_EQ(store_->Stats().leases, 1u) << "the test's own";
}

TEST_F(LeaseTableTest, SessionsAreWithinTheTablesLimit) {
  table_.OpenSession(7);
  for (int32_t i = 0; i < 4; ++i) ASSERT_TRUE(table_.GrantInSession(MakeLease(i), 7).ok());
  EXPECT_EQ(table_.GrantInSession(MakeLease(9), 7).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(table_.EndSession(7), 4u);
  EXPECT_EQ(store_->Stats().leases, 0u);
}

TEST_F(LeaseTableTest, UseRenewsAndSilenceEnds) {
  const BlockStore::Lease lease = MakeLease(1);
  const uint64_t id = table_.Grant(lease.Share(), now_, seconds(60)).value();
  for (int i = 0; i < 5; ++i) {
    now_ += seconds(59);
    EXPECT_TRUE(table_.Find(id, lease.edition(), now_).ok());
    EXPECT_EQ(table_.Sweep(now_), 0u);
  }
  now_ += seconds(60);
  const absl::Status expired = table_.Find(id, lease.edition(), now_).status();
  EXPECT_EQ(expired.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(expired.message()), HasSubstr("after 60000 ms without use"));
  EXPECT_EQ(table_.size(), 1u);
  EXPECT_EQ(table_.Sweep(now_), 1u);
  EXPECT_EQ(table_.Find(id, lease.edition(), now_).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->Stats().leases, 1u);  // the test's own
}

TEST_F(LeaseTableTest, AFailedFindDoesNotRenew) {
  const uint64_t id = Grant(1, 60);
  now_ += seconds(59);
  EXPECT_FALSE(table_.Find(id, 1, now_).ok());
  EXPECT_EQ(table_.Sweep(now_ + seconds(1)), 1u);
}

TEST_F(LeaseTableTest, SweepEndsTheExpiredOnly) {
  Grant(1, 10);
  Grant(2, 20);
  Grant(3, 30);
  EXPECT_EQ(table_.Sweep(now_ + seconds(20)), 2u);
  EXPECT_EQ(table_.size(), 1u);
  EXPECT_EQ(store_->Stats().leases, 1u);
}

TEST_F(LeaseTableTest, ReleaseEndsOnce) {
  const uint64_t id = Grant(1, 60);
  EXPECT_TRUE(table_.Release(id));
  EXPECT_FALSE(table_.Release(id));
  EXPECT_EQ(store_->Stats().leases, 0u);
}

TEST_F(LeaseTableTest, WhatFindReturnedOutlivesTheLease) {
  const KvBlockInfo info = MakeTestBlockInfo({.layers = 1, .kv_heads = 1, .head_dim = 8}, {1});
  const uint64_t edition = MakeLease(1).edition();
  const uint64_t id = Grant(1, 60);
  std::shared_ptr<const BlockStore::Lease> reading = table_.Find(id, edition, now_).value();
  EXPECT_EQ(table_.Sweep(now_ + seconds(61)), 1u);
  store_->Drop(info.key);
  // Still under lease: reserving the whole store must fail, and the bytes are whole.
  EXPECT_EQ(store_->Reserve(size_t{1} << 20).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(reading->view().VerifyPayload().ok());
  reading.reset();
  EXPECT_TRUE(store_->Reserve(size_t{1} << 20).ok());
}

TEST_F(LeaseTableTest, TheTableIsBounded) {
  for (int32_t i = 0; i < 4; ++i) Grant(i, 60);
  const absl::Status status = table_.Grant(MakeLease(5), now_, seconds(60)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("limit is 4"));
  EXPECT_EQ(store_->Stats().leases, 4u);
}

TEST_F(LeaseTableTest, AnIdThatIsTakenOrZeroIsDrawnAgain) {
  std::vector<uint64_t> draws = {7, 7, 0, 9};
  size_t next = 0;
  LeaseTable table(4, [&] { return draws[next++]; });
  EXPECT_EQ(table.Grant(MakeLease(1), now_, seconds(60)).value(), 7u);
  EXPECT_EQ(table.Grant(MakeLease(2), now_, seconds(60)).value(), 9u);
}

TEST(SystemRandom64Test, DoesNotRepeat) {
  std::set<uint64_t> values;
  for (int i = 0; i < 1000; ++i) values.insert(SystemRandom64());
  EXPECT_EQ(values.size(), 1000u);
}

}  // namespace
}  // namespace epic
