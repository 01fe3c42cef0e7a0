#include "storage/host_arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "fmt/format.h"

namespace epic {
namespace {

std::string ErrnoMessage(int error) { return std::generic_category().message(error); }

absl::Status NoMemory(size_t bytes, const char* step, int error) {
  return absl::ResourceExhaustedError(
      fmt::format("the host tier's {} bytes of memory cannot be had: {}: {}; set a smaller host tier", bytes, step,
                  ErrnoMessage(error)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<HostArena>> HostArena::Create(size_t bytes) {
  const int memfd = memfd_create("epic-host-tier", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (memfd < 0) return NoMemory(bytes, "memfd_create", errno);
  if (bytes > static_cast<size_t>(INT64_MAX) || ftruncate(memfd, static_cast<off_t>(bytes)) != 0) {
    const int error = errno;
    close(memfd);
    return NoMemory(bytes, "ftruncate", error);
  }
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd, 0);
  if (memory == MAP_FAILED) {
    const int error = errno;
    close(memfd);
    return NoMemory(bytes, "mmap", error);
  }
  // Both are improvements that a system may lack: sealing guards readers, huge pages spare address translations.
  static_cast<void>(fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
  static_cast<void>(madvise(memory, bytes, MADV_HUGEPAGE));
  return std::unique_ptr<HostArena>(new HostArena(memfd, {static_cast<std::byte*>(memory), bytes}));
}

HostArena::~HostArena() {
  munmap(bytes_.data(), bytes_.size());
  close(memfd_);
}

absl::Status HostArena::Protect(size_t offset, size_t bytes, Access access) {
  const int protection = access == Access::kRead ? PROT_READ : PROT_READ | PROT_WRITE;
  if (mprotect(bytes_.data() + offset, bytes, protection) == 0) return absl::OkStatus();
  const int error = errno;
  return absl::ResourceExhaustedError(fmt::format(
      "the access of {} bytes of the host tier cannot be changed: {}; raise vm.max_map_count or switch page "
      "protection off",
      bytes, ErrnoMessage(error)));
}

}  // namespace epic
