// How configuration values are written: numbers, bytes and durations. Pure.
#ifndef EPIC_SERVER_CONFIG_VALUES_H_
#define EPIC_SERVER_CONFIG_VALUES_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace epic {

// "4GiB", "1536 KiB" or plain bytes. INVALID_ARGUMENT names the value and the forms.
absl::StatusOr<int64_t> ParseBytes(std::string_view text);
// The largest unit that divides `bytes`: "4GiB", "1000".
std::string FormatBytes(int64_t bytes);

// A whole decimal number, perhaps negative, and nothing else. INVALID_ARGUMENT names the value.
absl::StatusOr<int64_t> ParseInteger(std::string_view text);

// A share: a decimal number from 0 to 1. INVALID_ARGUMENT names the value.
absl::StatusOr<double> ParseShare(std::string_view text);
// The shortest text that reads as the same number: "0.01".
std::string FormatShare(double share);

// "250ms", "10s", "5min", "1h" or plain milliseconds. INVALID_ARGUMENT names the value and the forms.
absl::StatusOr<int64_t> ParseDurationMs(std::string_view text);
// The largest unit that divides it: "10s", "250ms".
std::string FormatDurationMs(int64_t milliseconds);

}  // namespace epic

#endif  // EPIC_SERVER_CONFIG_VALUES_H_
