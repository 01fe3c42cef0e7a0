#include "router/fake_members_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace epic {
namespace {

std::unique_ptr<GrpcServer> StartOrDie(const std::vector<grpc::Service*>& services) {
  return GrpcServer::Start({.listen_address = "127.0.0.1:0"}, services).value();
}

grpc::Status NotFound(const std::string& id) {
  return grpc::Status(grpc::StatusCode::NOT_FOUND, fmt::format("document \"{}\" does not exist", id));
}

// How often a handler that has nothing to wait on looks whether its client is still there.
constexpr std::chrono::milliseconds kLook{5};

}  // namespace

FakeCacheNode::FakeCacheNode()
    : server_(StartOrDie(
          {static_cast<v1::DocumentService::Service*>(this), static_cast<v1::CacheService::Service*>(this)})) {}

grpc::Status FakeCacheNode::CreateDocument(grpc::ServerContext*, const v1::CreateDocumentRequest* request,
                                           v1::CreateDocumentResponse* response) {
  MutexLock lock(mutex_);
  const auto [entry, is_new] =
      texts_.emplace(Name{request->context().tenant(), request->document_id()}, request->text());
  if (entry->second != request->text()) {
    return grpc::Status(grpc::StatusCode::ALREADY_EXISTS, "the id has other content");
  }
  response->set_created(is_new);
  response->mutable_document()->set_id(request->document_id());
  return grpc::Status::OK;
}

grpc::Status FakeCacheNode::GetDocument(grpc::ServerContext*, const v1::GetDocumentRequest* request,
                                        v1::GetDocumentResponse* response) {
  MutexLock lock(mutex_);
  const auto found = texts_.find({request->context().tenant(), request->document_id()});
  if (found == texts_.end()) return NotFound(request->document_id());
  response->mutable_document()->set_id(request->document_id());
  response->set_text(found->second);
  return grpc::Status::OK;
}

grpc::Status FakeCacheNode::ListDocuments(grpc::ServerContext*, const v1::ListDocumentsRequest* request,
                                          v1::ListDocumentsResponse* response) {
  MutexLock lock(mutex_);
  for (auto entry = texts_.upper_bound({request->context().tenant(), request->page_token()}); entry != texts_.end();
       ++entry) {
    if (entry->first.first != request->context().tenant()) break;
    if (response->documents_size() == request->page_size()) {
      response->set_next_page_token(response->documents(request->page_size() - 1).id());
      break;
    }
    response->add_documents()->set_id(entry->first.second);
  }
  return grpc::Status::OK;
}

grpc::Status FakeCacheNode::DeleteDocument(grpc::ServerContext*, const v1::DeleteDocumentRequest* request,
                                           v1::DeleteDocumentResponse*) {
  MutexLock lock(mutex_);
  return texts_.erase({request->context().tenant(), request->document_id()}) == 1 ? grpc::Status::OK
                                                                                  : NotFound(request->document_id());
}

grpc::Status FakeCacheNode::WatchDocument(grpc::ServerContext* context, const v1::WatchDocumentRequest* request,
                                          grpc::ServerWriter<v1::WatchDocumentResponse>* writer) {
  v1::WatchDocumentResponse state;
  state.mutable_document()->set_id(request->document_id());
  state.mutable_document()->set_state(v1::DOCUMENT_STATE_COMPILING);
  writer->Write(state);
  {
    MutexLock lock(mutex_);
    while (!compiled_ && !context->IsCancelled()) {
      changed_.WaitUntil(mutex_, std::chrono::steady_clock::now() + kLook);
    }
    if (!compiled_) {
      ++cancelled_watches_;
      changed_.NotifyAll();
      return grpc::Status::CANCELLED;
    }
  }
  state.mutable_document()->set_state(v1::DOCUMENT_STATE_READY);
  writer->Write(state);
  return grpc::Status::OK;
}

