// The gRPC transport between a real cache node and a real client, through the conformance suite of all transports.
#include <memory>

#include "cache_node/cache_node.h"
#include "cache_node/harness_server.h"
#include "transfer/conformance.h"
#include "transfer/grpc_block_client.h"

namespace epic {
namespace {

class GrpcSourceHarness : public BlockSourceHarness {
 public:
  BlockSource& source() override { return client_; }
  KvShape shape() const override { return kSyntheticShape; }
  int64_t leases() override { return static_cast<int64_t>(harness_.server().node().StoreStats().leases); }

 private:
  ServiceHarness harness_;
  GrpcBlockClient client_{harness_.channel(), harness_.server().address()};
};

std::unique_ptr<BlockSourceHarness> MakeGrpcSource() { return std::make_unique<GrpcSourceHarness>(); }
INSTANTIATE_TEST_SUITE_P(Grpc, BlockSourceConformance, testing::Values(&MakeGrpcSource));

TEST(GrpcBlockClient, BlocksMayOutliveTheirClientAndAreStillReleased) {
  ServiceHarness harness;
  auto client = std::make_unique<GrpcBlockClient>(harness.channel(), harness.server().address());
  auto blocks = client->Locate(SyntheticQuery({TokenRange(1, 16)}), Soon());
  ASSERT_TRUE(blocks.ok()) << blocks.status();
  client.reset();
  EXPECT_EQ(harness.server().node().StoreStats().leases, 1u);
  blocks->clear();
  while (harness.server().node().StoreStats().leases != 0) std::this_thread::yield();
}

TEST(GrpcBlockClient, ANodeThatIsGoneIsUnavailableByName) {
  ServiceHarness harness;
  GrpcBlockClient client(harness.channel(), "node-b:7401");
  const auto blocks = client.Locate(SyntheticQuery({TokenRange(1, 16)}), Soon());
  ASSERT_TRUE(blocks.ok()) << blocks.status();
  harness.server().Shutdown(std::chrono::milliseconds(0));
  std::vector<std::byte> out(64);
  const absl::Status status = client.Read(*(*blocks)[0], {.length = 64}, out, Soon());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("node-b:7401"));
}

}  // namespace
}  // namespace epic
