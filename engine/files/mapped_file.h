// A file on disk as read-only memory.
//
// A MappedFile owns one mapping; the bytes stay valid until it is destroyed. It is moved, never copied. Reading from
// any thread is safe. The pages are shared with every other process that maps the same file, and none is read before it
// is touched. A file that another program shortens while it is mapped makes later reads fault (SIGBUS): replace model
// files by rename, never in place.
#ifndef EPIC_ENGINE_FILES_MAPPED_FILE_H_
#define EPIC_ENGINE_FILES_MAPPED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace epic {

// What tells one state of a file from another without reading it.
struct FileIdentity {
  std::string path;  // absolute, symbolic links resolved
  uint64_t size_bytes = 0;
  int64_t modified_ns = 0;  // modification time since the epoch
  uint64_t inode = 0;
  uint64_t device = 0;

  bool operator==(const FileIdentity&) const = default;
};

// NOT_FOUND where there is no such file, INVALID_ARGUMENT where it is no regular file, otherwise the system's error.
[[nodiscard]] absl::StatusOr<FileIdentity> IdentifyFile(const std::string& path);

class MappedFile {
 public:
  // Errors as IdentifyFile; an empty file is INVALID_ARGUMENT.
  [[nodiscard]] static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return bytes_; }
  // Takes the pages that were read out of this process's memory; they are read again when they are touched.
  void ReleasePages() const;
  // The file as it was when it was mapped.
  const FileIdentity& identity() const { return identity_; }

 private:
  MappedFile(std::span<const std::byte> bytes, FileIdentity identity);

  std::span<const std::byte> bytes_;
  FileIdentity identity_;
};

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_MAPPED_FILE_H_
