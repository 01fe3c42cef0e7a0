// How a manifest is opened, and what it counts.
#ifndef EPIC_STORAGE_MANIFEST_OPTIONS_H_
#define EPIC_STORAGE_MANIFEST_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace rocksdb {
class Env;
}  // namespace rocksdb

namespace epic {

struct ManifestOptions {
  std::string folder;
  // Of the second copy; empty: `folder` + "-copy". May be on another disk, but not as its mount point: a copy is
  // replaced by renaming folders beside it.
  std::string copy_folder;
  // Documents and chunk lists are refused where the file system of either folder has less than this left, so that what
  // RocksDB has to write besides, deletions and pins still find room.
  uint64_t free_bytes_min = uint64_t{64} << 20;
  // What a user may still write to the file system of a folder, in bytes; empty: what statvfs says.
  std::function<absl::StatusOr<uint64_t>(const std::string& folder)> free_bytes;
  // Gets a line of text for every repair, for every read that met damage, and when changes stop; called on any thread.
  // Empty: it is logged as a warning.
  std::function<void(const std::string& line)> warn;
  // Where the databases' files are; not owned, outlives the manifest; nullptr: the system's. For fault injection.
  rocksdb::Env* env = nullptr;
};

// `folder` + "-copy".
std::string DefaultManifestCopyFolder(const std::string& folder);

// Since the opening.
struct ManifestCounters {
  int64_t changes_total = 0;
  int64_t groups_total = 0;           // batches in which they were written, each with one sync a copy
  int64_t reads_from_copy_total = 0;  // that the first copy could not answer for damage or an I/O error
  int64_t repairs_at_open_total = 0;  // copies that were brought up, replaced or migrated
};

}  // namespace epic

#endif  // EPIC_STORAGE_MANIFEST_OPTIONS_H_
