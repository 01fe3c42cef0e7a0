// JSON from files that came from outside: bounded in size and nesting, no key twice, never an exception.
//
// JsonObject wraps one object with the name of its file and its place in it, so that every error says where it is. It
// views the parsed document, which must outlive it. Safe from any thread.
#ifndef EPIC_ENGINE_FILES_JSON_FILE_H_
#define EPIC_ENGINE_FILES_JSON_FILE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace epic {

inline constexpr size_t kJsonFileBytesMax = size_t{64} << 20;
inline constexpr int kJsonDepthMax = 64;

// INVALID_ARGUMENT where `text` is no JSON, nests deeper than kJsonDepthMax or has a key twice in one object.
// `path` is for messages.
[[nodiscard]] absl::StatusOr<nlohmann::json> ParseJson(std::string_view text, const std::string& path);

// Reads and parses a whole file, which must hold an object. NOT_FOUND where there is no such file.
[[nodiscard]] absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path);

// A whole text file of at most kJsonFileBytesMax. NOT_FOUND where there is no such file.
[[nodiscard]] absl::StatusOr<std::string> ReadTextFile(const std::string& path);

class JsonObject {
 public:
  // REQUIRES: value.is_object(). `place` is where in the file it stands, empty for the top.
  JsonObject(const nlohmann::json& value, std::string path, std::string place = "");

  const std::string& path() const { return path_; }
  const nlohmann::json& value() const { return *value_; }
  // The name of a member for messages: its key behind the place of this object.
  std::string PlaceOf(std::string_view key) const;

  // Null where the member is absent or null.
  const nlohmann::json* Find(std::string_view key) const;

  // The member, nothing where it is absent or null, INVALID_ARGUMENT where it has another type.
  [[nodiscard]] absl::StatusOr<std::optional<bool>> Bool(std::string_view key) const;
  [[nodiscard]] absl::StatusOr<std::optional<int64_t>> Integer(std::string_view key) const;
  [[nodiscard]] absl::StatusOr<std::optional<double>> Number(std::string_view key) const;
  [[nodiscard]] absl::StatusOr<std::optional<std::string>> String(std::string_view key) const;
  [[nodiscard]] absl::StatusOr<std::optional<JsonObject>> Object(std::string_view key) const;
  // Null where absent.
  [[nodiscard]] absl::StatusOr<const nlohmann::json*> Array(std::string_view key) const;

 private:
  const nlohmann::json* value_;
  std::string path_;
  std::string place_;
};

// A short rendering of any JSON value for a message: scalars as they are, the rest by kind.
std::string JsonText(const nlohmann::json& value);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_JSON_FILE_H_
