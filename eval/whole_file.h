// Writing a result so that a reader finds all of it or what was there before.
#ifndef EPIC_EVAL_WHOLE_FILE_H_
#define EPIC_EVAL_WHOLE_FILE_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace epic::eval {

// Writes under another name in the same folder, syncs, then renames. Where it fails, the file of that name is as it was
// and nothing is left beside it. The error names the path and the system's reason. Safe from any thread, for
// different paths.
absl::Status WriteFileWhole(const std::string& path, std::string_view bytes);

// Writes all bytes to an open file and syncs it; `path` is for the error.
absl::Status WriteAndSync(int file, std::string_view bytes, const std::string& path);

// "cannot WHAT PATH: the system's reason", by errno.
absl::Status FileError(std::string_view what, const std::string& path);

}  // namespace epic::eval

#endif  // EPIC_EVAL_WHOLE_FILE_H_
