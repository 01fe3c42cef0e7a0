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

class HostArena {
 public:
  // RESOURCE_EXHAUSTED naming the size where the system does not give it. REQUIRES: bytes > 0.
  static absl::StatusOr<std::unique_ptr<HostArena>> Create(size_t bytes);
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
