#include "storage/segment_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <utility>

#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {
namespace {

constexpr size_t kStagingBytes = size_t{256} << 10;
constexpr size_t kBlocksOfStat = 512;  // bytes, by POSIX

absl::Status IoError(const std::string& action, const std::string& path, int error) {
  const std::string message =
      fmt::format("cannot {} {}: {}", action, path, std::error_code(error, std::generic_category()).message());
  if (error == ENOSPC || error == EDQUOT) return absl::ResourceExhaustedError(message + "; free some space");
  if (error == EMFILE || error == ENFILE || error == ENOMEM) return absl::ResourceExhaustedError(message);
  if (error == EACCES || error == EPERM || error == EROFS) return absl::PermissionDeniedError(message);
  return absl::UnavailableError(message);
}

bool IsAligned(const void* memory) { return reinterpret_cast<uintptr_t>(memory) % kDiskAlignmentBytes == 0; }

// Direct where it is wanted and taken. Negative with errno set where it cannot be opened.
int OpenForUse(const std::string& path, bool* direct_io) {
  if (*direct_io) {
    const int descriptor = open(path.c_str(), O_RDWR | O_CLOEXEC | O_DIRECT);
    if (descriptor >= 0 || errno != EINVAL) return descriptor;
    *direct_io = false;
  }
  return open(path.c_str(), O_RDWR | O_CLOEXEC);
}

// Through a descriptor without direct I/O: where the file system cannot reserve, the library writes single bytes.
absl::Status ReserveOnDisk(const std::string& path, size_t bytes) {
  const int descriptor = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (descriptor < 0) return IoError("open", path, errno);
  int error = 0;
  do {
    error = posix_fallocate(descriptor, 0, static_cast<off_t>(bytes));
  } while (error == EINTR);
  close(descriptor);
  return error == 0 ? absl::OkStatus() : IoError("reserve space for", path, error);
}

struct FreeMemory {
  void operator()(std::byte* memory) const { std::free(memory); }
};

// `body`, then `tail`: one operation of the disk where the system does it in one. All sizes aligned; a part that was
// written short of a multiple is written again.
absl::Status WriteAll(int descriptor, const std::string& path, size_t offset, std::span<const std::byte> body,
                      std::span<const std::byte> tail) {
  while (!body.empty() || !tail.empty()) {
    std::array<iovec, 2> parts;
    int count = 0;
    for (const std::span<const std::byte> part : {body, tail}) {
      if (!part.empty()) parts[count++] = {const_cast<std::byte*>(part.data()), part.size()};
    }
    const ssize_t written = pwritev(descriptor, parts.data(), count, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return IoError("write to", path, errno);
    const size_t whole = static_cast<size_t>(written) / kDiskAlignmentBytes * kDiskAlignmentBytes;
    if (whole == 0) return IoError("write to", path, ENOSPC);
    const size_t of_body = std::min(whole, body.size());
    body = body.subspan(of_body);
    tail = tail.subspan(whole - of_body);
    offset += whole;
  }
  return absl::OkStatus();
}

}  // namespace

SegmentFile::SegmentFile(std::string path, int descriptor, size_t bytes, bool direct_io)
    : path_(std::move(path)), descriptor_(descriptor), bytes_(bytes), direct_io_(direct_io) {}

SegmentFile::~SegmentFile() { close(descriptor_); }

absl::StatusOr<std::unique_ptr<SegmentFile>> SegmentFile::Create(const std::string& path, size_t bytes,
                                                                 bool direct_io) {
  const int created = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
  if (created < 0) return IoError("create", path, errno);
  close(created);
  absl::Status reserved = ReserveOnDisk(path, bytes);
  if (reserved.ok()) {
    absl::StatusOr<std::unique_ptr<SegmentFile>> file = Open(path, direct_io);
    if (file.ok()) return file;
    reserved = file.status();
  }
  unlink(path.c_str());
  return reserved;
}

absl::StatusOr<std::unique_ptr<SegmentFile>> SegmentFile::Open(const std::string& path, bool direct_io) {
  const int descriptor = OpenForUse(path, &direct_io);
  if (descriptor < 0) return IoError("open", path, errno);
  struct stat attributes = {};
  const int failed = fstat(descriptor, &attributes);
  const size_t bytes = static_cast<size_t>(attributes.st_size) / kDiskAlignmentBytes * kDiskAlignmentBytes;
  std::unique_ptr<SegmentFile> file(new SegmentFile(path, descriptor, bytes, direct_io));
  if (failed != 0) return IoError("look at", path, errno);
  return file;
}

absl::Status SegmentFile::ReserveHoles() {
  struct stat attributes = {};
  if (fstat(descriptor_, &attributes) != 0) return IoError("look at", path_, errno);
  if (bytes_ <= static_cast<size_t>(attributes.st_blocks) * kBlocksOfStat) return absl::OkStatus();
  return ReserveOnDisk(path_, bytes_);
}

absl::Status SegmentFile::Write(size_t offset, std::span<const std::byte> bytes) {
  if (IsAligned(bytes.data())) {
    alignas(kDiskAlignmentBytes) std::array<std::byte, kDiskAlignmentBytes> tail{};
    const size_t tail_bytes = bytes.size() % kDiskAlignmentBytes;
    const std::span<const std::byte> body = bytes.first(bytes.size() - tail_bytes);
    if (tail_bytes == 0) return WriteAll(descriptor_, path_, offset, body, {});
    std::memcpy(tail.data(), bytes.data() + body.size(), tail_bytes);
    return WriteAll(descriptor_, path_, offset, body, tail);
  }
  const std::unique_ptr<std::byte, FreeMemory> staging(
      static_cast<std::byte*>(std::aligned_alloc(kDiskAlignmentBytes, kStagingBytes)));
  while (!bytes.empty()) {
    const std::span<const std::byte> piece = bytes.first(std::min(bytes.size(), kStagingBytes));
    const size_t padded = DiskPaddedBytes(piece.size());
    std::memcpy(staging.get(), piece.data(), piece.size());
    std::memset(staging.get() + piece.size(), 0, padded - piece.size());
    EPIC_RETURN_IF_ERROR(WriteAll(descriptor_, path_, offset, {staging.get(), padded}, {}));
    bytes = bytes.subspan(piece.size());
    offset += padded;
  }
  return absl::OkStatus();
}

absl::Status SegmentFile::Read(size_t offset, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = pread(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return IoError("read", path_, errno);
    // Short of a multiple only at the end of the file.
    const size_t whole = static_cast<size_t>(got) / kDiskAlignmentBytes * kDiskAlignmentBytes;
    if (whole == 0) {
      return absl::DataLossError(
          fmt::format("{} ends before byte {}: {} bytes are missing", path_, offset + bytes.size(), bytes.size()));
    }
    bytes = bytes.subspan(whole);
    offset += whole;
  }
  return absl::OkStatus();
}

}  // namespace epic
