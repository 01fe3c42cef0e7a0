// The disk tier's folder as it is found at the start: locked, of our format version, its segments open.
//
// Owned by one DiskTier. Thread-compatible.
#ifndef EPIC_STORAGE_DISK_FOLDER_H_
#define EPIC_STORAGE_DISK_FOLDER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/segment_file.h"

namespace epic {

class DiskFolder {
 public:
  // Makes the folder where it is not there and locks it until the object goes. Where the format version cannot be read,
  // what the folder holds is removed. FAILED_PRECONDITION: locked by somebody else, or of a newer version;
  // PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAVAILABLE: the system does not let it.
  static absl::StatusOr<std::unique_ptr<DiskFolder>> Open(const std::string& path);
  ~DiskFolder();
  DiskFolder(const DiskFolder&) = delete;
  DiskFolder& operator=(const DiskFolder&) = delete;

  // The segments that are there, by number, of `bytes_max` bytes in all: beyond that, and where one cannot be used, the
  // file is removed. RESOURCE_EXHAUSTED, PERMISSION_DENIED, UNAVAILABLE: the system does not let it.
  absl::StatusOr<std::map<uint32_t, std::unique_ptr<SegmentFile>>> OpenSegments(size_t bytes_max, bool direct_io) const;

  // What a file system with `free_bytes_min` to spare can give; 0 where it does not tell.
  size_t BytesToGrow(size_t free_bytes_min) const;

  std::string IndexPath() const { return path_ + "/index"; }
  std::string SegmentPath(uint32_t number) const;

 private:
  DiskFolder(std::string path, int lock) : path_(std::move(path)), lock_(lock) {}
  absl::Status CheckFormat() const;
  absl::Status RemoveContents() const;

  const std::string path_;
  const int lock_;
};

}  // namespace epic

#endif  // EPIC_STORAGE_DISK_FOLDER_H_
