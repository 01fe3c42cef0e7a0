#include "server/shutdown.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <thread>

#include "server/logging.h"

namespace epic {
namespace {

TEST(ShutdownTest, SigtermWakesEveryWaiter) {
  const auto shutdown = ShutdownSignal::Install();
  ASSERT_TRUE(shutdown.ok()) << shutdown.status();
  EXPECT_FALSE((*shutdown)->WaitFor(std::chrono::milliseconds(0)));
  std::string other;
  std::thread waiter([&] { other = (*shutdown)->Wait(); });
  kill(getpid(), SIGTERM);
  EXPECT_EQ((*shutdown)->Wait(), "SIGTERM");
  waiter.join();
  EXPECT_EQ(other, "SIGTERM");
  EXPECT_TRUE((*shutdown)->WaitFor(std::chrono::milliseconds(0)));
}

TEST(ShutdownTest, TheFirstReasonIsKept) {
  const auto shutdown = ShutdownSignal::Install();
  ASSERT_TRUE(shutdown.ok());
  (*shutdown)->Request("the disk is full");
  (*shutdown)->Request("later");
  EXPECT_EQ((*shutdown)->Wait(), "the disk is full");
}

TEST(ShutdownTest, OneAProcess) {
  {
    const auto first = ShutdownSignal::Install();
    ASSERT_TRUE(first.ok());
    EXPECT_EQ(ShutdownSignal::Install().status().code(), absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_TRUE(ShutdownSignal::Install().ok());
}

TEST(ShutdownTest, ASecondSignalEndsTheProcess) {
  EXPECT_EXIT(
      {
        const auto shutdown = ShutdownSignal::Install();
        kill(getpid(), SIGINT);
        (*shutdown)->Wait();
        kill(getpid(), SIGINT);
        while (true) pause();
      },
      testing::KilledBySignal(SIGINT), "");
}

TEST(ShutdownTest, SigpipeIsIgnored) {
  const auto shutdown = ShutdownSignal::Install();
  ASSERT_TRUE(shutdown.ok());
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[0]);
  EXPECT_EQ(write(ends[1], "x", 1), -1);
  close(ends[1]);
}

TEST(LoggingTest, UnknownLevelNamesTheLevels) {
  EXPECT_EQ(InitLogging("epic-test", "loud").message(),
            "log-level is \"loud\"; expected trace, debug, info, warning or error");
  EXPECT_TRUE(InitLogging("epic-test", "warning").ok());
}

}  // namespace
}  // namespace epic
