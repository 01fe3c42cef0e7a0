// The SDK over gRPC.
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <random>
#include <thread>
#include <utility>

#include "client/client.h"
#include "core/limits.h"
#include "core/status_macros.h"
#include "epic/v1/document.grpc.pb.h"
#include "epic/v1/inference.grpc.pb.h"
#include "fmt/format.h"
#include "server/grpc_client.h"
#include "server/server_options.h"

namespace epic::client {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

constexpr std::chrono::milliseconds kFirstPause{50};
constexpr std::chrono::milliseconds kLongestPause{1000};

DocumentState FromProto(v1::DocumentState state) {
  switch (state) {
    case v1::DOCUMENT_STATE_COMPILING:
      return DocumentState::kCompiling;
    case v1::DOCUMENT_STATE_READY:
      return DocumentState::kReady;
    case v1::DOCUMENT_STATE_FAILED:
      return DocumentState::kFailed;
    default:
      return DocumentState::kRegistered;
  }
}

DocumentInfo FromProto(const v1::Document& document) {
  DocumentInfo info;
  info.id = document.id();
  info.state = FromProto(document.state());
  info.state_reason = document.state_reason();
  info.labels = {document.labels().begin(), document.labels().end()};
  info.created_unix_ms = document.created_unix_ms();
  info.expires_unix_ms = document.expires_unix_ms();
  info.text_bytes = document.text_bytes();
  info.tokens = document.token_count();
  info.chunks = document.chunk_count();
  info.compiled_chunks = document.compiled_chunk_count();
  info.resident_chunks = document.resident_chunk_count();
  info.recipe = document.recipe_id();
  return info;
}

void ReadFinal(const v1::GenerateFinal& final, Answer& answer) {
  switch (final.finish_reason()) {
    case v1::FINISH_REASON_LENGTH:
      answer.finish_reason = "length";
      break;
    case v1::FINISH_REASON_SCORED:
      answer.finish_reason = "scored";
      break;
    default:
      answer.finish_reason = "stop";
  }
  answer.prompt_tokens = final.usage().prompt_tokens();
  answer.cached_tokens = final.usage().cached_tokens();
  answer.recomputed_tokens = final.usage().recomputed_tokens();
  answer.selected_tokens = final.usage().selected_tokens();
  answer.reused_tokens = final.usage().reused_tokens();
  const v1::Timing& timing = final.timing();
  answer.timing = {timing.queue_us(),   timing.lookup_us(), timing.load_us(),
                   timing.compile_us(), timing.link_us(),   timing.first_token_us(),
                   timing.ttft_us(),    timing.total_us(),  timing.bytes_pulled()};
  for (const v1::ChunkPlan& chunk : final.plan()) {
    answer.plan.push_back({chunk.document_id(), chunk.chunk_index(), chunk.offset(), chunk.token_count(),
                           chunk.recomputed_tokens(), chunk.source(), chunk.reason()});
  }
  answer.linker = final.linker();
  answer.linker_note = final.linker_note();
  answer.worker_id = final.worker_id();
  answer.request_id = final.request_id();
}

MemberStatus FromProto(const v1::NodeStatus& node) {
  MemberStatus member;
  member.role = "cache node";
  member.address = node.address();
  member.health = node.health();
  member.model = node.model().name();
  member.documents = node.document_count();
  member.blocks = node.block_count();
  member.used_bytes = node.used_bytes();
  member.capacity_bytes = node.capacity_bytes();
  member.queued = node.compile_queue_length();
  member.running = node.lease_count();
  return member;
}

MemberStatus FromProto(const v1::WorkerStatus& worker) {
  MemberStatus member;
  member.role = "worker";
  member.address = worker.address();
  member.health = worker.health();
  member.model = worker.model().name();
  member.used_bytes = worker.cache_used_bytes();
  member.capacity_bytes = worker.cache_capacity_bytes();
  member.queued = worker.queued_tokens();
  member.running = worker.running_requests();
  member.waiting = worker.waiting_requests();
  member.tokens_per_second = worker.prefill_tokens_per_second();
  for (const v1::ShadowFigures& figures : worker.shadow()) {
    member.shadow.push_back(
        {figures.linker(), figures.checks(), figures.first_token_agreement(), figures.mean_kl(), figures.problem()});
  }
  return member;
}

class RouterClient : public Client {
 public:
  explicit RouterClient(const ClientOptions& options)
      : options_(options),
        channel_(CreateNetworkChannel(options.server)),
        documents_(v1::DocumentService::NewStub(channel_)),
        generate_(v1::GenerateService::NewStub(channel_)) {}

