#include "cache_node/document_service.h"

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "core/identifiers.h"
#include "core/limits.h"
#include "core/status_macros.h"
#include "fmt/format.h"
#include "server/grpc_server.h"

namespace epic {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// How soon a watch notices that its client is gone, while nothing changes. gRPC tells a blocking handler only when
// asked.
constexpr milliseconds kWatchCancelPoll{100};

// What every call begins with: its deadline and whose call it is.
struct Call {
  Deadline deadline;
  v1::RequestContext context;
};
absl::StatusOr<Call> Begin(const grpc::ServerContext& context, const v1::RequestContext& request_context,
                           int64_t budget_ms) {
  Call call;
  EPIC_ASSIGN_OR_RETURN(call.deadline, CallDeadline(context, milliseconds(budget_ms)));
  call.context = request_context;
  EPIC_RETURN_IF_ERROR(CompleteRequestContext(context, &call.context));
  return call;
}

v1::DocumentState StateOf(DocumentPhase phase) {
  switch (phase) {
    case DocumentPhase::kRegistered:
      return v1::DOCUMENT_STATE_REGISTERED;
    case DocumentPhase::kCompiling:
      return v1::DOCUMENT_STATE_COMPILING;
    case DocumentPhase::kReady:
      return v1::DOCUMENT_STATE_READY;
    case DocumentPhase::kFailed:
      return v1::DOCUMENT_STATE_FAILED;
  }
  return v1::DOCUMENT_STATE_UNSPECIFIED;
}

// One watch in the count of watches.
class WatchSlot {
 public:
  explicit WatchSlot(std::atomic<int>* count) : count_(count), number_(++*count) {}
  ~WatchSlot() { --*count_; }
  bool within_limit() const { return number_ <= kWatchesMax; }

 private:
  std::atomic<int>* const count_;
  const int number_;
};

}  // namespace

void DocumentServiceImpl::SetHome(const std::string& address) {
  MutexLock lock(mutex_);
  home_ = address;
}

void DocumentServiceImpl::StopWatches() {
  stopping_ = true;
  node_->WakeWaiters();
}

v1::Document DocumentServiceImpl::Describe(const DocumentInfo& info) const {
  const DocumentRecord& record = info.record;
  const DocumentProgress& progress = info.progress;
  v1::Document document;
  document.set_id(record.id);
  document.set_tenant(record.tenant);
  document.mutable_labels()->insert(record.labels.begin(), record.labels.end());
  document.set_created_unix_ms(record.created_unix_ms);
  document.set_expires_unix_ms(record.expires_unix_ms);
  document.set_state(StateOf(progress.phase));
  document.set_state_reason(progress.reason);
  document.set_token_count(progress.token_count);
  document.set_chunk_count(progress.chunk_count);
  document.set_compiled_chunk_count(progress.compiled_chunk_count);
  document.set_resident_chunk_count(node_->ResidentChunks({record.tenant, record.id}));
  document.set_text_bytes(static_cast<int64_t>(record.text.size()));
  document.set_model_fingerprint(node_->compiler().fingerprint_hex());
  document.set_recipe_id(record.recipe_id);
  document.set_pinned(node_->IsPinned({record.tenant, record.id}));
  return document;
}

grpc::Status DocumentServiceImpl::CreateDocument(grpc::ServerContext* context, const v1::CreateDocumentRequest* request,
                                                 v1::CreateDocumentResponse* response) {
  return ToGrpcStatus(DoCreate(context, *request, response));
}

absl::Status DocumentServiceImpl::DoCreate(grpc::ServerContext* context, const v1::CreateDocumentRequest& request,
                                           v1::CreateDocumentResponse* response) {
  EPIC_ASSIGN_OR_RETURN(const Call call, Begin(*context, request.context(), kControlDeadlineMsDefault));
  NewDocument document;
  document.tenant = call.context.tenant();
  document.id = request.document_id();
  if (request.has_text()) document.text = request.text();
  if (request.has_token_ids()) {
    document.token_ids.emplace(request.token_ids().ids().begin(), request.token_ids().ids().end());
    document.token_ids_model_fingerprint = request.token_ids().model_fingerprint();
  }
  document.labels.insert(request.labels().begin(), request.labels().end());
  document.ttl_ms = request.ttl_ms();
  document.recipe_id = request.recipe_id();
  EPIC_ASSIGN_OR_RETURN(const CacheNode::Created created, node_->CreateDocument(document, call.deadline));
  *response->mutable_document() = Describe(created.document);
  response->set_created(created.created);
  return absl::OkStatus();
}

grpc::Status DocumentServiceImpl::GetDocument(grpc::ServerContext* context, const v1::GetDocumentRequest* request,
                                              v1::GetDocumentResponse* response) {
  return ToGrpcStatus(DoGet(context, *request, response));
}

absl::Status DocumentServiceImpl::DoGet(grpc::ServerContext* context, const v1::GetDocumentRequest& request,
                                        v1::GetDocumentResponse* response) {
  EPIC_ASSIGN_OR_RETURN(const Call call, Begin(*context, request.context(), kControlDeadlineMsDefault));
  EPIC_ASSIGN_OR_RETURN(DocumentInfo info,
                        node_->GetDocument(call.context.tenant(), request.document_id(), call.deadline));
  *response->mutable_document() = Describe(info);
  if (request.include_text()) response->set_text(std::move(info.record.text));
  return absl::OkStatus();
}

grpc::Status DocumentServiceImpl::ListDocuments(grpc::ServerContext* context, const v1::ListDocumentsRequest* request,
                                                v1::ListDocumentsResponse* response) {
  return ToGrpcStatus(DoList(context, *request, response));
}

