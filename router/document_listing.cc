#include "router/document_listing.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>

#include "core/byte_codec.h"
#include "core/identifiers.h"

namespace epic {
namespace {

constexpr std::string_view kTokenPrefix = "after-";

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

std::string EncodePageToken(std::string_view last_id) {
  std::string token(kTokenPrefix);
  for (const char c : last_id) token += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return token;
}

absl::StatusOr<std::string> DecodePageToken(std::string_view token) {
  if (token.empty()) return std::string();
  const auto refuse = [&] {
    return absl::InvalidArgumentError(
        fmt::format("page_token is {}; expected one that ListDocuments returned", QuoteForMessage(token)));
  };
  if (!token.starts_with(kTokenPrefix)) return refuse();
  const std::string_view digits = token.substr(kTokenPrefix.size());
  if (digits.size() % 2 != 0) return refuse();
  std::string id;
  for (size_t i = 0; i < digits.size(); i += 2) {
    const int high = HexDigit(digits[i]);
    const int low = HexDigit(digits[i + 1]);
    if (high < 0 || low < 0) return refuse();
    id += static_cast<char>(high * 16 + low);
  }
  if (!ValidateDocumentId("page_token", id).ok()) return refuse();
  return id;
}

absl::StatusOr<v1::ListDocumentsResponse> MergePages(std::vector<v1::ListDocumentsResponse> pages, int32_t page_size) {
  std::map<std::string, v1::Document*> by_id;
  // Behind this id some node may have documents that it has not sent.
  std::optional<std::string> known_until;
  for (v1::ListDocumentsResponse& page : pages) {
    std::string last_id;
    for (v1::Document& document : *page.mutable_documents()) {
      last_id = std::max(last_id, document.id());
      by_id.emplace(document.id(), &document);
    }
    if (page.next_page_token().empty()) continue;
    if (page.documents().empty()) {
      return absl::InternalError("a cache node sent an empty page and says that there are more documents");
    }
    known_until = known_until.has_value() ? std::min(*known_until, last_id) : last_id;
  }

  v1::ListDocumentsResponse merged;
  bool has_more = known_until.has_value();
  for (auto& [id, document] : by_id) {
    if ((known_until.has_value() && id > *known_until) || merged.documents_size() == page_size) {
      has_more = true;
      break;
    }
    *merged.add_documents() = std::move(*document);
  }
  if (has_more) merged.set_next_page_token(EncodePageToken(merged.documents(merged.documents_size() - 1).id()));
  return merged;
}

std::string NameFromContent(std::string_view tenant, const v1::CreateDocumentRequest& request) {
  // Each part with its length before it, so that no two registrations have the same bytes.
  ByteWriter bytes;
  bytes.PutString(tenant);
  bytes.PutString(request.text());
  bytes.PutString(request.token_ids().model_fingerprint());
  for (const int32_t id : request.token_ids().ids()) bytes.PutString(std::to_string(id));
  const std::map<std::string, std::string> labels(request.labels().begin(), request.labels().end());
  for (const auto& [name, value] : labels) {
    bytes.PutString("label");
    bytes.PutString(name);
    bytes.PutString(value);
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  EVP_Digest(bytes.bytes().data(), bytes.size(), digest.data(), nullptr, EVP_sha256(), nullptr);
  std::string name = "doc-";
  for (size_t i = 0; i < 8; ++i) name += fmt::format("{:02x}", digest[i]);
  return name;
}

}  // namespace epic
