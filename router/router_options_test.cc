#include "router/router_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace epic {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(RouterOptionsTest, AllProblemsAtOnce) {
  RouterOptions options;
  options.server.listen_address = "nowhere";
  options.cache_nodes = {"a:1", "b"};
  options.attempts_max = 17;
  options.member_status_timeout = std::chrono::milliseconds(1);
  const absl::Status status = options.Validate();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr("listen is \"nowhere\""));
  EXPECT_THAT(message, HasSubstr("cache-nodes is \"b\""));
  EXPECT_THAT(message, HasSubstr("workers is empty"));
  EXPECT_THAT(message, HasSubstr("attempts-max is 17; expected 1 to 16"));
  EXPECT_THAT(message, HasSubstr("member-status-timeout (ms) is 1; expected 10 to 60000"));
}

TEST(RouterOptionsTest, DeclaredOptionsReachTheStruct) {
  RouterOptions options;
  Config config("epic-router", "Test.");
  DeclareRouterOptions(&options, &config);
  const auto outcome =
      config.Parse({"--cache-nodes=a:1,b:2", "--workers=c:3", "--listen=127.0.0.1:0", "--attempts-max=2"},
                   [](const std::string&) { return std::nullopt; });
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_THAT(options.cache_nodes, ElementsAre("a:1", "b:2"));
  EXPECT_THAT(options.workers, ElementsAre("c:3"));
  EXPECT_EQ(options.attempts_max, 2);
  EXPECT_TRUE(options.Validate().ok());
}

}  // namespace
}  // namespace epic
