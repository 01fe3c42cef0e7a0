// One mapping of a memfd of a fixed size: the memory of the host tier.
//
// A memfd because it has a name that other processes of the host can be given later; sealed against growing and
// shrinking, so that nobody can pull memory away under a reader. Sparse: a page costs memory from its first write on.
// Owns the mapping and the descriptor. Thread-safe but for the bytes themselves.
#ifndef EPIC_STORAGE_HOST_ARENA_H_
#define EPIC_STORAGE_HOST_ARENA_H_

#include <cstddef>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace epic {

struct HostArenaOptions {
  // Pages of 2 MiB that the administrator set aside (vm.nr_hugepages), all of them taken at the start. Otherwise the
  // kernel is asked for huge pages and gives them where /sys/kernel/mm/transparent_hugepage/shmem_enabled allows it.
  bool reserved_huge_pages = false;
  // Keeps the memory from being swapped out, page by page as it is first used.
  bool lock_memory = false;
};

inline constexpr size_t kHugePageBytes = size_t{2} << 20;

class HostArena {
 public:
  // RESOURCE_EXHAUSTED naming the size, and what to change, where the system does not give it; INVALID_ARGUMENT where
  // the size is no multiple of the reserved huge pages. REQUIRES: bytes > 0.
  static absl::StatusOr<std::unique_ptr<HostArena>> Create(size_t bytes, const HostArenaOptions& options = {});
  ~HostArena();
  HostArena(const HostArena&) = delete;
  HostArena& operator=(const HostArena&) = delete;

  std::span<std::byte> bytes() const { return bytes_; }
  int memfd() const { return memfd_; }

  enum class Access { kRead, kReadWrite };
  // Every later access of the other kind faults. RESOURCE_EXHAUSTED where the process has too many mappings.
  // REQUIRES: whole memory pages within the arena.
  [[nodiscard]] absl::Status Protect(size_t offset, size_t bytes, Access access);

 private:
  HostArena(int memfd, std::span<std::byte> bytes) : memfd_(memfd), bytes_(bytes) {}

  const int memfd_;
  const std::span<std::byte> bytes_;
};

}  // namespace epic

#endif  // EPIC_STORAGE_HOST_ARENA_H_