  absl::StatusOr<DocumentInfo> CreateDocument(const NewDocument& document, bool* created) override {
    v1::CreateDocumentRequest request;
    *request.mutable_context() = NewContext();
    request.set_document_id(document.id);
    request.set_text(document.text);
    request.mutable_labels()->insert(document.labels.begin(), document.labels.end());
    request.set_ttl_ms(document.time_to_live.count());
    request.set_recipe_id(document.recipe);
    v1::CreateDocumentResponse response;
    // The same id with the same content is the same registration: trying again is safe.
    EPIC_RETURN_IF_ERROR(Retry(options_.control_timeout, [&](grpc::ClientContext* context) {
      return documents_->CreateDocument(context, request, &response);
    }));
    if (created != nullptr) *created = response.created();
    return FromProto(response.document());
  }

  absl::StatusOr<DocumentInfo> GetDocument(const std::string& id, std::string* text) override {
    v1::GetDocumentRequest request;
    *request.mutable_context() = NewContext();
    request.set_document_id(id);
    request.set_include_text(text != nullptr);
    v1::GetDocumentResponse response;
    EPIC_RETURN_IF_ERROR(Retry(options_.control_timeout, [&](grpc::ClientContext* context) {
      return documents_->GetDocument(context, request, &response);
    }));
    if (text != nullptr) *text = response.text();
    return FromProto(response.document());
  }

  absl::StatusOr<DocumentPage> ListDocuments(int32_t page_size, const std::string& page_token) override {
    v1::ListDocumentsRequest request;
    *request.mutable_context() = NewContext();
    request.set_page_size(page_size);
    request.set_page_token(page_token);
    v1::ListDocumentsResponse response;
    EPIC_RETURN_IF_ERROR(Retry(options_.control_timeout, [&](grpc::ClientContext* context) {
      return documents_->ListDocuments(context, request, &response);
    }));
    DocumentPage page;
    for (const v1::Document& document : response.documents()) page.documents.push_back(FromProto(document));
    page.next_page_token = response.next_page_token();
    return page;
  }

  absl::Status DeleteDocument(const std::string& id) override {
    v1::DeleteDocumentRequest request;
    *request.mutable_context() = NewContext();
    request.set_document_id(id);
    v1::DeleteDocumentResponse response;
    // Not tried again: a second delete would answer NOT_FOUND for a first one that worked.
    const auto context = MakeClientContext(std::chrono::steady_clock::now() + options_.control_timeout);
    return Explain(documents_->DeleteDocument(context.get(), request, &response));
  }

  absl::Status WaitUntilReady(const std::string& id,
                              const std::function<void(const DocumentInfo&)>& progress) override {
    v1::WatchDocumentRequest request;
    *request.mutable_context() = NewContext();
    request.set_document_id(id);
    DocumentInfo last;
    EPIC_RETURN_IF_ERROR(Retry(options_.wait_timeout, [&](grpc::ClientContext* context) {
      const auto reader = documents_->WatchDocument(context, request);
      v1::WatchDocumentResponse response;
      while (reader->Read(&response)) {
        last = FromProto(response.document());
        if (progress) progress(last);
      }
      return reader->Finish();
    }));
    if (last.state == DocumentState::kReady) return absl::OkStatus();
    return absl::InternalError(fmt::format("document \"{}\" could not be compiled: {}", id, last.state_reason));
  }

  absl::StatusOr<Answer> Ask(const Question& question,
                             const std::function<void(const std::string&)>& on_text) override {
    const v1::GenerateRequest request = MakeRequest(question);
    const auto context = MakeClientContext(std::chrono::steady_clock::now() + options_.generate_timeout);
    const auto reader = generate_->Generate(context.get(), request);
    Answer answer;
    bool finished = false;
    v1::GenerateResponse response;
    while (reader->Read(&response)) {
      answer.text += response.text();
      if (on_text && !response.text().empty()) on_text(response.text());
      for (const v1::Token& token : response.tokens()) {
        answer.token_ids.push_back(token.token_id());
        if (question.top_logprobs == 0) continue;
        std::vector<TokenLogprob>& top = answer.top_logprobs.emplace_back();
        for (const v1::TokenLogprob& likely : token.top()) top.push_back({likely.token_id(), likely.logprob()});
      }
      if (response.has_final()) {
        ReadFinal(response.final(), answer);
        finished = true;
      }
    }
    EPIC_RETURN_IF_ERROR(Explain(reader->Finish()));
    if (!finished) return absl::DataLossError("the answer's stream ended without its last message");
    return answer;
  }

  absl::StatusOr<std::vector<ModelDescription>> ListModels() override {
    v1::ListModelsResponse response;
    EPIC_RETURN_IF_ERROR(Retry(options_.control_timeout, [&](grpc::ClientContext* context) {
      return generate_->ListModels(context, v1::ListModelsRequest(), &response);
    }));
    std::vector<ModelDescription> models;
    for (const v1::ModelInfo& model : response.models()) {
      models.push_back({model.name(), model.architecture(), model.fingerprint(), model.layers(), model.width(),
                        model.context_length(), model.vocab_size(), model.kv_bytes_per_token(), model.weight_bytes(),
                        model.chat_template(), model.chat_template_refusal()});
    }
    return models;
  }

