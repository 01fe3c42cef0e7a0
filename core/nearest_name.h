// "Did you mean ...?" for unknown configuration keys, commands and linkers. Pure.
#ifndef EPIC_CORE_NEAREST_NAME_H_
#define EPIC_CORE_NEAREST_NAME_H_

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace epic {

// How many insertions, deletions, replacements and swaps of neighbouring bytes turn one into the other (no byte is
// edited twice: optimal string alignment). O(product of the lengths).
size_t EditDistance(std::string_view a, std::string_view b);

// The known name nearest to `name`, letter case not counted, the first of equals; nothing where none is near enough to
// be what was meant (more than a third of the longer name's length away) or `name` is longer than 256 bytes.
std::optional<std::string> NearestName(std::string_view name, std::span<const std::string> known);

// The end of an error message: ` (did you mean "x"?)` or, where no name is near, ` (known: a, b, c)`.
std::string NameHint(std::string_view name, std::span<const std::string> known);

}  // namespace epic

#endif  // EPIC_CORE_NEAREST_NAME_H_
