// For tests only: a child process that does one thing after the other until it is killed, and says what it has done.
//
// The child is the test program itself, started anew with one disabled test. What it is to do stands in two variables.
#ifndef EPIC_STORAGE_KILLED_CHILD_TESTING_H_
#define EPIC_STORAGE_KILLED_CHILD_TESTING_H_

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "gtest/gtest.h"

namespace epic {

inline constexpr char kChildFolderVariable[] = "EPIC_KILLED_CHILD_FOLDER";
inline constexpr char kChildFirstNumberVariable[] = "EPIC_KILLED_CHILD_FIRST";
inline constexpr int kChildReportDescriptor = 3;

// In the child: a line of what it does, or has done. Ends the process where nobody listens any more.
inline void ReportToParent(const std::string& line) {
  if (write(kChildReportDescriptor, line.data(), line.size()) != static_cast<ssize_t>(line.size())) _exit(1);
}

// Starts the child, which is the disabled test that `filter` names, kills it after `lines_before_kill` lines and
// returns all that it had written.
inline std::string RunAndKillChild(const std::string& filter, const std::string& folder, int first_number,
                                   int lines_before_kill) {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const std::string first = std::to_string(first_number);
  const std::string filter_flag = "--gtest_filter=" + filter;
  const pid_t child = fork();
  if (child == 0) {
    // dup2 leaves the copy open over exec; where the pipe has this number already, the flag goes.
    if (ends[1] == kChildReportDescriptor) {
      fcntl(ends[1], F_SETFD, 0);
    } else {
      dup2(ends[1], kChildReportDescriptor);
    }
    setenv(kChildFolderVariable, folder.c_str(), 1);
    setenv(kChildFirstNumberVariable, first.c_str(), 1);
    execl("/proc/self/exe", "killed_child", filter_flag.c_str(), "--gtest_also_run_disabled_tests", "--gtest_brief=1",
          nullptr);
    _exit(127);
  }
  EXPECT_GT(child, 0);
  close(ends[1]);
  std::string report;
  char buffer[4096];
  bool killed = false;
  while (true) {
    const ssize_t got = read(ends[0], buffer, sizeof(buffer));
    if (got <= 0) break;
    report.append(buffer, static_cast<size_t>(got));
    if (!killed && std::count(report.begin(), report.end(), '\n') >= lines_before_kill) {
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

}  // namespace epic

#endif  // EPIC_STORAGE_KILLED_CHILD_TESTING_H_
