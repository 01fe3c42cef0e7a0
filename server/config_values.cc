#include "server/config_values.h"

#include <fmt/format.h>

#include <charconv>
#include <span>

namespace epic {
namespace {

struct Unit {
  std::string_view suffix;
  int64_t factor;
};

// Largest first.
constexpr Unit kByteUnits[] = {
    {"TiB", int64_t{1} << 40}, {"GiB", int64_t{1} << 30}, {"MiB", int64_t{1} << 20}, {"KiB", int64_t{1} << 10}};
constexpr Unit kDurationUnits[] = {{"h", 3'600'000}, {"min", 60'000}, {"s", 1'000}, {"ms", 1}};

bool ParseWhole(std::string_view text, int64_t* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

absl::StatusOr<int64_t> ParseWithUnit(std::string_view text, std::span<const Unit> units, std::string_view plain_unit,
                                      std::string_view forms) {
  const size_t digits_end = text.find_first_not_of("-0123456789");
  std::string_view number = text.substr(0, digits_end);
  std::string_view suffix = digits_end == std::string_view::npos ? std::string_view() : text.substr(digits_end);
  while (!suffix.empty() && suffix.front() == ' ') suffix.remove_prefix(1);
  int64_t value = 0;
  int64_t factor = suffix.empty() || suffix == plain_unit ? 1 : 0;
  for (const Unit& unit : units) {
    if (suffix == unit.suffix) factor = unit.factor;
  }
  if (factor == 0 || !ParseWhole(number, &value)) {
    return absl::InvalidArgumentError(fmt::format("\"{}\" is not {}", text, forms));
  }
  int64_t product = 0;
  if (__builtin_mul_overflow(value, factor, &product)) {
    return absl::InvalidArgumentError(fmt::format("\"{}\" is beyond 2^63-1", text));
  }
  return product;
}

std::string FormatWithUnit(int64_t value, std::span<const Unit> units) {
  for (const Unit& unit : units) {
    if (value != 0 && value % unit.factor == 0) return fmt::format("{}{}", value / unit.factor, unit.suffix);
  }
  return fmt::format("{}", value);
}

}  // namespace

absl::StatusOr<int64_t> ParseInteger(std::string_view text) {
  int64_t value = 0;
  if (!ParseWhole(text, &value)) return absl::InvalidArgumentError(fmt::format("\"{}\" is not a whole number", text));
  return value;
}

absl::StatusOr<int64_t> ParseBytes(std::string_view text) {
  return ParseWithUnit(text, kByteUnits, "B", "a size such as 4GiB, 512MiB, 64KiB or 1000");
}

std::string FormatBytes(int64_t bytes) { return FormatWithUnit(bytes, kByteUnits); }

absl::StatusOr<double> ParseShare(std::string_view text) {
  double share = 0;
  const char* const end = text.data() + text.size();
  const auto [parsed_end, error] = std::from_chars(text.data(), end, share);
  if (text.empty() || error != std::errc() || parsed_end != end || !(share >= 0 && share <= 1)) {
    return absl::InvalidArgumentError(fmt::format("\"{}\" is not a number from 0 to 1, such as 0.01", text));
  }
  return share;
}

std::string FormatShare(double share) { return fmt::format("{}", share); }

absl::StatusOr<int64_t> ParseDurationMs(std::string_view text) {
  return ParseWithUnit(text, kDurationUnits, "ms", "a duration such as 250ms, 10s, 5min or 1h");
}

std::string FormatDurationMs(int64_t milliseconds) {
  return milliseconds == 0 ? "0ms" : FormatWithUnit(milliseconds, kDurationUnits);
}

}  // namespace epic
