// Reading records of our own files: a member each, or an error that names it.
#ifndef EPIC_EVAL_JSON_MEMBERS_H_
#define EPIC_EVAL_JSON_MEMBERS_H_

#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "engine/files/json_file.h"
#include "fmt/format.h"

namespace epic::eval {

// Whether `json` is of the type, and in its range; then `value` is it.
template <typename T>
bool FromJson(const nlohmann::json& json, T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    if (!json.is_boolean()) return false;
    value = json.get<bool>();
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!json.is_string()) return false;
    value = json.get<std::string>();
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!json.is_number()) return false;
    value = json.get<T>();
  } else if constexpr (std::is_same_v<T, uint64_t>) {
    if (!json.is_number_unsigned()) return false;
    value = json.get<uint64_t>();
  } else if constexpr (std::is_integral_v<T>) {
    if (!json.is_number_integer()) return false;
    const auto number = json.get<int64_t>();
    if (number < std::numeric_limits<T>::min() || number > std::numeric_limits<T>::max()) return false;
    value = static_cast<T>(number);
  } else {
    if (!json.is_array()) return false;
    value.clear();
    for (const nlohmann::json& element : json) {
      if (!FromJson(element, value.emplace_back())) return false;
    }
  }
  return true;
}

// INVALID_ARGUMENT where the member is absent, of another type or out of range.
template <typename T>
absl::Status TakeMember(const JsonObject& object, const char* name, T& value) {
  const nlohmann::json* member = object.Find(name);
  if (member != nullptr && FromJson(*member, value)) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("{}: {} is {}, expected another type", object.path(),
                                                object.PlaceOf(name),
                                                member == nullptr ? "not there" : JsonText(*member)));
}

}  // namespace epic::eval

#endif  // EPIC_EVAL_JSON_MEMBERS_H_
