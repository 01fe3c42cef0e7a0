// kill -9 at random moments: what was acknowledged is there, what was not is there wholly or not at all.
//
// The test starts its own program again as a child that writes to the manifest and says on a pipe what it is about to
// do and what was acknowledged. The parent kills it and compares the folder with what it has read.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <sstream>
#include <string>

#include "gtest/gtest.h"
#include "storage/manifest.h"
#include "storage/manifest_testing.h"

namespace epic {
namespace {

constexpr char kFolderVariable[] = "EPIC_MANIFEST_CRASH_TEST_FOLDER";
constexpr char kFirstNumberVariable[] = "EPIC_MANIFEST_CRASH_TEST_FIRST";
constexpr int kReportDescriptor = 3;
constexpr int kRounds = 20;

void Report(const std::string& line) {
  ASSERT_EQ(write(kReportDescriptor, line.data(), line.size()), static_cast<ssize_t>(line.size()));
}

// The child: puts documents and deletes every third one, until it is killed. Does nothing when run by hand.
TEST(ManifestCrashChild, DISABLED_WritesUntilKilled) {
  const char* const folder = std::getenv(kFolderVariable);
  if (folder == nullptr) GTEST_SKIP() << "started by ManifestCrashTest only";
  const std::unique_ptr<Manifest> manifest = Manifest::Open(folder).value();
  for (int number = std::atoi(std::getenv(kFirstNumberVariable));; ++number) {
    const ChunkListRecord chunks = TestChunkList(number);
    Report(fmt::format("put {}\n", number));
    ASSERT_TRUE(manifest->PutDocument(TestDocument(number), &chunks).value());
    Report(fmt::format("acknowledged-put {}\n", number));
    if (number % 3 != 0) continue;
    Report(fmt::format("delete {}\n", number - 1));
    const absl::Status deleted = manifest->DeleteDocument("acme", TestDocument(number - 1).id);
    ASSERT_TRUE(deleted.ok() || absl::IsNotFound(deleted)) << deleted;
    Report(fmt::format("acknowledged-delete {}\n", number - 1));
  }
}

enum class Expected { kPresent, kAbsent, kEither };

// Starts the child, kills it after `lines_before_kill` lines and returns all that it had written.
std::string RunAndKill(const std::string& folder, int first_number, int lines_before_kill) {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const std::string first = std::to_string(first_number);
  const pid_t child = fork();
  if (child == 0) {
    // dup2 leaves the copy open over exec; where the pipe has this number already, the flag goes.
    if (ends[1] == kReportDescriptor) {
      fcntl(ends[1], F_SETFD, 0);
    } else {
      dup2(ends[1], kReportDescriptor);
    }
    setenv(kFolderVariable, folder.c_str(), 1);
    setenv(kFirstNumberVariable, first.c_str(), 1);
    execl("/proc/self/exe", "manifest_crash_test", "--gtest_filter=ManifestCrashChild.*",
          "--gtest_also_run_disabled_tests", "--gtest_brief=1", nullptr);
    _exit(127);
  }
  EXPECT_GT(child, 0);
  close(ends[1]);
  std::string report;
  char buffer[4096];
  int lines = 0;
  bool killed = false;
  while (true) {
    const ssize_t got = read(ends[0], buffer, sizeof(buffer));
    if (got <= 0) break;
    report.append(buffer, static_cast<size_t>(got));
    lines += static_cast<int>(std::count(buffer, buffer + got, '\n'));
    if (lines >= lines_before_kill && !killed) {
      killed = true;
      kill(child, SIGKILL);
    }
  }
  close(ends[0]);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "the child ended by itself";
  return report;
}

void Note(const std::string& report, std::map<int, Expected>* expected) {
  std::istringstream lines(report);
  std::string what;
  int number = 0;
  while (lines >> what >> number) {
    if (what == "acknowledged-put") {
      (*expected)[number] = Expected::kPresent;
    } else if (what == "acknowledged-delete") {
      (*expected)[number] = Expected::kAbsent;
    } else {
      (*expected)[number] = Expected::kEither;
    }
  }
}

TEST(ManifestCrashTest, WhatWasAcknowledgedSurvivesKill) {
  const TemporaryFolder folder;
  std::mt19937 random(11);
  std::map<int, Expected> expected;
  int64_t acknowledged = 0;
  for (int round = 0; round < kRounds; ++round) {
    const int first_number = expected.empty() ? 1 : expected.rbegin()->first + 1;
    Note(RunAndKill(folder.path(), first_number, 1 + static_cast<int>(random() % 60)), &expected);
    const absl::StatusOr<std::unique_ptr<Manifest>> manifest = Manifest::Open(folder.path());
    ASSERT_TRUE(manifest.ok()) << manifest.status();
    int64_t present = 0;
    for (auto& [number, expectation] : expected) {
      const std::string id = TestDocument(number).id;
      const absl::StatusOr<DocumentRecord> document = (*manifest)->GetDocument("acme", id);
      const bool has_chunks = (*manifest)->GetChunkList("acme", id, TestFingerprint(), "plain").ok();
      ASSERT_TRUE(document.ok() || absl::IsNotFound(document.status())) << document.status();
      ASSERT_EQ(document.ok(), has_chunks) << "half of a batch, round " << round << ", document " << number;
      if (expectation != Expected::kEither) {
        ASSERT_EQ(document.ok(), expectation == Expected::kPresent) << "round " << round << ", document " << number;
        ++acknowledged;
      }
      if (document.ok()) {
        ASSERT_EQ(*document, TestDocument(number));
        ++present;
      }
      expectation = document.ok() ? Expected::kPresent : Expected::kAbsent;
    }
    ASSERT_EQ((*manifest)->CountDocuments().value(), present);
  }
  EXPECT_GT(acknowledged, kRounds);
}

}  // namespace
}  // namespace epic
