#include "core/identifiers.h"

#include <algorithm>

#include "core/limits.h"
#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {
namespace {

constexpr size_t kQuotedBytesMax = 40;

// Not std::isalnum: it asks the locale.
bool IsIdentifierCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
         c == '.' || c == ':' || c == '/';
}

absl::Status ValidateCharacters(std::string_view field, std::string_view value, size_t bytes_max) {
  if (value.size() > bytes_max) {
    return absl::InvalidArgumentError(
        fmt::format("{} {} has {} bytes, the limit is {}", field, QuoteForMessage(value), value.size(), bytes_max));
  }
  const auto bad = std::find_if_not(value.begin(), value.end(), IsIdentifierCharacter);
  if (bad != value.end()) {
    return absl::InvalidArgumentError(
        fmt::format("{} {} has the character {} at byte {}; allowed are ASCII letters, digits and - _ . : /", field,
                    QuoteForMessage(value), QuoteForMessage({&*bad, 1}), bad - value.begin()));
  }
  return absl::OkStatus();
}

}  // namespace

std::string QuoteForMessage(std::string_view value) {
  std::string quoted = "\"";
  for (const char c : value.substr(0, kQuotedBytesMax)) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (c >= ' ' && c < 0x7f) {
      quoted += c;
    } else {
      quoted += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  quoted += value.size() > kQuotedBytesMax ? "...\"" : "\"";
  return quoted;
}

absl::Status ValidateIdentifier(std::string_view field, std::string_view value, size_t bytes_max) {
  if (value.empty()) {
    return absl::InvalidArgumentError(fmt::format("{} is empty; expected 1 to {} bytes", field, bytes_max));
  }
  return ValidateCharacters(field, value, bytes_max);
}

absl::Status ValidateDocumentId(std::string_view field, std::string_view id) {
  return ValidateIdentifier(field, id, kDocumentIdBytesMax);
}

absl::Status ValidateTenant(std::string_view field, std::string_view tenant) {
  return ValidateIdentifier(field, tenant, kTenantBytesMax);
}

absl::Status ValidateRequestId(std::string_view field, std::string_view request_id) {
  return ValidateIdentifier(field, request_id, kRequestIdBytesMax);
}

absl::Status ValidateLabels(std::string_view field, const std::map<std::string, std::string>& labels) {
  if (labels.size() > kLabelsMax) {
    return absl::InvalidArgumentError(
        fmt::format("{} has {} labels, the limit is {}", field, labels.size(), kLabelsMax));
  }
  for (const auto& [name, value] : labels) {
    EPIC_RETURN_IF_ERROR(ValidateIdentifier(fmt::format("the name of a label in {}", field), name, kLabelBytesMax));
    EPIC_RETURN_IF_ERROR(
        ValidateCharacters(fmt::format("{}[{}]", field, QuoteForMessage(name)), value, kLabelBytesMax));
  }
  return absl::OkStatus();
}

}  // namespace epic
