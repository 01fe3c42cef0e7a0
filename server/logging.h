// Sets up spdlog for a process: one line an event on standard error, with time in UTC, level and program.
#ifndef EPIC_SERVER_LOGGING_H_
#define EPIC_SERVER_LOGGING_H_

#include <string>

#include "absl/status/status.h"

namespace epic {

// Makes spdlog's default logger write to standard error from `level` on: trace, debug, info, warning, error.
// INVALID_ARGUMENT names the value and the levels. Thread-safe; the last call counts.
absl::Status InitLogging(const std::string& program, const std::string& level);

}  // namespace epic

#endif  // EPIC_SERVER_LOGGING_H_
