// Messages about files that came from outside: every one starts with the file, and text out of the file is made safe to
// print, because a hostile file must not be able to put control characters or megabytes into a log or a terminal.
//
// Two kinds of refusal, so that a caller can tell them apart: a broken file (INVALID_ARGUMENT) and a sound file that
// EPIC does not run (UNIMPLEMENTED). Pure functions, safe from any thread.
#ifndef EPIC_ENGINE_FILES_FILE_ERROR_H_
#define EPIC_ENGINE_FILES_FILE_ERROR_H_

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace epic {

// `text` in double quotes, bytes outside printable ASCII as \xNN, cut after 96 bytes.
std::string Quoted(std::string_view text);

// The file contradicts its format or itself.
template <typename... Arguments>
absl::Status BrokenFile(const std::string& path, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return absl::InvalidArgumentError(
      fmt::format("{}: {}", path, fmt::format(format, std::forward<Arguments>(arguments)...)));
}

// The file is sound, but asks for a computation that EPIC does not have.
template <typename... Arguments>
absl::Status NotRunHere(const std::string& path, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return absl::UnimplementedError(
      fmt::format("{}: {}", path, fmt::format(format, std::forward<Arguments>(arguments)...)));
}

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_FILE_ERROR_H_
