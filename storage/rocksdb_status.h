// RocksDB's errors in our words.
#ifndef EPIC_STORAGE_ROCKSDB_STATUS_H_
#define EPIC_STORAGE_ROCKSDB_STATUS_H_

#include <string>

#include "absl/status/status.h"
#include "rocksdb/status.h"

namespace epic {

// For an operation on the open database in `folder`: Corruption is DATA_LOSS, a full disk RESOURCE_EXHAUSTED, other I/O
// errors UNAVAILABLE, the rest INTERNAL. The message names the folder and keeps RocksDB's own words.
[[nodiscard]] absl::Status FromRocksDb(const rocksdb::Status& status, const std::string& folder);

// For opening it, beyond these: a folder that another instance has open is FAILED_PRECONDITION, one that may not be
// written PERMISSION_DENIED, a file that is gone DATA_LOSS, contents that this RocksDB does not know
// FAILED_PRECONDITION.
[[nodiscard]] absl::Status FromRocksDbOpen(const rocksdb::Status& status, const std::string& folder);

}  // namespace epic

#endif  // EPIC_STORAGE_ROCKSDB_STATUS_H_
