#include "core/eviction_policy.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <optional>
#include <random>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace {
size_t allocations_total = 0;
}  // namespace

// Not inlined, because GCC 12 takes an inlined free for a mismatch with the library's operator new.
[[gnu::noinline]] void* operator new(size_t bytes) {
  ++allocations_total;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace epic {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ChunkKey Key(int number) {
  ChunkKey key;
  std::memcpy(key.bytes.data(), &number, sizeof(number));
  return key;
}

int NumberOf(const ChunkKey& key) {
  int number = 0;
  std::memcpy(&number, key.bytes.data(), sizeof(number));
  return number;
}

std::unique_ptr<EvictionPolicy> Make(const std::string& name, size_t capacity_bytes = 100) {
  return *MakeEvictionPolicy(name, capacity_bytes);
}

void Insert(EvictionPolicy& policy, int number, size_t bytes = 10, double cost_us = 1000) {
  policy.OnInsert({.key = Key(number), .bytes = bytes, .cost_us = cost_us});
}

// All blocks in the order in which they would go.
std::vector<int> Order(EvictionPolicy& policy) {
  std::vector<int> order;
  policy.VisitVictims([&](const ChunkKey& key) {
    order.push_back(NumberOf(key));
    return false;
  });
  return order;
}

int Evict(EvictionPolicy& policy) {
  std::optional<ChunkKey> victim;
  policy.VisitVictims([&](const ChunkKey& key) {
    victim = key;
    return true;
  });
  policy.OnEvict(victim.value());
  return NumberOf(*victim);
}

TEST(EvictionPolicyNamesTest, EachMakesAPolicyOfThatName) {
  EXPECT_EQ(EvictionPolicyNames().front(), "cost-aware");
  for (const std::string& name : EvictionPolicyNames()) EXPECT_EQ(Make(name)->name(), name);
}

TEST(EvictionPolicyNamesTest, AnUnknownNameIsRefusedWithThoseThatThereAre) {
  const absl::Status status = MakeEvictionPolicy("mru", 100).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'mru'"));
  for (const std::string& name : EvictionPolicyNames()) EXPECT_THAT(std::string(status.message()), HasSubstr(name));
}

class EveryPolicyTest : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Policies, EveryPolicyTest, testing::ValuesIn(EvictionPolicyNames()), [](const auto& policy) {
  std::string name = policy.param;
  std::erase(name, '-');
  return name;
});

TEST_P(EveryPolicyTest, CallsWithUnknownKeysDoNothing) {
  const auto policy = Make(GetParam());
  policy->OnAccess(Key(1));
  policy->OnMiss(Key(1));
  policy->SetCost(Key(1), 5);
  policy->OnEvict(Key(1));
  policy->OnRemove(Key(1));
  EXPECT_THAT(Order(*policy), IsEmpty());
  Insert(*policy, 2);
  policy->OnRemove(Key(1));
  EXPECT_THAT(Order(*policy), ElementsAre(2));
}

TEST_P(EveryPolicyTest, ABlockThatIsInsertedAgainIsThereOnce) {
  const auto policy = Make(GetParam());
  Insert(*policy, 1, 60);
  Insert(*policy, 1, 20);
  EXPECT_THAT(Order(*policy), ElementsAre(1));
  EXPECT_TRUE(policy->Admits({.key = Key(2), .bytes = 80, .cost_us = 1})) << "it takes 20 of 100 bytes now";
  policy->OnRemove(Key(1));
  EXPECT_THAT(Order(*policy), IsEmpty());
}

TEST_P(EveryPolicyTest, WhatIsRefusedStaysAndTheNextIsAsked) {
  const auto policy = Make(GetParam());
  for (int i = 0; i < 5; ++i) Insert(*policy, i);
  const std::vector<int> order = Order(*policy);
  int asked = 0;
  policy->VisitVictims([&](const ChunkKey&) { return ++asked == 2; });
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(Order(*policy), order) << "nothing leaves before OnEvict";
  policy->OnEvict(Key(order[1]));
  EXPECT_THAT(Order(*policy), ElementsAre(order[0], order[2], order[3], order[4]));
}

TEST_P(EveryPolicyTest, AdmitsWhereThereIsRoom) {
  const auto policy = Make(GetParam());
  Insert(*policy, 1, 60, 1e9);
  EXPECT_TRUE(policy->Admits({.key = Key(2), .bytes = 40, .cost_us = 1}));
}

TEST_P(EveryPolicyTest, HoldsWhatATierHolds) {
  constexpr size_t kCapacity = 2000;
  const auto policy = Make(GetParam(), kCapacity);
  std::mt19937 random(7);
  std::map<int, size_t> tier;
  size_t used = 0;
  const auto forget = [&](int number) {
    used -= tier.at(number);
    tier.erase(number);
  };
  for (int step = 0; step < 20'000; ++step) {
    const int number = static_cast<int>(std::min(random() % 300, random() % 300));
    const size_t bytes = 1 + number % 50;
    if (random() % 50 == 0) {
      policy->OnRemove(Key(number));
      if (tier.contains(number)) forget(number);
    } else if (random() % 20 == 0) {
      policy->SetCost(Key(number), static_cast<double>(random() % 1000));
    } else if (tier.contains(number)) {
      policy->OnAccess(Key(number));
    } else {
      policy->OnMiss(Key(number));
      policy->Admits({.key = Key(number), .bytes = bytes, .cost_us = 100});
      while (used + bytes > kCapacity) {
        // A tenth of the tier is leased.
        std::optional<ChunkKey> victim;
        policy->VisitVictims([&](const ChunkKey& key) {
          EXPECT_TRUE(tier.contains(NumberOf(key)));
          if (NumberOf(key) % 10 == 0) return false;
          victim = key;
          return true;
        });
        ASSERT_TRUE(victim.has_value());
        policy->OnEvict(*victim);
        forget(NumberOf(*victim));
      }
      Insert(*policy, number, bytes, static_cast<double>(random() % 1000));
      tier[number] = bytes;
      used += bytes;
    }
    if (step % 100 != 0) continue;
    const std::vector<int> order = Order(*policy);
    ASSERT_EQ(order.size(), tier.size()) << "each once";
    for (const int visited : std::set<int>(order.begin(), order.end())) ASSERT_TRUE(tier.contains(visited));
    ASSERT_EQ(std::set<int>(order.begin(), order.end()).size(), tier.size());
  }
}

TEST_P(EveryPolicyTest, AnAccessDoesNotAllocate) {
  const auto policy = Make(GetParam(), 10'000);
  for (int i = 0; i < 1000; ++i) Insert(*policy, i);
  const size_t before = allocations_total;
  for (int i = 0; i < 5000; ++i) policy->OnAccess(Key(i * 7 % 1000));
  EXPECT_EQ(allocations_total, before);
}

TEST(LruPolicyTest, TheLeastRecentlyUsedGoesFirst) {
  const auto policy = Make("lru");
  for (const int number : {1, 2, 3, 4}) Insert(*policy, number);
  policy->OnAccess(Key(1));
  policy->OnAccess(Key(3));
  EXPECT_THAT(Order(*policy), ElementsAre(2, 4, 1, 3));
}

TEST(S3FifoPolicyTest, OneUseInTheSmallQueueLeadsToTheMainQueue) {
  const auto policy = Make("s3-fifo");
  for (int i = 0; i < 4; ++i) Insert(*policy, i);
  policy->OnAccess(Key(0));
  policy->OnAccess(Key(2));
  // 1 and 3 pass through; 0 and 2 moved to the main queue when their turn came.
  EXPECT_EQ(Evict(*policy), 1);
  EXPECT_EQ(Evict(*policy), 3);
  EXPECT_THAT(Order(*policy), ElementsAre(0, 2));
  // In the main queue a use is a second round.
  policy->OnAccess(Key(0));
  EXPECT_EQ(Evict(*policy), 2);
}

TEST(S3FifoPolicyTest, AGhostReturnsToTheMainQueue) {
  const auto policy = Make("s3-fifo");
  Insert(*policy, 1);
  EXPECT_EQ(Evict(*policy), 1);
  Insert(*policy, 1);
  for (const int number : {2, 3}) Insert(*policy, number);
  EXPECT_THAT(Order(*policy), ElementsAre(2, 3, 1));
}

TEST(S3FifoPolicyTest, GhostsAreBounded) {
  const auto policy = Make("s3-fifo", 100);
  Insert(*policy, 1);
  Evict(*policy);
  for (int i = 2; i < 20; ++i) {
    Insert(*policy, i);
    Evict(*policy);
  }
  Insert(*policy, 1);  // its ghost is gone: 99 bytes of ghosts came after it
  Insert(*policy, 50);
  EXPECT_THAT(Order(*policy), ElementsAre(1, 50));
}

TEST(S3FifoPolicyTest, WhatWasRemovedLeavesNoGhost) {
  const auto policy = Make("s3-fifo");
  Insert(*policy, 1);
  policy->OnRemove(Key(1));
  Insert(*policy, 1);
  Insert(*policy, 2);
  EXPECT_THAT(Order(*policy), ElementsAre(1, 2));
}

TEST(TinyLfuPolicyTest, WhatIsAskedForOnceDoesNotDisplaceWhatIsAskedForOften) {
  const auto policy = Make("tinylfu", 1000);
  for (int i = 0; i < 100; ++i) {
    policy->OnMiss(Key(i));
    Insert(*policy, i);
  }
  for (int i = 0; i < 2 * 99; ++i) policy->OnAccess(Key(i % 99));
  for (int i = 1000; i < 1200; ++i) {
    policy->OnMiss(Key(i));
    Evict(*policy);
    Insert(*policy, i);
  }
  const std::vector<int> order = Order(*policy);
  const int kept = static_cast<int>(std::count_if(order.begin(), order.end(), [](int number) { return number < 99; }));
  EXPECT_GE(kept, 97);
}

TEST(TinyLfuPolicyTest, WhatIsAskedForMoreOftenEntersTheMainPart) {
  const auto policy = Make("tinylfu", 100);  // a window of one byte: whatever is in it waits for a contest
  for (int i = 0; i < 10; ++i) {
    policy->OnMiss(Key(i));
    policy->OnMiss(Key(i));
    Insert(*policy, i);
  }
  for (int miss = 0; miss < 4; ++miss) policy->OnMiss(Key(100));
  EXPECT_TRUE(policy->Admits({.key = Key(100), .bytes = 10, .cost_us = 1}));
  EXPECT_FALSE(policy->Admits({.key = Key(200), .bytes = 10, .cost_us = 1})) << "never asked for";
  EXPECT_EQ(Evict(*policy), 0) << "9 waits in the window and was asked for later than 0, the oldest in the main part";
  policy->OnMiss(Key(200));
  Insert(*policy, 200);
  EXPECT_EQ(Evict(*policy), 200) << "asked for once";
  Insert(*policy, 100);
  EXPECT_EQ(Evict(*policy), 1) << "100 was asked for four times";
}

TEST(TinyLfuPolicyTest, WhoeverWonAContestIsInTheMainPart) {
  const auto policy = Make("tinylfu", 100);
  for (int i = 0; i < 10; ++i) Insert(*policy, i);
  for (int ask = 0; ask < 10; ++ask) {
    for (int i = 1; i < 9; ++i) policy->OnMiss(Key(i));
  }
  for (int ask = 0; ask < 3; ++ask) policy->OnMiss(Key(9));
  EXPECT_EQ(Evict(*policy), 0) << "9 waits in the window and was asked for more often";
  EXPECT_EQ(Evict(*policy), 1) << "9 left the window and need not win again, against 1";
}

TEST(CostAwarePolicyTest, TheCheapestToBringBackGoesFirst) {
  const auto policy = Make("cost-aware");
  Insert(*policy, 1, 10, 3000);
  Insert(*policy, 2, 10, 1000);
  Insert(*policy, 3, 10, 2000);
  EXPECT_THAT(Order(*policy), ElementsAre(2, 3, 1));
  policy->SetCost(Key(1), 50);  // a copy on disk
  EXPECT_THAT(Order(*policy), ElementsAre(1, 2, 3));
  policy->SetCost(Key(1), 3000);  // and its loss
  EXPECT_THAT(Order(*policy), ElementsAre(2, 3, 1));
}

TEST(CostAwarePolicyTest, TheLargestOfEqualCostGoesFirst) {
  const auto policy = Make("cost-aware");
  Insert(*policy, 1, 10, 1000);
  Insert(*policy, 2, 40, 1000);
  Insert(*policy, 3, 20, 1000);
  EXPECT_THAT(Order(*policy), ElementsAre(2, 3, 1));
  Insert(*policy, 1, 80, 1000);
  EXPECT_THAT(Order(*policy), ElementsAre(1, 2, 3)) << "a new size counts";
}

TEST(CostAwarePolicyTest, UsesMakeUpForCost) {
  const auto policy = Make("cost-aware");
  Insert(*policy, 1, 10, 4000);
  Insert(*policy, 2, 10, 1000);
  for (int use = 0; use < 8; ++use) policy->OnAccess(Key(2));
  EXPECT_THAT(Order(*policy), ElementsAre(1, 2));
}

TEST(CostAwarePolicyTest, UsesOfABlockThatWasAwayCount) {
  const auto policy = Make("cost-aware");
  Insert(*policy, 1, 10, 4000);
  Insert(*policy, 2, 10, 1000);
  for (int use = 0; use < 8; ++use) policy->OnAccess(Key(2));
  policy->OnEvict(Key(2));
  for (int miss = 0; miss < 3; ++miss) policy->OnMiss(Key(3));
  Insert(*policy, 2, 10, 1000);
  Insert(*policy, 3, 10, 4000);
  EXPECT_THAT(Order(*policy), ElementsAre(1, 2, 3));
}

TEST(CostAwarePolicyTest, OldUsesAreForgotten) {
  const auto policy = Make("cost-aware");
  Insert(*policy, 1);
  for (int use = 0; use < 50; ++use) policy->OnAccess(Key(1));
  Insert(*policy, 2);
  // 16 uses a block are a half-life.
  for (int use = 0; use < 1000; ++use) policy->OnMiss(Key(1000 + use));
  policy->OnAccess(Key(2));
  policy->OnAccess(Key(2));
  EXPECT_THAT(Order(*policy), ElementsAre(1, 2));
}

TEST(CostAwarePolicyTest, ASecondUseCountsForMoreThanTheFirst) {
  const auto policy = Make("cost-aware");
  Insert(*policy, 1, 10, 1000);
  policy->OnAccess(Key(1));
  Insert(*policy, 2, 10, 4000);
  EXPECT_THAT(Order(*policy), ElementsAre(2, 1)) << "four times as dear, but used once only";
}

TEST(CostAwarePolicyTest, AdmitsWhatIsWorthMoreThanAllThatItDisplaces) {
  const auto policy = Make("cost-aware", 100);
  for (int i = 0; i < 10; ++i) Insert(*policy, i, 10, 1000);
  for (int i = 0; i < 20; ++i) policy->OnAccess(Key(i % 10));
  const auto admits = [&](size_t bytes, double cost_us) {
    return policy->Admits({.key = Key(100), .bytes = bytes, .cost_us = cost_us});
  };
  EXPECT_FALSE(admits(10, 100));
  EXPECT_TRUE(admits(10, 10'000));
  EXPECT_FALSE(admits(100, 10'000)) << "ten blocks would go for it";
  EXPECT_TRUE(admits(100, 100'000));
  EXPECT_THAT(Order(*policy).size(), 10);
}

}  // namespace
}  // namespace epic
