#include "storage/host_arena.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

constexpr size_t kPageBytes = 4096;

size_t AllocatedBytes(const HostArena& arena) {
  struct stat info = {};
  EXPECT_EQ(fstat(arena.memfd(), &info), 0);
  return static_cast<size_t>(info.st_blocks) * 512;
}

TEST(HostArenaTest, UntouchedMemoryCostsNothing) {
  const std::unique_ptr<HostArena> arena = HostArena::Create(size_t{64} << 30).value();
  EXPECT_EQ(arena->bytes().size(), size_t{64} << 30);
  EXPECT_EQ(AllocatedBytes(*arena), 0u);
  arena->bytes()[size_t{63} << 30] = std::byte{1};
  EXPECT_GT(AllocatedBytes(*arena), 0u);
  EXPECT_LE(AllocatedBytes(*arena), size_t{2} << 20) << "more than a huge page";
}

TEST(HostArenaTest, TheDescriptorNamesTheSameBytesAndCannotBeShrunk) {
  const std::unique_ptr<HostArena> arena = HostArena::Create(16 * kPageBytes).value();
  arena->bytes()[5] = std::byte{42};
  char byte = 0;
  ASSERT_EQ(pread(arena->memfd(), &byte, 1, 5), 1);
  EXPECT_EQ(byte, 42);
  EXPECT_NE(ftruncate(arena->memfd(), kPageBytes), 0);
}

TEST(HostArenaTest, ImpossibleSizesAreResourceExhausted) {
  for (const size_t bytes : {SIZE_MAX, size_t{1} << 62}) {
    const absl::Status status = HostArena::Create(bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(std::to_string(bytes)));
  }
}

TEST(HostArenaTest, ReservedHugePagesAreThereOrNamed) {
  const absl::StatusOr<std::unique_ptr<HostArena>> odd =
      HostArena::Create(kHugePageBytes + kPageBytes, {.reserved_huge_pages = true});
  EXPECT_EQ(odd.status().code(), absl::StatusCode::kInvalidArgument);
  const auto arena = HostArena::Create(kHugePageBytes, {.reserved_huge_pages = true});
  if (arena.ok()) {
    (*arena)->bytes().back() = std::byte{1};
    return;
  }
  EXPECT_EQ(arena.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(arena.status().message()), testing::HasSubstr("vm.nr_hugepages"));
}

TEST(HostArenaTest, LockedMemoryIsUsableOrRefusedWithTheLimit) {
  const auto arena = HostArena::Create(4 * kPageBytes, {.lock_memory = true});
  if (arena.ok()) {
    (*arena)->bytes().front() = std::byte{1};
    return;
  }
  EXPECT_THAT(std::string(arena.status().message()), testing::HasSubstr("ulimit -l"));
}

TEST(HostArenaDeathTest, ProtectedPagesFaultOnWritesAndOnlyThose) {
  const std::unique_ptr<HostArena> arena = HostArena::Create(4 * kPageBytes).value();
  volatile std::byte* const bytes = arena->bytes().data();
  bytes[kPageBytes] = std::byte{7};
  ASSERT_TRUE(arena->Protect(kPageBytes, kPageBytes, HostArena::Access::kRead).ok());
  EXPECT_TRUE(bytes[kPageBytes] == std::byte{7});
  EXPECT_DEATH(bytes[kPageBytes] = std::byte{8}, "");
  bytes[kPageBytes - 1] = std::byte{1};
  bytes[2 * kPageBytes] = std::byte{1};
  ASSERT_TRUE(arena->Protect(kPageBytes, kPageBytes, HostArena::Access::kReadWrite).ok());
  bytes[kPageBytes] = std::byte{9};
  EXPECT_TRUE(bytes[kPageBytes] == std::byte{9});
}

}  // namespace
}  // namespace epic
