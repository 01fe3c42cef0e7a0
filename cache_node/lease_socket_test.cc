// Leases of readers on this host: they end with the reader's connection, whoever ends it, and not before.
#include "cache_node/lease_socket.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "core/kv_block_testing.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/block_store.h"
#include "transfer/lease_session.h"

namespace epic {
namespace {

using testing::HasSubstr;

constexpr uint64_t kInstance = 0x1234;

class LeaseSocketTest : public testing::Test {
 protected:
  LeaseSocketTest() {
    std::string folder = (std::filesystem::path(testing::TempDir()) / "epic_lease_XXXXXX").string();
    EXPECT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    path_ = folder + "/leases.sock";
  }
  ~LeaseSocketTest() override {
    socket_.reset();
    std::filesystem::remove_all(folder_);
  }
  absl::Status Open(std::vector<uid_t> allowed = {geteuid()}, size_t sessions_max = 8) {
    auto socket = LeaseSocket::Open({.path = path_, .allowed_uids = std::move(allowed), .sessions_max = sessions_max},
                                    kInstance, &leases_);
    if (socket.ok()) socket_ = *std::move(socket);
    return socket.status();
  }
  BlockStore::Lease MakeLease(int32_t token) {
    const KvBlockInfo info = MakeTestBlockInfo({.layers = 1, .kv_heads = 1, .head_dim = 8}, {token});
    BlockStore::Reservation reservation = store_->Reserve(KvBlockBytes(info)).value();
    WriteTestBlock(info, reservation.bytes());
    return store_->Publish(std::move(reservation)).value();
  }
  // Until the node's thread has seen it.
  void WaitForSessions(size_t count) {
    while (leases_.session_count() != count) usleep(200);
  }

  std::string folder_;
  std::string path_;
  const std::unique_ptr<BlockStore> store_ = BlockStore::Create({.capacity_bytes = size_t{1} << 20}).value();
  LeaseTable leases_{64, SystemRandom64};
  std::unique_ptr<LeaseSocket> socket_;
};

TEST_F(LeaseSocketTest, ASessionLastsAsLongAsItsConnection) {
  ASSERT_TRUE(Open().ok());
  auto session = LeaseSession::Connect(path_, kInstance);
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_TRUE((*session)->IsOpen());
  ASSERT_TRUE(leases_.GrantInSession(MakeLease(1), (*session)->id()).ok());
  ASSERT_TRUE(leases_.GrantInSession(MakeLease(2), (*session)->id()).ok());
  leases_.Sweep(LeaseTable::TimePoint::max());
  EXPECT_EQ(store_->Stats().leases, 2u);
  session->reset();
  WaitForSessions(0);
  EXPECT_EQ(store_->Stats().leases, 0u);
  EXPECT_EQ(leases_.size(), 0u);
}

TEST_F(LeaseSocketTest, AReaderThatIsKilledLosesItsLeasesAndAStoppedOneDoesNot) {
  ASSERT_TRUE(Open().ok());
  int told[2];
  ASSERT_EQ(pipe(told), 0);
  const pid_t reader = fork();
  if (reader == 0) {
    const auto session = LeaseSession::Connect(path_, kInstance);
    const uint64_t id = session.ok() ? (*session)->id() : 0;
    if (write(told[1], &id, sizeof(id)) != sizeof(id)) _exit(1);
    while (true) pause();
  }
  uint64_t id = 0;
  ASSERT_EQ(read(told[0], &id, sizeof(id)), static_cast<ssize_t>(sizeof(id)));
  if (id == 0) kill(reader, SIGKILL);
  ASSERT_NE(id, 0u);
  ASSERT_TRUE(leases_.GrantInSession(MakeLease(1), id).ok());
  ASSERT_EQ(kill(reader, SIGSTOP), 0);
  int status = 0;
  ASSERT_EQ(waitpid(reader, &status, WUNTRACED), reader);
  // Others come and go; time passes; the one that does not move keeps its lease.
  for (int i = 0; i < 3; ++i) {
    auto other = LeaseSession::Connect(path_, kInstance);
    ASSERT_TRUE(other.ok());
    other->reset();
    WaitForSessions(1);
  }
  leases_.Sweep(LeaseTable::TimePoint::max());
  EXPECT_EQ(store_->Stats().leases, 1u);
  ASSERT_EQ(kill(reader, SIGKILL), 0);
  ASSERT_EQ(waitpid(reader, &status, 0), reader);
  WaitForSessions(0);
  EXPECT_EQ(store_->Stats().leases, 0u);
  close(told[0]);
  close(told[1]);
}

TEST_F(LeaseSocketTest, OtherUsersAndOnesTooManyAreRefused) {
  ASSERT_TRUE(Open({geteuid() + 1}).ok());
  EXPECT_EQ(LeaseSession::Connect(path_, kInstance).status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(socket_->refused_total(), 1u);
  socket_.reset();
  ASSERT_TRUE(Open({geteuid()}, 1).ok());
  const auto first = LeaseSession::Connect(path_, kInstance);
  ASSERT_TRUE(first.ok());
  EXPECT_FALSE(LeaseSession::Connect(path_, kInstance).ok());
  EXPECT_TRUE((*first)->IsOpen());
}

TEST_F(LeaseSocketTest, ASocketOfAnotherNodeIsNotTakenForThisOnes) {
  ASSERT_TRUE(Open().ok());
  const absl::Status status = LeaseSession::Connect(path_, kInstance + 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(LeaseSession::Connect(folder_ + "/none", kInstance).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(LeaseSession::Connect(std::string(300, 'x'), kInstance).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(LeaseSocketTest, WhoTalksIsCutOff) {
  ASSERT_TRUE(Open().ok());
  const int descriptor = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path_.copy(address.sun_path, path_.size());
  ASSERT_EQ(connect(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  WaitForSessions(1);
  ASSERT_EQ(send(descriptor, "x", 1, 0), 1);
  WaitForSessions(0);
  close(descriptor);
}

TEST_F(LeaseSocketTest, TheNodesEndEndsSessionsAndTheNextNodeTakesThePath) {
  ASSERT_TRUE(Open().ok());
  const auto session = LeaseSession::Connect(path_, kInstance);
  ASSERT_TRUE(session.ok());
  const absl::Status second = LeaseSocket::Open({.path = path_, .allowed_uids = {geteuid()}}, 1, &leases_).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.message()), HasSubstr("another node listens"));
  WaitForSessions(1);
  socket_.reset();
  EXPECT_FALSE((*session)->IsOpen());
  EXPECT_EQ(leases_.session_count(), 0u);
  ASSERT_TRUE(Open().ok());
}

TEST_F(LeaseSocketTest, PathsThatCannotBeAreNamed) {
  path_ = std::string(200, 'x');
  EXPECT_THAT(std::string(Open().message()), HasSubstr("200 bytes, expected 1 to 107"));
  path_ = folder_ + "/file";
  { std::ofstream(path_) << "data"; }
  EXPECT_THAT(std::string(Open().message()), HasSubstr("is no socket"));
  EXPECT_TRUE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace epic
