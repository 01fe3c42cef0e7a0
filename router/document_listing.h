// One listing out of several nodes' pages, and the unnamed document's name. Pure.
#ifndef EPIC_ROUTER_DOCUMENT_LISTING_H_
#define EPIC_ROUTER_DOCUMENT_LISTING_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "epic/v1/document.pb.h"

namespace epic {

// What clients get as page token: says behind which id the next page begins, in a form that nobody takes for an id.
std::string EncodePageToken(std::string_view last_id);
// INVALID_ARGUMENT where `token` is none of EncodePageToken's. An empty token is the empty id: the first page.
absl::StatusOr<std::string> DecodePageToken(std::string_view token);

// Merges what each node answered to the same request (page_size documents behind the same id) into the page of the
// cluster: in the order of ids, each id once, at most `page_size`. A node may send less than asked for and still have
// more; the page then ends where that node's knowledge ends. INTERNAL where a node says that there is more and sends
// nothing, which would never end.
absl::StatusOr<v1::ListDocumentsResponse> MergePages(std::vector<v1::ListDocumentsResponse> pages, int32_t page_size);

// "doc-" and the first 16 hexadecimal digits of SHA-256 over tenant, content and labels: everything that makes two
// registrations the same. So the same content registered twice without a name is one document.
std::string NameFromContent(std::string_view tenant, const v1::CreateDocumentRequest& request);

}  // namespace epic

#endif  // EPIC_ROUTER_DOCUMENT_LISTING_H_