grpc::Status FakeCacheNode::ResolveDocuments(grpc::ServerContext*, const v1::ResolveDocumentsRequest* request,
                                             v1::ResolveDocumentsResponse* response) {
  MutexLock lock(mutex_);
  for (const std::string& id : request->document_ids()) {
    const auto found = texts_.find({request->context().tenant(), id});
    if (found == texts_.end()) return NotFound(id);
    v1::ResolvedDocument* document = response->add_documents();
    document->set_document_id(id);
    document->mutable_recipe()->set_id(request->recipe_id());
    for (size_t begin = 0; begin < found->second.size(); begin += 10) {
      const std::string piece = found->second.substr(begin, 10);
      v1::ResolvedChunk* chunk = document->add_chunks();
      std::string key = piece;
      key.resize(32, '.');
      chunk->set_key(key);
      for (const char c : piece) chunk->add_token_ids(static_cast<unsigned char>(c));
      chunk->set_block_bytes(1'000'000);
    }
  }
  return grpc::Status::OK;
}

grpc::Status FakeCacheNode::GetNodeStatus(grpc::ServerContext*, const v1::GetNodeStatusRequest*,
                                          v1::GetNodeStatusResponse* response) {
  response->set_document_count(static_cast<int64_t>(document_count()));
  response->set_capacity_bytes(77);
  return grpc::Status::OK;
}

size_t FakeCacheNode::document_count() {
  MutexLock lock(mutex_);
  return texts_.size();
}

void FakeCacheNode::FinishCompilation() {
  MutexLock lock(mutex_);
  compiled_ = true;
  changed_.NotifyAll();
}

void FakeCacheNode::AwaitCancelledWatches(int count) {
  MutexLock lock(mutex_);
  while (cancelled_watches_ < count) changed_.Wait(mutex_);
}

FakeWorker::FakeWorker() : server_(StartOrDie({this})) {
  v1::LinkerVerdict verdict;
  verdict.set_linker("legolink:16");
  verdict.set_passes(true);
  SetVerdicts({verdict});
}

grpc::Status FakeWorker::Infer(grpc::ServerContext* context, const v1::InferRequest* request, Writer* writer) {
  Script script;
  {
    MutexLock lock(mutex_);
    requests_.push_back(*request);
    script = script_;
  }
  if (script) return script(context, *request, writer);
  writer->Write(TokenMessage("ok"));
  writer->Write(FinalMessage());
  return grpc::Status::OK;
}

grpc::Status FakeWorker::GetWorkerStatus(grpc::ServerContext*, const v1::GetWorkerStatusRequest* request,
                                         v1::GetWorkerStatusResponse* response) {
  MutexLock lock(mutex_);
  response->set_worker_id("fake");
  response->mutable_model()->set_name("tiny");
  response->mutable_model()->set_fingerprint("f00d");
  response->mutable_model()->set_vocab_size(256);
  response->mutable_model()->set_context_length(2048);
  response->set_prefill_tokens_per_second(1000);
  response->set_pull_bytes_per_second(100e6);
  for (int i = 0; i < request->chunk_keys_size(); ++i) response->add_resident(holds_all_);
  for (const v1::LinkerVerdict& verdict : verdicts_) *response->add_linker_verdicts() = verdict;
  *response->mutable_shadow() = {shadow_.begin(), shadow_.end()};
  return grpc::Status::OK;
}

void FakeWorker::SetScript(Script script) {
  MutexLock lock(mutex_);
  script_ = std::move(script);
}

void FakeWorker::SetVerdicts(std::vector<v1::LinkerVerdict> verdicts) {
  MutexLock lock(mutex_);
  verdicts_ = std::move(verdicts);
}

void FakeWorker::SetShadow(std::vector<v1::ShadowFigures> shadow) {
  MutexLock lock(mutex_);
  shadow_ = std::move(shadow);
}

void FakeWorker::HoldAllChunks() {
  MutexLock lock(mutex_);
  holds_all_ = true;
}

std::vector<v1::InferRequest> FakeWorker::requests() {
  MutexLock lock(mutex_);
  return requests_;
}

v1::GenerateResponse FakeWorker::TokenMessage(const std::string& text) {
  v1::GenerateResponse message;
  message.set_text(text);
  message.add_tokens()->set_token_id(7);
  return message;
}

v1::GenerateResponse FakeWorker::FinalMessage() {
  v1::GenerateResponse message;
  message.mutable_final()->set_finish_reason(v1::FINISH_REASON_STOP);
  message.mutable_final()->mutable_usage()->set_completion_tokens(1);
  return message;
}

}  // namespace epic
