#include "core/nearest_name.h"

#include <algorithm>
#include <cctype>
#include <numeric>
#include <utility>
#include <vector>

#include "fmt/format.h"

namespace epic {
namespace {

constexpr size_t kNameBytesMax = 256;  // keeps the quadratic comparison of hostile input cheap

std::string LowerCase(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

}  // namespace

size_t EditDistance(std::string_view a, std::string_view b) {
  // Rows of the table for the prefixes of `a` of lengths i - 2, i - 1 and i.
  std::vector<size_t> before_previous;
  std::vector<size_t> previous(b.size() + 1);
  std::iota(previous.begin(), previous.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    std::vector<size_t> current(b.size() + 1);
    current[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replace = previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, replace});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        current[j] = std::min(current[j], before_previous[j - 2] + 1);
      }
    }
    before_previous = std::exchange(previous, std::move(current));
  }
  return previous[b.size()];
}

std::optional<std::string> NearestName(std::string_view name, std::span<const std::string> known) {
  if (name.size() > kNameBytesMax) return std::nullopt;
  const std::string lower_name = LowerCase(name);
  const std::string* nearest = nullptr;
  size_t nearest_distance = 0;
  for (const std::string& candidate : known) {
    const size_t distance = EditDistance(lower_name, LowerCase(candidate));
    const size_t distance_max = std::max<size_t>(1, std::max(name.size(), candidate.size()) / 3);
    if (distance > distance_max || (nearest != nullptr && distance >= nearest_distance)) continue;
    nearest = &candidate;
    nearest_distance = distance;
  }
  if (nearest == nullptr) return std::nullopt;
  return *nearest;
}

std::string NameHint(std::string_view name, std::span<const std::string> known) {
  if (const std::optional<std::string> nearest = NearestName(name, known)) {
    return fmt::format(" (did you mean \"{}\"?)", *nearest);
  }
  return fmt::format(" (known: {})", fmt::join(known, ", "));
}

}  // namespace epic
