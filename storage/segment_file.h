// One preallocated file of the disk tier and the I/O on it: whole blocks at offsets, without a copy of the block.
//
// With direct I/O, bytes go between the disk and the caller's memory past the page cache, which would hold every block
// a second time; a file system that does not take it is used with buffered I/O. Nothing is synced.
//
// Owns the descriptor; the file stays when the object goes. Thread-safe: calls on ranges that do not overlap do not
// disturb each other.
#ifndef EPIC_STORAGE_SEGMENT_FILE_H_
#define EPIC_STORAGE_SEGMENT_FILE_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace epic {

// Of offsets, of lengths and of the caller's memory: what direct I/O asks for on every disk that is in use.
inline constexpr size_t kDiskAlignmentBytes = 4096;

// `bytes` rounded up to that.
constexpr size_t DiskPaddedBytes(size_t bytes) {
  return (bytes + kDiskAlignmentBytes - 1) / kDiskAlignmentBytes * kDiskAlignmentBytes;
}

class SegmentFile {
 public:
  // A new file with `bytes` reserved on the disk. RESOURCE_EXHAUSTED where the disk is full, else UNAVAILABLE; no file
  // is left behind then. REQUIRES: bytes is a multiple of kDiskAlignmentBytes, not 0.
  static absl::StatusOr<std::unique_ptr<SegmentFile>> Create(const std::string& path, size_t bytes, bool direct_io);
  // A file that is there. RESOURCE_EXHAUSTED and PERMISSION_DENIED where the fault is not the file's, else UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<SegmentFile>> Open(const std::string& path, bool direct_io);
  ~SegmentFile();
  SegmentFile(const SegmentFile&) = delete;
  SegmentFile& operator=(const SegmentFile&) = delete;

  // Reserves what is a hole in the file. Errors as for Create.
  absl::Status ReserveHoles();

  // Writes `bytes` and zeros behind them up to the next multiple of kDiskAlignmentBytes. Fastest where the memory is
  // aligned. RESOURCE_EXHAUSTED or UNAVAILABLE: the range then holds anything.
  absl::Status Write(size_t offset, std::span<const std::byte> bytes);
  // Fills `bytes`. DATA_LOSS where the file ends before, UNAVAILABLE where the disk fails; `bytes` is unspecified then.
  // REQUIRES: memory and length are multiples of kDiskAlignmentBytes.
  absl::Status Read(size_t offset, std::span<std::byte> bytes);

  const std::string& path() const { return path_; }
  // When it was opened, rounded down to kDiskAlignmentBytes.
  size_t bytes() const { return bytes_; }
  bool direct_io() const { return direct_io_; }

 private:
  SegmentFile(std::string path, int descriptor, size_t bytes, bool direct_io);

  const std::string path_;
  const int descriptor_;
  const size_t bytes_;
  const bool direct_io_;
};

}  // namespace epic

#endif  // EPIC_STORAGE_SEGMENT_FILE_H_
