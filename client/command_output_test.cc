#include "client/command_output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace epic::client {
namespace {

using testing::HasSubstr;
using testing::Not;

ClusterStatus TwoWorkers() {
  ClusterStatus status{"1.2.3", 5000, {}};
  MemberStatus node;
  node.role = "cache node";
  node.address = "node:1";
  node.health = "serving";
  MemberStatus good = node;
  good.role = "worker";
  good.address = "good:1";
  good.shadow = {{"legolink:16", 256, 0.984375, 0.01234, ""}};
  MemberStatus bad = good;
  bad.address = "bad:1";
  bad.shadow = {{"cacheblend:15", 3, 1, 0, ""}, {"legolink:2", 40, 0.5, 0.75, "the first token agrees in 50.0 %"}};
  status.members = {node, good, bad};
  return status;
}

TEST(StatusTableTest, HasARowForEachWorkerAndLinkerThatWasCheckedAndMarksWhatFallsShort) {
  EXPECT_THAT(StatusTable(TwoWorkers()),
              HasSubstr("\n\n"
                        "worker  linker         shadow checks  first token agrees  mean KL, nats  problem\n"
                        "------  -------------  -------------  ------------------  -------------  "
                        "--------------------------------\n"
                        "good:1  legolink:16              256              98.4 %         0.0123\n"
                        "bad:1   cacheblend:15              3             100.0 %         0.0000\n"
                        "bad:1   legolink:2                40              50.0 %         0.7500  "
                        "the first token agrees in 50.0 %\n"));
}

TEST(StatusTableTest, SaysNothingOfShadowChecksWhereThereAreNone) {
  ClusterStatus status = TwoWorkers();
  for (MemberStatus& member : status.members) member.shadow.clear();
  const std::string table = StatusTable(status);
  EXPECT_THAT(table, HasSubstr("bad:1"));
  EXPECT_THAT(table, Not(HasSubstr("shadow")));
}

TEST(StatusJsonTest, CarriesTheSame) {
  const nlohmann::json json = ToJson(TwoWorkers());
  EXPECT_EQ(json["members"][0]["shadow"], nlohmann::json::array());
  const nlohmann::json expected = {{"linker", "legolink:2"},
                                   {"checks", 40},
                                   {"first_token_agreement", 0.5},
                                   {"mean_kl", 0.75},
                                   {"problem", "the first token agrees in 50.0 %"}};
  EXPECT_EQ(json["members"][2]["shadow"][1], expected);
}

}  // namespace
}  // namespace epic::client
