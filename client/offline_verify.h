// `epic cache verify --offline`: what a cache node keeps on disk, checked without a node. Changes nothing.
#ifndef EPIC_CLIENT_OFFLINE_VERIFY_H_
#define EPIC_CLIENT_OFFLINE_VERIFY_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace epic::client {

// The folders of a node, as its options name them.
struct OfflineFolders {
  std::string data_dir;
  std::string manifest_copy_dir;  // empty: manifest-copy in data_dir
  std::string disk_dir;           // empty: blocks in data_dir
};

// What was found in one part of a data directory.
struct OfflinePart {
  std::string name;                 // "manifest", "manifest copy" or "disk tier"
  std::string folder;               // where it is
  int64_t entries = 0;              // records, or blocks, that were read
  int64_t bytes = 0;                // of these
  std::vector<std::string> faults;  // a sentence each, naming the file or the key
  std::string note;                 // what is no fault and yet to be known; empty: nothing
};

// Checks the manifest, its copy and the disk tier. Faults are in the answer; errors say why nothing could be checked:
// NOT_FOUND where the folder is not there or holds no manifest, FAILED_PRECONDITION where a node runs on it or a newer
// version wrote it. `progress` (may be null) is called with a line now and then.
absl::StatusOr<std::vector<OfflinePart>> VerifyOffline(const OfflineFolders& folders,
                                                       const std::function<void(const std::string&)>& progress);

}  // namespace epic::client

#endif  // EPIC_CLIENT_OFFLINE_VERIFY_H_
