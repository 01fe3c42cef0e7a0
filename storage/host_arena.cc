#include "storage/host_arena.h"

#include <fcntl.h>
#include <linux/memfd.h>
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

absl::StatusOr<std::unique_ptr<HostArena>> HostArena::Create(size_t bytes, const HostArenaOptions& options) {
  if (options.reserved_huge_pages && bytes % kHugePageBytes != 0) {
    return absl::InvalidArgumentError(fmt::format(
        "a host tier of {} bytes on reserved huge pages, expected a multiple of {}", bytes, kHugePageBytes));
  }
  const unsigned huge_flags = options.reserved_huge_pages ? MFD_HUGETLB | MFD_HUGE_2MB : 0U;
  const int memfd = memfd_create("epic-host-tier", MFD_CLOEXEC | MFD_ALLOW_SEALING | huge_flags);
  if (memfd < 0) return NoMemory(bytes, "memfd_create", errno);
  if (bytes > static_cast<size_t>(INT64_MAX) || ftruncate(memfd, static_cast<off_t>(bytes)) != 0) {
    const int error = errno;
    close(memfd);
    return NoMemory(bytes, "ftruncate", error);
  }
  // Reserved huge pages are claimed here and now: one that is missing later would end the process.
  const int reserve = options.reserved_huge_pages ? 0 : MAP_NORESERVE;
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | reserve, memfd, 0);
  if (memory == MAP_FAILED) {
    const int error = errno;
    close(memfd);
    if (options.reserved_huge_pages) {
      return absl::ResourceExhaustedError(
          fmt::format("the host tier's {} bytes need {} reserved huge pages of 2 MiB: {}; raise vm.nr_hugepages or do "
                      "without them",
                      bytes, bytes / kHugePageBytes, ErrnoMessage(error)));
    }
    return NoMemory(bytes, "mmap", error);
  }
  std::unique_ptr<HostArena> arena(new HostArena(memfd, {static_cast<std::byte*>(memory), bytes}));
  // Both are improvements that a system may lack: sealing guards readers, huge pages spare address translations.
  static_cast<void>(fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
  if (!options.reserved_huge_pages) static_cast<void>(madvise(memory, bytes, MADV_HUGEPAGE));
  if (options.lock_memory && mlock2(memory, bytes, MLOCK_ONFAULT) != 0) {
    return absl::ResourceExhaustedError(
        fmt::format("the host tier's {} bytes cannot be locked in memory: {}; raise the limit on locked memory "
                    "(ulimit -l) or do without locking",
                    bytes, ErrnoMessage(errno)));
  }
  return arena;
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
