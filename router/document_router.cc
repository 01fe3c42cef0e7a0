#include "router/document_router.h"

#include <fmt/format.h>

#include <utility>

#include "core/identifiers.h"
#include "core/limits.h"
#include "core/placement.h"
#include "core/status_macros.h"
#include "router/document_listing.h"
#include "router/parallel.h"

namespace epic {
namespace {

// The home's own words, except where there are none because it was not reached.
absl::Status FromHome(const absl::Status& status, const std::string& address, const std::string& what) {
  if (status.code() != absl::StatusCode::kUnavailable) return status;
  return absl::UnavailableError(fmt::format("cache node {}, which is asked for {}, cannot be reached: {}", address,
                                            what, std::string(status.message())));
}

std::string DocumentWords(const std::string& id) { return fmt::format("document {}", QuoteForMessage(id)); }

absl::Status ValidateContent(const v1::CreateDocumentRequest& request) {
  if (request.content_case() == v1::CreateDocumentRequest::CONTENT_NOT_SET) {
    return absl::InvalidArgumentError("content is absent; expected text or token_ids");
  }
  if (request.has_text() && request.text().empty()) {
    return absl::InvalidArgumentError(fmt::format("text is empty; expected 1 to {} bytes", kDocumentTextBytesMax));
  }
  if (request.text().size() > kDocumentTextBytesMax) {
    return absl::InvalidArgumentError(
        fmt::format("text has {} bytes; the limit is {}", request.text().size(), kDocumentTextBytesMax));
  }
  if (request.has_token_ids() &&
      (request.token_ids().ids().empty() || request.token_ids().ids_size() > kDocumentTokensMax)) {
    return absl::InvalidArgumentError(
        fmt::format("token_ids has {} ids; expected 1 to {}", request.token_ids().ids_size(), kDocumentTokensMax));
  }
  return absl::OkStatus();
}

}  // namespace

DocumentRouter::Home DocumentRouter::HomeOf(const std::string& tenant, const std::string& document_id) const {
  const auto members = membership_->Current();
  const size_t first = RendezvousOrder(tenant, document_id, members->cache_nodes)[0];
  const std::string& address = members->cache_nodes[first];
  return {address, backends_->CacheNode(address)};
}

absl::StatusOr<v1::CreateDocumentResponse> DocumentRouter::Create(const CallScope& scope,
                                                                  v1::CreateDocumentRequest request) {
  EPIC_RETURN_IF_ERROR(ValidateContent(request));
  const std::string& tenant = request.context().tenant();
  if (request.document_id().empty()) request.set_document_id(NameFromContent(tenant, request));
  EPIC_RETURN_IF_ERROR(ValidateDocumentId("document_id", request.document_id()));
  EPIC_RETURN_IF_ERROR(ValidateLabels("labels", {request.labels().begin(), request.labels().end()}));
  const Home home = HomeOf(tenant, request.document_id());
  auto response = home.node->CreateDocument(scope, request);
  if (!response.ok()) return FromHome(response.status(), home.address, DocumentWords(request.document_id()));
  return response;
}

absl::StatusOr<v1::GetDocumentResponse> DocumentRouter::Get(const CallScope& scope,
                                                            const v1::GetDocumentRequest& request) {
  EPIC_RETURN_IF_ERROR(ValidateDocumentId("document_id", request.document_id()));
  const Home home = HomeOf(request.context().tenant(), request.document_id());
  auto response = home.node->GetDocument(scope, request);
  if (!response.ok()) return FromHome(response.status(), home.address, DocumentWords(request.document_id()));
  return response;
}

absl::StatusOr<v1::DeleteDocumentResponse> DocumentRouter::Delete(const CallScope& scope,
                                                                  const v1::DeleteDocumentRequest& request) {
  EPIC_RETURN_IF_ERROR(ValidateDocumentId("document_id", request.document_id()));
  const Home home = HomeOf(request.context().tenant(), request.document_id());
  auto response = home.node->DeleteDocument(scope, request);
  if (!response.ok()) return FromHome(response.status(), home.address, DocumentWords(request.document_id()));
  return response;
}

absl::Status DocumentRouter::Watch(const CallScope& scope, const v1::WatchDocumentRequest& request,
                                   const std::function<bool(const v1::WatchDocumentResponse&)>& on_state) {
  EPIC_RETURN_IF_ERROR(ValidateDocumentId("document_id", request.document_id()));
  const Home home = HomeOf(request.context().tenant(), request.document_id());
  return FromHome(home.node->WatchDocument(scope, request, on_state), home.address,
                  DocumentWords(request.document_id()));
}

absl::StatusOr<v1::ListDocumentsResponse> DocumentRouter::List(const CallScope& scope,
                                                               const v1::ListDocumentsRequest& request) {
  if (request.page_size() < 0 || request.page_size() > kPageSizeMax) {
    return absl::InvalidArgumentError(
        fmt::format("page_size is {}; expected 0 (for {}) to {}", request.page_size(), kPageSizeDefault, kPageSizeMax));
  }
  v1::ListDocumentsRequest to_nodes = request;
  to_nodes.set_page_size(request.page_size() == 0 ? kPageSizeDefault : request.page_size());
  EPIC_ASSIGN_OR_RETURN(*to_nodes.mutable_page_token(), DecodePageToken(request.page_token()));

  const auto members = membership_->Current();
  std::vector<v1::ListDocumentsResponse> pages(members->cache_nodes.size());
  std::vector<absl::Status> statuses(pages.size());
  RunInParallel(pages.size(), [&](size_t i) {
    auto page = backends_->CacheNode(members->cache_nodes[i])->ListDocuments(scope, to_nodes);
    statuses[i] = page.status();
    if (page.ok()) pages[i] = *std::move(page);
  });
  for (size_t i = 0; i < statuses.size(); ++i) {
    EPIC_RETURN_IF_ERROR(FromHome(statuses[i], members->cache_nodes[i], "its documents"));
  }
  return MergePages(std::move(pages), to_nodes.page_size());
}

absl::StatusOr<v1::ResolveDocumentsResponse> DocumentRouter::Resolve(const CallScope& scope,
                                                                     const v1::ResolveDocumentsRequest& request) {
  struct Question {
    Home home;
    v1::ResolveDocumentsRequest request;
    std::vector<int> places;  // in the whole request
    absl::Status status;
    v1::ResolveDocumentsResponse response;
  };
  std::map<std::string, Question> by_home;
  for (int i = 0; i < request.document_ids_size(); ++i) {
    Home home = HomeOf(request.context().tenant(), request.document_ids(i));
    Question& question = by_home[home.address];
    if (question.places.empty()) {
      question.home = std::move(home);
      question.request = request;
      question.request.clear_document_ids();
    }
    question.request.add_document_ids(request.document_ids(i));
    question.places.push_back(i);
  }
  std::vector<Question*> questions;
  for (auto& [address, question] : by_home) questions.push_back(&question);
  RunInParallel(questions.size(), [&](size_t i) {
    Question& question = *questions[i];
    auto response = question.home.node->ResolveDocuments(scope, question.request);
    question.status = response.status();
    if (response.ok()) question.response = *std::move(response);
  });

  v1::ResolveDocumentsResponse all;
  for (int i = 0; i < request.document_ids_size(); ++i) all.add_documents();
  for (Question* question : questions) {
    EPIC_RETURN_IF_ERROR(
        FromHome(question->status, question->home.address, DocumentWords(question->request.document_ids(0))));
    if (static_cast<size_t>(question->response.documents_size()) != question->places.size()) {
      return absl::InternalError(fmt::format("cache node {} resolved {} documents; {} were asked for",
                                             question->home.address, question->response.documents_size(),
                                             question->places.size()));
    }
    for (size_t k = 0; k < question->places.size(); ++k) {
      v1::ResolvedDocument* document = all.mutable_documents(question->places[k]);
      *document = std::move(*question->response.mutable_documents(static_cast<int>(k)));
      document->set_document_id(request.document_ids(question->places[k]));
      for (v1::ResolvedChunk& chunk : *document->mutable_chunks()) {
        if (chunk.home().empty()) chunk.set_home(question->home.address);
      }
    }
  }
  return all;
}

}  // namespace epic