absl::Status DocumentServiceImpl::DoList(grpc::ServerContext* context, const v1::ListDocumentsRequest& request,
                                         v1::ListDocumentsResponse* response) {
  EPIC_ASSIGN_OR_RETURN(const Call call, Begin(*context, request.context(), kControlDeadlineMsDefault));
  EPIC_ASSIGN_OR_RETURN(DocumentPage page, node_->ListDocuments(call.context.tenant(), request.page_size(),
                                                                request.page_token(), call.deadline));
  for (const DocumentInfo& info : page.documents) *response->add_documents() = Describe(info);
  response->set_next_page_token(std::move(page.next_page_token));
  return absl::OkStatus();
}

grpc::Status DocumentServiceImpl::DeleteDocument(grpc::ServerContext* context, const v1::DeleteDocumentRequest* request,
                                                 v1::DeleteDocumentResponse*) {
  return ToGrpcStatus(DoDelete(context, *request));
}

absl::Status DocumentServiceImpl::DoDelete(grpc::ServerContext* context, const v1::DeleteDocumentRequest& request) {
  EPIC_ASSIGN_OR_RETURN(const Call call, Begin(*context, request.context(), kControlDeadlineMsDefault));
  return node_->DeleteDocument(call.context.tenant(), request.document_id(), call.deadline);
}

grpc::Status DocumentServiceImpl::WatchDocument(grpc::ServerContext* context, const v1::WatchDocumentRequest* request,
                                                grpc::ServerWriter<v1::WatchDocumentResponse>* writer) {
  return ToGrpcStatus(DoWatch(context, *request, writer));
}

absl::Status DocumentServiceImpl::DoWatch(grpc::ServerContext* context, const v1::WatchDocumentRequest& request,
                                          grpc::ServerWriter<v1::WatchDocumentResponse>* writer) {
  EPIC_ASSIGN_OR_RETURN(const Call call, Begin(*context, request.context(), kGenerateDeadlineMsDefault));
  const WatchSlot slot(&watches_);
  if (!slot.within_limit()) {
    return absl::ResourceExhaustedError(
        fmt::format("{} documents are being watched on this node already, the limit; try again later", kWatchesMax));
  }
  EPIC_ASSIGN_OR_RETURN(DocumentInfo info,
                        node_->AskForDocument(call.context.tenant(), request.document_id(), call.deadline));
  const DocumentName name{info.record.tenant, info.record.id};
  uint64_t seen_change = 0;
  std::optional<uint64_t> sent_version;
  while (!stopping_) {
    const std::optional<DocumentProgress> progress = node_->Progress(name);
    if (!progress.has_value()) {
      return absl::NotFoundError(fmt::format("document {} was deleted while it was watched", QuoteForMessage(name.id)));
    }
    if (progress->version != sent_version) {
      info.progress = *progress;
      v1::WatchDocumentResponse response;
      *response.mutable_document() = Describe(info);
      if (!writer->Write(response)) return absl::CancelledError("the watcher is gone");
      sent_version = progress->version;
      if (progress->phase == DocumentPhase::kReady || progress->phase == DocumentPhase::kFailed) {
        return absl::OkStatus();
      }
    }
    if (context->IsCancelled()) return absl::CancelledError("the client cancelled the watch");
    const steady_clock::time_point now = steady_clock::now();
    if (now >= call.deadline) {
      return absl::DeadlineExceededError(
          fmt::format("document {} was not compiled before the deadline: {} of {} chunks", QuoteForMessage(name.id),
                      info.progress.compiled_chunk_count, info.progress.chunk_count));
    }
    seen_change = node_->WaitForChange(seen_change, std::min(call.deadline, now + kWatchCancelPoll));
  }
  return absl::UnavailableError("the cache node is shutting down");
}

grpc::Status DocumentServiceImpl::ResolveDocuments(grpc::ServerContext* context,
                                                   const v1::ResolveDocumentsRequest* request,
                                                   v1::ResolveDocumentsResponse* response) {
  return ToGrpcStatus(DoResolve(context, *request, response));
}

absl::Status DocumentServiceImpl::DoResolve(grpc::ServerContext* context, const v1::ResolveDocumentsRequest& request,
                                            v1::ResolveDocumentsResponse* response) {
  EPIC_ASSIGN_OR_RETURN(const Call call, Begin(*context, request.context(), kControlDeadlineMsDefault));
  std::string home;
  {
    MutexLock lock(mutex_);
    home = home_;
  }
  if (home.empty()) return absl::UnavailableError("the cache node is starting; try again");
  const std::vector<std::string> ids(request.document_ids().begin(), request.document_ids().end());
  EPIC_ASSIGN_OR_RETURN(const std::vector<ResolvedDocument> documents,
                        node_->ResolveDocuments(call.context.tenant(), ids, request.recipe_id(),
                                                request.model_fingerprint(), call.deadline));
  for (const ResolvedDocument& document : documents) {
    v1::ResolvedDocument* resolved = response->add_documents();
    resolved->set_document_id(document.id);
    resolved->mutable_recipe()->set_id(document.recipe.id);
    resolved->mutable_recipe()->mutable_prefix_token_ids()->Add(document.recipe.prefix_tokens.begin(),
                                                                document.recipe.prefix_tokens.end());
    for (const ResolvedDocument::Chunk& chunk : document.chunks) {
      v1::ResolvedChunk* out = resolved->add_chunks();
      out->set_key(std::string(chunk.key.AsBytes()));
      out->mutable_token_ids()->Add(chunk.token_ids.begin(), chunk.token_ids.end());
      out->set_home(home);
      out->set_block_bytes(static_cast<int64_t>(chunk.block_bytes));
      out->set_resident(chunk.resident);
      out->set_context_token_count(chunk.context_token_count);
    }
  }
  return absl::OkStatus();
}

}  // namespace epic
