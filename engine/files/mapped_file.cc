#include "engine/files/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "core/status_macros.h"
#include "engine/files/file_error.h"

namespace epic {

namespace {

absl::Status SystemError(int error, const std::string& path, const char* action) {
  if (error == ENOENT || error == ENOTDIR) {
    return absl::NotFoundError(fmt::format("{}: there is no such file", path));
  }
  return absl::ErrnoToStatus(error, fmt::format("{}: cannot {}", path, action));
}

absl::StatusOr<FileIdentity> IdentityOf(const struct stat& state, const std::string& path) {
  if (!S_ISREG(state.st_mode)) return BrokenFile(path, "expected a regular file, found something else");
  std::error_code error;
  const std::filesystem::path resolved = std::filesystem::canonical(path, error);
  if (error) return SystemError(error.value(), path, "resolve the path");
  return FileIdentity{.path = resolved.string(),
                      .size_bytes = static_cast<uint64_t>(state.st_size),
                      .modified_ns = state.st_mtim.tv_sec * int64_t{1'000'000'000} + state.st_mtim.tv_nsec,
                      .inode = state.st_ino,
                      .device = state.st_dev};
}

}  // namespace

absl::StatusOr<FileIdentity> IdentifyFile(const std::string& path) {
  struct stat state {};
  if (stat(path.c_str(), &state) != 0) return SystemError(errno, path, "look at the file");
  return IdentityOf(state, path);
}

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  // Non-blocking, so that a named pipe in the file's place is refused below instead of waited for.
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return SystemError(errno, path, "open the file");
  struct stat state {};
  const int stat_error = fstat(descriptor, &state) == 0 ? 0 : errno;
  absl::StatusOr<FileIdentity> identity =
      stat_error == 0 ? IdentityOf(state, path) : SystemError(stat_error, path, "look at the file");
  if (identity.ok() && identity->size_bytes == 0) identity = BrokenFile(path, "the file is empty");
  if (!identity.ok()) {
    close(descriptor);
    return identity.status();
  }
  const size_t size_bytes = identity->size_bytes;
  void* address = mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, descriptor, 0);
  const int map_error = errno;
  close(descriptor);
  if (address == MAP_FAILED) return SystemError(map_error, path, "map the file");
  return MappedFile({static_cast<const std::byte*>(address), size_bytes}, *std::move(identity));
}

MappedFile::MappedFile(std::span<const std::byte> bytes, FileIdentity identity)
    : bytes_(bytes), identity_(std::move(identity)) {}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})), identity_(std::move(other.identity_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  std::swap(identity_, other.identity_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::ReleasePages() const {
  // What fails here costs memory, not correctness.
  if (!bytes_.empty()) (void)madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), MADV_DONTNEED);
}

}  // namespace epic
