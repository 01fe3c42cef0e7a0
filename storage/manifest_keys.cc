#include "storage/manifest_keys.h"

namespace epic {
namespace {

constexpr char kEscape = '\0';
constexpr char kEscapedZero = '\xff';
constexpr char kEnd = '\x01';  // below kEscapedZero, so that a name comes before its own continuations

}  // namespace

std::string ManifestKey(ManifestKeyKind kind, std::initializer_list<std::string_view> names) {
  std::string key(1, static_cast<char>(kind));
  for (const std::string_view name : names) {
    for (const char byte : name) {
      key.push_back(byte);
      if (byte == kEscape) key.push_back(kEscapedZero);
    }
    key.push_back(kEscape);
    key.push_back(kEnd);
  }
  return key;
}

std::optional<std::vector<std::string>> ParseManifestKey(ManifestKeyKind kind, std::string_view key) {
  if (key.empty() || key.front() != static_cast<char>(kind)) return std::nullopt;
  std::vector<std::string> names;
  std::string name;
  bool inside = false;
  for (size_t i = 1; i < key.size(); ++i) {
    inside = true;
    if (key[i] != kEscape) {
      name.push_back(key[i]);
      continue;
    }
    if (++i == key.size()) return std::nullopt;
    if (key[i] == kEscapedZero) {
      name.push_back('\0');
    } else if (key[i] == kEnd) {
      names.push_back(std::move(name));
      name.clear();
      inside = false;
    } else {
      return std::nullopt;
    }
  }
  if (inside) return std::nullopt;
  return names;
}

}  // namespace epic