  absl::StatusOr<ClusterStatus> GetStatus() override {
    v1::GetStatusResponse response;
    EPIC_RETURN_IF_ERROR(Retry(options_.control_timeout, [&](grpc::ClientContext* context) {
      return generate_->GetStatus(context, v1::GetStatusRequest(), &response);
    }));
    ClusterStatus status{response.version(), response.uptime_ms(), {}};
    for (const v1::NodeStatus& node : response.cache_nodes()) status.members.push_back(FromProto(node));
    for (const v1::WorkerStatus& worker : response.workers()) status.members.push_back(FromProto(worker));
    return status;
  }

 private:
  v1::RequestContext NewContext() const {
    static thread_local std::mt19937_64 generator{std::random_device{}()};
    v1::RequestContext context;
    context.set_tenant(options_.tenant);
    context.set_request_id(fmt::format("client-{:016x}", generator()));
    return context;
  }

  // The preface, the documents, `between` and the text.
  static void AddSegments(const Question& question, const std::string& between,
                          google::protobuf::RepeatedPtrField<v1::Segment>& segments) {
    if (!question.preface.empty()) segments.Add()->set_text(question.preface);
    for (const std::string& id : question.document_ids) segments.Add()->mutable_document()->set_document_id(id);
    segments.Add()->set_text((question.document_ids.empty() ? "" : between) + question.text);
  }

  v1::GenerateRequest MakeRequest(const Question& question) const {
    v1::GenerateRequest request;
    *request.mutable_context() = NewContext();
    request.set_model(question.model);
    if (question.raw) {
      AddSegments(question, "", *request.mutable_raw()->mutable_segments());
    } else {
      v1::ChatPrompt* chat = request.mutable_chat();
      if (!question.system.empty()) {
        v1::ChatMessage* message = chat->add_messages();
        message->set_role("system");
        message->add_segments()->set_text(question.system);
      }
      v1::ChatMessage* message = chat->add_messages();
      message->set_role("user");
      AddSegments(question, "\n\n", *message->mutable_segments());
    }
    request.set_linker(question.linker);
    v1::Sampling* sampling = request.mutable_sampling();
    sampling->set_temperature(question.temperature);
    sampling->set_top_p(question.top_p);
    sampling->set_top_k(question.top_k);
    sampling->set_seed(question.seed);
    sampling->set_max_output_tokens(question.output_tokens_max);
    for (const std::string& stop : question.stop) sampling->add_stop(stop);
    request.set_explain(question.explain);
    request.set_afresh(question.afresh);
    request.mutable_continuation_token_ids()->Add(question.continuation.begin(), question.continuation.end());
    request.set_top_logprobs(question.top_logprobs);
    return request;
  }

  // A router that is not there, and one that says that something behind it is not, answer with the same code. Only the
  // first leaves no connection.
  absl::Status Explain(const grpc::Status& status) const {
    absl::Status converted = FromGrpcStatus(status);
    const bool is_connected = channel_->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_READY;
    if (converted.code() != absl::StatusCode::kUnavailable || is_connected) return converted;
    return absl::UnavailableError(fmt::format("no answer from {}: {} (is EPIC running? `epic up` starts it)",
                                              options_.server, std::string(converted.message())));
  }

  template <typename Call>
  absl::Status Retry(std::chrono::milliseconds timeout, const Call& call) const {
    const SteadyTime deadline = std::chrono::steady_clock::now() + timeout;
    // An unreachable server is given a few seconds to come back, not the whole of a long deadline.
    const SteadyTime give_up = std::min(deadline, std::chrono::steady_clock::now() + std::chrono::seconds(3));
    std::chrono::milliseconds pause = kFirstPause;
    for (;;) {
      const auto context = MakeClientContext(deadline);
      const grpc::Status status = call(context.get());
      if (status.error_code() != grpc::StatusCode::UNAVAILABLE || std::chrono::steady_clock::now() + pause >= give_up) {
        return Explain(status);
      }
      std::this_thread::sleep_for(pause);
      pause = std::min(2 * pause, kLongestPause);
    }
  }

  const ClientOptions options_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::DocumentService::Stub> documents_;
  std::unique_ptr<v1::GenerateService::Stub> generate_;
};

}  // namespace

const char* DocumentStateName(DocumentState state) {
  switch (state) {
    case DocumentState::kRegistered:
      return "registered";
    case DocumentState::kCompiling:
      return "compiling";
    case DocumentState::kReady:
      return "ready";
    case DocumentState::kFailed:
      return "failed";
  }
  return "";
}

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const ClientOptions& options) {
  EPIC_RETURN_IF_ERROR(ValidateHostPort("server", options.server));
  return std::make_unique<RouterClient>(options);
}

}  // namespace epic::client
