#include "server/shutdown.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "core/sync.h"

namespace epic {
namespace {

// The write end of the pipe that the handler may use, or -1. A handler may touch little else.
std::atomic<int> g_signal_pipe{-1};
static_assert(std::atomic<int>::is_always_lock_free);

void HandleSignal(int signal_number) {
  const int saved_errno = errno;
  const int pipe_end = g_signal_pipe.load();
  const char byte = static_cast<char>(signal_number);
  if (pipe_end >= 0 && write(pipe_end, &byte, 1) < 0) {
    // The pipe is full: it was told already.
  }
  errno = saved_errno;
}

}  // namespace

struct ShutdownSignal::State {
  int read_end = -1;
  int write_end = -1;
  Mutex mutex;
  CondVar changed;
  std::string reason EPIC_GUARDED_BY(mutex);
  std::thread reader;

  void SetReason(const std::string& text) {
    MutexLock lock(mutex);
    if (reason.empty()) reason = text;
    changed.NotifyAll();
  }

  // Turns bytes of the pipe into reasons until byte 0 says that the end has come.
  void ReadPipe() {
    char byte = 0;
    while (true) {
      const ssize_t count = read(read_end, &byte, 1);
      if (count < 0 && errno == EINTR) continue;
      if (count != 1 || byte == 0) return;
      SetReason(byte == SIGTERM ? "SIGTERM" : "SIGINT");
    }
  }
};

absl::StatusOr<std::unique_ptr<ShutdownSignal>> ShutdownSignal::Install() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "cannot make the pipe that signals come through");
  int expected = -1;
  if (!g_signal_pipe.compare_exchange_strong(expected, ends[1])) {
    close(ends[0]);
    close(ends[1]);
    return absl::FailedPreconditionError("another ShutdownSignal is installed in this process; there can be one");
  }
  std::unique_ptr<ShutdownSignal> shutdown(new ShutdownSignal());
  shutdown->state_ = std::make_unique<State>();
  State* const state = shutdown->state_.get();
  state->read_end = ends[0];
  state->write_end = ends[1];
  state->reader = std::thread([state] { state->ReadPipe(); });

  struct sigaction action = {};
  action.sa_handler = HandleSignal;
  // Reset after the first signal, so that a second one ends a process that hangs while it stops.
  action.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return shutdown;
}

ShutdownSignal::~ShutdownSignal() {
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  g_signal_pipe.store(-1);
  const char end = 0;
  while (write(state_->write_end, &end, 1) < 0 && errno == EINTR) {
  }
  state_->reader.join();
  close(state_->read_end);
  close(state_->write_end);
}

std::string ShutdownSignal::Wait() {
  MutexLock lock(state_->mutex);
  while (state_->reason.empty()) state_->changed.Wait(state_->mutex);
  return state_->reason;
}

bool ShutdownSignal::WaitFor(std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  MutexLock lock(state_->mutex);
  while (state_->reason.empty()) {
    if (!state_->changed.WaitUntil(state_->mutex, deadline)) return !state_->reason.empty();
  }
  return true;
}

void ShutdownSignal::Request(const std::string& reason) { state_->SetReason(reason.empty() ? "asked to" : reason); }

}  // namespace epic
