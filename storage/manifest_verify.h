// Looking at a manifest that no node has open.
#ifndef EPIC_STORAGE_MANIFEST_VERIFY_H_
#define EPIC_STORAGE_MANIFEST_VERIFY_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace epic {

struct ManifestReport {
  struct Copy {
    std::string folder;
    uint32_t version = 0;
    uint64_t epoch = 0;
    uint64_t sequence = 0;  // of the last change
    int64_t document_count = 0;
    int64_t chunk_list_count = 0;
    int64_t pin_count = 0;
  };
  Copy primary;
  Copy copy;
  // The next start makes the two equal; until then they may differ.
  bool one_is_behind = false;
  std::vector<std::string> faults;  // each a line that names the folder and the file or the key
};

// Reads and decodes every record of both copies, compares them, and fills `report` as far as it gets. Changes nothing.
// `copy_folder` empty: the default beside `folder`. OK where all is sound; DATA_LOSS where `report` has faults;
// FAILED_PRECONDITION where a running node has it, NOT_FOUND where there is no manifest in either folder.
absl::Status VerifyManifest(const std::string& folder, const std::string& copy_folder, ManifestReport* report);

}  // namespace epic

#endif  // EPIC_STORAGE_MANIFEST_VERIFY_H_
