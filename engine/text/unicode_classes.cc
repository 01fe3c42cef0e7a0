#include "engine/text/unicode_classes.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace epic {
namespace {

using enum CharacterClass;

struct Range {
  uint32_t first;
  uint32_t last;
  CharacterClass character_class;
};

// In ascending order, without overlap.
constexpr Range kRanges[] = {
#include "engine/text/unicode_ranges.inc"
};

constexpr bool RangesAscend() {
  for (size_t i = 0; i < std::size(kRanges); ++i) {
    if (kRanges[i].first > kRanges[i].last) return false;
    if (i > 0 && kRanges[i].first <= kRanges[i - 1].last) return false;
  }
  return true;
}
static_assert(RangesAscend());

constexpr std::array<CharacterClass, 128> MakeAsciiClasses() {
  std::array<CharacterClass, 128> classes{};
  for (const Range& range : kRanges) {
    for (uint32_t code_point = range.first; code_point <= range.last && code_point < classes.size(); ++code_point) {
      classes[code_point] = range.character_class;
    }
  }
  return classes;
}
constexpr std::array<CharacterClass, 128> kAsciiClasses = MakeAsciiClasses();

}  // namespace

CharacterClass ClassOf(char32_t code_point) {
  if (code_point < kAsciiClasses.size()) return kAsciiClasses[code_point];
  const Range* range = std::lower_bound(std::begin(kRanges), std::end(kRanges), code_point,
                                        [](const Range& candidate, char32_t value) { return candidate.last < value; });
  if (range == std::end(kRanges) || code_point < range->first) return kOther;
  return range->character_class;
}

}  // namespace epic
