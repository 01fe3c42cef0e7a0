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

// The folder of this process's control group, version 2, or nothing.
std::string ControlGroupFolder() {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("0::")) return "/sys/fs/cgroup" + line.substr(3);
  }
  return "";
}

// What the group's limit leaves; files in the page cache can be dropped and do not count.
std::optional<uint64_t> LeftInGroup(const std::string& folder) {
  const std::optional<uint64_t> limit = WholeNumber(folder + "/memory.max");
  const std::optional<uint64_t> used = WholeNumber(folder + "/memory.current");
  if (!limit || !used) return std::nullopt;
  const uint64_t cached = NumberBehind(folder + "/memory.stat", "inactive_file ").value_or(0);
  const uint64_t held = *used - std::min(*used, cached);
  return *limit - std::min(*limit, held);
}

}  // namespace

std::optional<uint64_t> AvailableMemoryBytes() {
  std::optional<uint64_t> available;
  if (const auto kibibytes = NumberBehind("/proc/meminfo", "MemAvailable:")) available = *kibibytes * 1024;
  // Every group above has a limit of its own.
  std::string folder = ControlGroupFolder();
  while (folder.size() >= std::string_view("/sys/fs/cgroup").size()) {
    if (const auto left = LeftInGroup(folder)) available = std::min(available.value_or(*left), *left);
    folder.resize(folder.find_last_of('/'));
  }
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
