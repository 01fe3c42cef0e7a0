// The router's half of DocumentService: finds a document's home and forwards there; lists over all nodes.
//
// A document's home is the first of core/placement.h's rendezvous order over the cache nodes. Requests come with a
// completed context (tenant and request id present). Errors of the home are passed on with its own words; where
// it cannot be reached, UNAVAILABLE names node and document. Thread-safe.
#ifndef EPIC_ROUTER_DOCUMENT_ROUTER_H_
#define EPIC_ROUTER_DOCUMENT_ROUTER_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/membership.h"
#include "router/backends.h"

namespace epic {

class DocumentRouter {
 public:
  // Both must outlive the router.
  DocumentRouter(const Membership* membership, Backends* backends) : membership_(membership), backends_(backends) {}

  // Names the document where the request does not.
  absl::StatusOr<v1::CreateDocumentResponse> Create(const CallScope& scope, v1::CreateDocumentRequest request);
  absl::StatusOr<v1::GetDocumentResponse> Get(const CallScope& scope, const v1::GetDocumentRequest& request);
  absl::StatusOr<v1::DeleteDocumentResponse> Delete(const CallScope& scope, const v1::DeleteDocumentRequest& request);
  // Complete or an error: a node that cannot be reached makes the listing UNAVAILABLE, never shorter.
  absl::StatusOr<v1::ListDocumentsResponse> List(const CallScope& scope, const v1::ListDocumentsRequest& request);
  absl::Status Watch(const CallScope& scope, const v1::WatchDocumentRequest& request,
                     const std::function<bool(const v1::WatchDocumentResponse&)>& on_state);
  // Asks all the homes at the same time. Answers in the order asked for. REQUIRES: the ids are valid and differ.
  absl::StatusOr<v1::ResolveDocumentsResponse> Resolve(const CallScope& scope,
                                                       const v1::ResolveDocumentsRequest& request);

 private:
  struct Home {
    std::string address;
    std::shared_ptr<CacheNodeBackend> node;
  };
  Home HomeOf(const std::string& tenant, const std::string& document_id) const;

  const Membership* const membership_;
  Backends* const backends_;
};

}  // namespace epic

#endif  // EPIC_ROUTER_DOCUMENT_ROUTER_H_
