#include "engine/text/unicode_classes.h"

#include <iterator>
#include <memory>
#include <vector>

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

constexpr uint32_t kCodePoints = 0x110000;

constexpr bool RangesAscend() {
  for (size_t i = 0; i < std::size(kRanges); ++i) {
    if (kRanges[i].first > kRanges[i].last || kRanges[i].last >= kCodePoints) return false;
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

// One entry a code point: a megabyte, of which a text touches a few pages, against a search for every character.
std::vector<CharacterClass> MakeClasses() {
  std::vector<CharacterClass> classes(kCodePoints, kOther);
  for (const Range& range : kRanges) {
    for (uint32_t code_point = range.first; code_point <= range.last; ++code_point) {
      classes[code_point] = range.character_class;
    }
  }
  return classes;
}

}  // namespace

namespace internal {

constexpr std::array<CharacterClass, 128> kAsciiClasses = MakeAsciiClasses();

CharacterClass ClassBehindAscii(char32_t code_point) {
  static const std::vector<CharacterClass>& classes = *new std::vector<CharacterClass>(MakeClasses());
  return code_point < kCodePoints ? classes[code_point] : kOther;
}

}  // namespace internal
}  // namespace epic
