#include "engine/memory.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string_view>

#include "fmt/format.h"

namespace epic {

namespace {

constexpr double kGibibyte = 1 << 30;

// The number behind `key` in a file of lines "key number ...".
std::optional<uint64_t> NumberBehind(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    std::istringstream rest(line.substr(key.size()));
    uint64_t number = 0;
    if (rest >> number) return number;
    return std::nullopt;
  }
  return std::nullopt;
}

std::optional<uint64_t> WholeNumber(const std::string& path) {
  std::ifstream file(path);
  uint64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;  // no such file, or "max"
}

// Where a version of the kernel's control groups keeps what we ask for.
struct GroupFiles {
  std::string_view mount;
  const char* limit;
  const char* used;
  const char* cached;  // in memory.stat: pages of files, which can be dropped and do not count
};
constexpr GroupFiles kVersion1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                  "total_inactive_file "};
constexpr GroupFiles kVersion2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "};

std::optional<uint64_t> LeftInGroup(const std::string& folder, const GroupFiles& files) {
  const std::optional<uint64_t> limit = WholeNumber(fmt::format("{}/{}", folder, files.limit));
  const std::optional<uint64_t> used = WholeNumber(fmt::format("{}/{}", folder, files.used));
  if (!limit || !used) return std::nullopt;
  const uint64_t cached = NumberBehind(folder + "/memory.stat", files.cached).value_or(0);
  const uint64_t held = *used - std::min(*used, cached);
  return *limit - std::min(*limit, held);
}

// The least that is left in `group` (a path below the mount) and in every group above it. Inside a container the path
// may not be there; the mount itself is the container's group then.
std::optional<uint64_t> LeftInGroupAndAbove(const std::string& group, const GroupFiles& files) {
  std::optional<uint64_t> least;
  for (std::string folder = std::string(files.mount) + group; folder.size() >= files.mount.size();
       folder.resize(folder.find_last_of('/'))) {
    if (const auto left = LeftInGroup(folder, files)) least = std::min(least.value_or(*left), *left);
  }
  return least;
}

// What the control groups of this process leave, of either version.
std::optional<uint64_t> LeftInOwnGroups() {
  std::ifstream file("/proc/self/cgroup");
  std::optional<uint64_t> least;
  for (std::string line; std::getline(file, line);) {
    const size_t memory = line.find(":memory:");
    std::optional<uint64_t> left;
    if (memory != std::string::npos) left = LeftInGroupAndAbove(line.substr(memory + 8), kVersion1);
    if (line.starts_with("0::")) left = LeftInGroupAndAbove(line.substr(3), kVersion2);
    if (left) least = std::min(least.value_or(*left), *left);
  }
  return least;
}

}  // namespace

std::optional<uint64_t> AvailableMemoryBytes() {
  std::optional<uint64_t> available;
  if (const auto kibibytes = NumberBehind("/proc/meminfo", "MemAvailable:")) available = *kibibytes * 1024;
  if (const auto left = LeftInOwnGroups()) available = std::min(available.value_or(*left), *left);
  return available;
}

absl::Status CheckModelFits(const std::string& model, uint64_t needed_bytes, std::optional<uint64_t> available_bytes) {
  if (!available_bytes || needed_bytes <= *available_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(fmt::format(
      "{}: its weights take {:.1f} GiB of memory, but only {:.1f} GiB are free here ({} and {} bytes); free "
      "memory, or take a smaller model or a larger machine",
      model, static_cast<double>(needed_bytes) / kGibibyte, static_cast<double>(*available_bytes) / kGibibyte,
      needed_bytes, *available_bytes));
}

}  // namespace epic
