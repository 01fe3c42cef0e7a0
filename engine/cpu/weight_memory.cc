#include "engine/cpu/weight_memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <system_error>

#include "fmt/format.h"

namespace epic {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<WeightMemory>> WeightMemory::Create(size_t bytes) {
  const size_t rounded = (bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  void* memory = mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError(fmt::format(
        "{} bytes of memory for the model's weights cannot be had: {}; free memory, or take a smaller model", rounded,
        std::generic_category().message(errno)));
  }
  // An improvement that a system may refuse.
  static_cast<void>(madvise(memory, rounded, MADV_HUGEPAGE));
  return std::unique_ptr<WeightMemory>(new WeightMemory(static_cast<std::byte*>(memory), rounded));
}

WeightMemory::~WeightMemory() { munmap(begin_, bytes_); }

std::byte* WeightMemory::Take(size_t bytes) {
  const size_t rounded = (bytes + kWeightAlignmentBytes - 1) / kWeightAlignmentBytes * kWeightAlignmentBytes;
  if (rounded > bytes_ - taken_) return nullptr;
  std::byte* const taken = begin_ + taken_;
  taken_ += rounded;
  return taken;
}

}  // namespace epic
