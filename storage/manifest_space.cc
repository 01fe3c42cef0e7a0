#include "storage/manifest_space.h"

#include <sys/statvfs.h>

#include <cerrno>
#include <system_error>

#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {

absl::StatusOr<uint64_t> FreeBytes(const std::string& folder) {
  struct statvfs status = {};
  if (statvfs(folder.c_str(), &status) != 0) {
    return absl::UnavailableError(
        fmt::format("cannot ask for the free space of {}: {}", folder, std::generic_category().message(errno)));
  }
  return uint64_t{status.f_bavail} * status.f_frsize;
}

absl::Status CheckFreeSpace(const ManifestOptions& options) {
  for (const std::string* folder : {&options.folder, &options.copy_folder}) {
    EPIC_ASSIGN_OR_RETURN(const uint64_t free_bytes,
                          options.free_bytes ? options.free_bytes(*folder) : FreeBytes(*folder));
    if (free_bytes >= options.free_bytes_min) continue;
    return absl::ResourceExhaustedError(
        fmt::format("the disk of {} has {} bytes free, expected at least {}: nothing new is registered; free some "
                    "space or delete documents",
                    *folder, free_bytes, options.free_bytes_min));
  }
  return absl::OkStatus();
}

}  // namespace epic
