// Waiting for the end: SIGTERM and SIGINT become an event that main() waits for.
//
//     EPIC_ASSIGN_OR_RETURN(auto shutdown, ShutdownSignal::Install());
//     ... start everything ...
//     spdlog::info("stopping: {}", shutdown->Wait());
//
// A second signal ends the process at once, as if nothing had been installed. SIGPIPE is ignored: a peer that is gone
// shows as an error of the write.
#ifndef EPIC_SERVER_SHUTDOWN_H_
#define EPIC_SERVER_SHUTDOWN_H_

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace epic {

class ShutdownSignal {
 public:
  // FAILED_PRECONDITION when one is installed already: signals belong to the process.
  static absl::StatusOr<std::unique_ptr<ShutdownSignal>> Install();
  // Restores the default handling of SIGTERM and SIGINT.
  ~ShutdownSignal();
  ShutdownSignal(const ShutdownSignal&) = delete;
  ShutdownSignal& operator=(const ShutdownSignal&) = delete;

  // Blocks until a signal came or Request was called. Returns why: "SIGTERM", "SIGINT" or Request's reason. Any number
  // of threads may wait.
  std::string Wait();
  // Whether there is a reason to stop, waiting up to `timeout` for one.
  bool WaitFor(std::chrono::milliseconds timeout);
  // Asks for the end from inside. The first reason is kept. Thread-safe.
  void Request(const std::string& reason);

 private:
  ShutdownSignal() = default;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace epic

#endif  // EPIC_SERVER_SHUTDOWN_H_
