// What may name a document, a tenant, a request or a label. Pure.
//
// Names are 1 to a limit of ASCII letters, digits and - _ . : / so that they can stand unquoted in keys, log lines,
// URLs and tables. Everything else is INVALID_ARGUMENT naming the field, the value (escaped and shortened, so that it
// cannot forge a log line) and the limit.
#ifndef EPIC_CORE_IDENTIFIERS_H_
#define EPIC_CORE_IDENTIFIERS_H_

#include <cstddef>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace epic {

// `field` is the name that the caller's contract gives it, such as "document.id".
[[nodiscard]] absl::Status ValidateIdentifier(std::string_view field, std::string_view value, size_t bytes_max);

[[nodiscard]] absl::Status ValidateDocumentId(std::string_view field, std::string_view id);
[[nodiscard]] absl::Status ValidateTenant(std::string_view field, std::string_view tenant);
[[nodiscard]] absl::Status ValidateRequestId(std::string_view field, std::string_view request_id);
// Names are identifiers; values may be empty as well. At most kLabelsMax labels.
[[nodiscard]] absl::Status ValidateLabels(std::string_view field, const std::map<std::string, std::string>& labels);

// `value` in double quotes for a message: at most 40 bytes of it, everything but printable ASCII as \xNN.
std::string QuoteForMessage(std::string_view value);

}  // namespace epic

#endif  // EPIC_CORE_IDENTIFIERS_H_
