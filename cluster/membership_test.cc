#include "cluster/membership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace epic {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(StaticMembershipTest, AddressesComeInOrder) {
  const auto membership = MakeStaticMembership({"b:1", "a:1"}, {"w:2", "w:1"});
  ASSERT_TRUE(membership.ok()) << membership.status();
  EXPECT_THAT((*membership)->Current()->cache_nodes, ElementsAre("a:1", "b:1"));
  EXPECT_THAT((*membership)->Current()->workers, ElementsAre("w:1", "w:2"));
}

TEST(StaticMembershipTest, AllProblemsAtOnce) {
  const auto membership = MakeStaticMembership({}, {"w:1", "", "w:1"});
  EXPECT_EQ(membership.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(membership.status().message());
  EXPECT_THAT(message, HasSubstr("cache-nodes is empty"));
  EXPECT_THAT(message, HasSubstr("workers has an empty address"));
  EXPECT_THAT(message, HasSubstr("workers names w:1 twice"));
}

}  // namespace
}  // namespace epic
