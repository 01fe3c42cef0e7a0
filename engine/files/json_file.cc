#include "engine/files/json_file.h"

#include <limits>
#include <set>
#include <utility>
#include <vector>

#include "core/status_macros.h"
#include "engine/files/file_error.h"
#include "engine/files/mapped_file.h"

namespace epic {

namespace {

// Nesting, counted before anything is built: a megabyte of brackets would otherwise become a hundred of objects.
int DepthOf(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char character = text[i];
    if (in_string) {
      if (character == '\\') {
        ++i;
      } else if (character == '"') {
        in_string = false;
      }
      continue;
    }
    if (character == '"') in_string = true;
    if (character == '[' || character == '{') deepest = std::max(deepest, ++depth);
    if (character == ']' || character == '}') --depth;
  }
  return deepest;
}

absl::Status WrongType(const JsonObject& object, std::string_view key, const char* expected,
                       const nlohmann::json& value) {
  return BrokenFile(object.path(), "{} is {}, expected {}", object.PlaceOf(key), JsonText(value), expected);
}

}  // namespace

std::string JsonText(const nlohmann::json& value) {
  if (value.is_string()) return Quoted(value.get_ref<const std::string&>());
  if (value.is_array()) return fmt::format("an array of {}", value.size());
  if (value.is_object()) return "an object";
  return value.dump();
}

absl::StatusOr<nlohmann::json> ParseJson(std::string_view text, const std::string& path) {
  const int depth = DepthOf(text);
  if (depth > kJsonDepthMax)
    return BrokenFile(path, "the JSON nests {} deep, at most {} are allowed", depth, kJsonDepthMax);
  std::vector<std::set<std::string>> open_objects;
  std::string twice;
  bool has_duplicate = false;
  const auto watch = [&](int, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) open_objects.emplace_back();
    if (event == Event::object_end) open_objects.pop_back();
    if (event == Event::key && !open_objects.back().insert(parsed.get_ref<const std::string&>()).second &&
        !has_duplicate) {
      has_duplicate = true;
      twice = parsed.get_ref<const std::string&>();
    }
    return true;
  };
  nlohmann::json document = nlohmann::json::parse(text.begin(), text.end(), watch, /*allow_exceptions=*/false);
  if (document.is_discarded()) return BrokenFile(path, "expected JSON in UTF-8, found something else or a part of it");
  if (has_duplicate) return BrokenFile(path, "the JSON key {} stands twice in one object", Quoted(twice));
  return document;
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  EPIC_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  if (file.bytes().size() > kJsonFileBytesMax) {
    return BrokenFile(path, "the file has {} bytes, at most {} are read", file.bytes().size(), kJsonFileBytesMax);
  }
  return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
}

absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path) {
  EPIC_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  EPIC_ASSIGN_OR_RETURN(nlohmann::json document, ParseJson(text, path));
  if (!document.is_object()) return BrokenFile(path, "expected a JSON object, found {}", JsonText(document));
  return document;
}

JsonObject::JsonObject(const nlohmann::json& value, std::string path, std::string place)
    : value_(&value), path_(std::move(path)), place_(std::move(place)) {}

std::string JsonObject::PlaceOf(std::string_view key) const {
  return place_.empty() ? std::string(key) : fmt::format("{}.{}", place_, key);
}

const nlohmann::json* JsonObject::Find(std::string_view key) const {
  const auto found = value_->find(std::string(key));
  return found == value_->end() || found->is_null() ? nullptr : &*found;
}

absl::StatusOr<std::optional<bool>> JsonObject::Bool(std::string_view key) const {
  const nlohmann::json* member = Find(key);
  if (member == nullptr) return std::nullopt;
  if (!member->is_boolean()) return WrongType(*this, key, "true or false", *member);
  return member->get<bool>();
}

absl::StatusOr<std::optional<int64_t>> JsonObject::Integer(std::string_view key) const {
  const nlohmann::json* member = Find(key);
  if (member == nullptr) return std::nullopt;
  const bool too_large = member->is_number_unsigned() &&
                         member->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (!member->is_number_integer() || too_large) return WrongType(*this, key, "an integer", *member);
  return member->get<int64_t>();
}

absl::StatusOr<std::optional<double>> JsonObject::Number(std::string_view key) const {
  const nlohmann::json* member = Find(key);
  if (member == nullptr) return std::nullopt;
  if (!member->is_number()) return WrongType(*this, key, "a number", *member);
  return member->get<double>();
}

absl::StatusOr<std::optional<std::string>> JsonObject::String(std::string_view key) const {
  const nlohmann::json* member = Find(key);
  if (member == nullptr) return std::nullopt;
  if (!member->is_string()) return WrongType(*this, key, "a string", *member);
  return member->get<std::string>();
}

absl::StatusOr<std::optional<JsonObject>> JsonObject::Object(std::string_view key) const {
  const nlohmann::json* member = Find(key);
  if (member == nullptr) return std::nullopt;
  if (!member->is_object()) return WrongType(*this, key, "an object", *member);
  return JsonObject(*member, path_, PlaceOf(key));
}

absl::StatusOr<const nlohmann::json*> JsonObject::Array(std::string_view key) const {
  const nlohmann::json* member = Find(key);
  if (member != nullptr && !member->is_array()) return WrongType(*this, key, "an array", *member);
  return member;
}

}  // namespace epic
