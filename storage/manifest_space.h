// Refuses what can wait while there is still room to write what cannot.
#ifndef EPIC_STORAGE_MANIFEST_SPACE_H_
#define EPIC_STORAGE_MANIFEST_SPACE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/manifest_options.h"

namespace epic {

// By statvfs. UNAVAILABLE with the system's reason. Thread-safe.
absl::StatusOr<uint64_t> FreeBytes(const std::string& folder);

// RESOURCE_EXHAUSTED naming the folder, its free bytes and the limit where one of the two has less than the limit.
// Costs a system call a folder.
absl::Status CheckFreeSpace(const ManifestOptions& options);

}  // namespace epic

#endif  // EPIC_STORAGE_MANIFEST_SPACE_H_
