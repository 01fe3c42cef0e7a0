// Looking at a disk tier that no node has open.
#ifndef EPIC_STORAGE_DISK_VERIFY_H_
#define EPIC_STORAGE_DISK_VERIFY_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace epic {

struct DiskReport {
  size_t blocks_total = 0;  // that the index names and that can be there
  size_t blocks_done = 0;
  uint64_t bytes_done = 0;
  std::vector<std::string> faults;  // each a line that names the file or the chunk
};

// Reads every block that the index names and compares it with its key and checksums. Changes nothing. Fills `report` as
// far as it gets and calls `progress` (may be null) after each block. OK where all is sound; DATA_LOSS where `report`
// has faults; NOT_FOUND where there is no disk tier in the folder; FAILED_PRECONDITION where a running node has it or a
// newer version wrote it.
absl::Status VerifyDiskTier(const std::string& folder, DiskReport* report,
                            const std::function<void(const DiskReport&)>& progress);

}  // namespace epic

#endif  // EPIC_STORAGE_DISK_VERIFY_H_
