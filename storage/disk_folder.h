// The disk tier's folder as it is found at the start: locked, of our format version, its segments open.
//
// Owned by one DiskTier. Thread-compatible.
#ifndef EPIC_STORAGE_DISK_FOLDER_H_
#define EPIC_STORAGE_DISK_FOLDER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
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
  // The folder of a tier that does not run, locked until the object goes, with nothing changed. NOT_FOUND: there is no
  // tier; FAILED_PRECONDITION as for Open; DATA_LOSS: the format version cannot be read.
  static absl::StatusOr<std::unique_ptr<DiskFolder>> Look(const std::string& path);
  ~DiskFolder();
  DiskFolder(const DiskFolder&) = delete;
  DiskFolder& operator=(const DiskFolder&) = delete;

  // The segments that are there, by number, of `bytes_max` bytes in all: beyond that, and where one cannot be used, the
  // file is removed. RESOURCE_EXHAUSTED, PERMISSION_DENIED, UNAVAILABLE: the system does not let it.
  absl::StatusOr<std::map<uint32_t, std::unique_ptr<SegmentFile>>> OpenSegments(size_t bytes_max, bool direct_io) const;

  // The segment files that are there, by number.
  absl::StatusOr<std::map<uint32_t, std::string>> SegmentPaths() const;

  // What a file system with `free_bytes_min` to spare can give; 0 where it does not tell.
  size_t BytesToGrow(size_t free_bytes_min) const;

  std::string IndexPath() const { return path_ + "/index"; }
  std::string SegmentPath(uint32_t number) const;

 private:
  DiskFolder(std::string path, int lock) : path_(std::move(path)), lock_(lock) {}
  // The version that the folder says; nothing where it says none that can be read. FAILED_PRECONDITION: a newer one.
  absl::StatusOr<std::optional<uint32_t>> ReadFormat() const;
  absl::Status CheckFormat() const;
  absl::Status RemoveContents() const;

  const std::string path_;
  const int lock_;
};

}  // namespace epic

#endif  // EPIC_STORAGE_DISK_FOLDER_H_
