#include "eval/whole_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "fmt/format.h"

namespace epic::eval {

absl::Status FileError(std::string_view what, const std::string& path) {
  return absl::ErrnoToStatus(errno, fmt::format("cannot {} {}", what, path));
}

absl::Status WriteAndSync(int file, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t count = write(file, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FileError("write", path);
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return fdatasync(file) == 0 ? absl::OkStatus() : FileError("sync", path);
}

absl::Status WriteFileWhole(const std::string& path, std::string_view bytes) {
  const std::string unfinished = fmt::format("{}.{}.unfinished", path, getpid());
  constexpr mode_t kMode = 0666;  // the user's umask takes away from it
  const int file = open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kMode);
  if (file < 0) return FileError("make", unfinished);
  absl::Status status = WriteAndSync(file, bytes, unfinished);
  if (close(file) != 0 && status.ok()) status = FileError("close", unfinished);
  if (status.ok() && rename(unfinished.c_str(), path.c_str()) != 0) status = FileError("replace", path);
  if (!status.ok()) unlink(unfinished.c_str());
  return status;
}

}  // namespace epic::eval
