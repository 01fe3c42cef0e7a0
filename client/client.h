// The C++ SDK: register documents, wait for them, ask questions over them. Talks to a router; needs nothing of EPIC but
// its protobuf contract, and shows none of gRPC.
//
//     EPIC_ASSIGN_OR_RETURN(auto client, epic::client::Client::Connect({.server = "127.0.0.1:7400"}));
//     EPIC_RETURN_IF_ERROR(client->CreateDocument({.id = "manual", .text = text}).status());
//     EPIC_RETURN_IF_ERROR(client->WaitUntilReady("manual", nullptr));
//     epic::client::Question question;
//     question.document_ids = {"manual"};
//     question.text = "Who keeps the key?";
//     EPIC_ASSIGN_OR_RETURN(epic::client::Answer answer, client->Ask(question, nullptr));
//
// Thread-safe. Every call has a deadline. Calls that change nothing, or that can be repeated safely, are tried again
// with growing pauses while the server is unreachable, inside their deadline. Errors carry the server's own code and
// sentence.
#ifndef EPIC_CLIENT_CLIENT_H_
#define EPIC_CLIENT_CLIENT_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace epic::client {

struct ClientOptions {
  std::string server = "127.0.0.1:7400";                // HOST:PORT of a router
  std::string tenant;                                   // empty: "default"
  std::chrono::milliseconds control_timeout{10'000};    // create, get, list, delete, status
  std::chrono::milliseconds generate_timeout{600'000};  // a whole answer
  std::chrono::milliseconds wait_timeout{3'600'000};    // until a document is compiled
};

struct NewDocument {
  std::string id;  // empty: made from the content
  std::string text;
  std::map<std::string, std::string> labels;
  std::chrono::milliseconds time_to_live{0};  // 0: for ever
  // How it is compiled: "plain", each chunk alone, or "document", each chunk in sight of those before it; empty: as the
  // node's default says.
  std::string recipe;
};

enum class DocumentState { kRegistered, kCompiling, kReady, kFailed };
const char* DocumentStateName(DocumentState state);

struct DocumentInfo {
  std::string id;
  DocumentState state = DocumentState::kRegistered;
  std::string state_reason;
  std::map<std::string, std::string> labels;
  int64_t created_unix_ms = 0;
  int64_t expires_unix_ms = 0;
  int64_t text_bytes = 0;
  int32_t tokens = 0;
  int32_t chunks = 0;
  int32_t compiled_chunks = 0;
  int32_t resident_chunks = 0;
  std::string recipe;
};

struct DocumentPage {
  std::vector<DocumentInfo> documents;
  std::string next_page_token;  // empty: the last page
};

struct Question {
  // The layout, the same for every linker: a chat of one user message that holds `preface`, the documents in this
  // order, one directly after the other, then a blank line and `text`; before it `system` where given, else the model's
  // own default.
  std::string preface;
  std::vector<std::string> document_ids;
  std::string text;
  std::string system;
  // No chat: `preface`, the documents and `text` directly behind the last of them are the whole prompt, for a model
  // without a chat layout that EPIC renders. `system` is not used.
  bool raw = false;
  std::string linker;  // empty: the cheapest default that the model's verdicts bear, else full (docs/quality.md)
  std::string model;   // empty: the only one
  int32_t output_tokens_max = 128;
  float temperature = 0;
  float top_p = 1;
  int32_t top_k = 0;
  uint64_t seed = 0;
  std::vector<std::string> stop;
  bool explain = false;  // fill Answer::plan
  bool afresh = false;   // run every row that the linker chooses, whatever earlier requests ran
  // Not empty: nothing is generated; each of these tokens is scored behind the prompt and the ones before it.
  std::vector<int32_t> continuation;
  int32_t top_logprobs = 0;  // also return this many of the likeliest tokens at each position of the answer
};

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;  // natural logarithm
};

struct AnswerTiming {
  int64_t queue_us = 0;
  int64_t lookup_us = 0;
  int64_t load_us = 0;
  int64_t compile_us = 0;
  int64_t link_us = 0;
  int64_t first_token_us = 0;
  int64_t ttft_us = 0;
  int64_t total_us = 0;
  int64_t bytes_pulled = 0;
};

struct ChunkUse {
  std::string document_id;
  int32_t chunk_index = 0;
  int32_t offset = 0;
  int32_t tokens = 0;
  int32_t recomputed_tokens = 0;
  std::string source;
  std::string reason;
};

struct Answer {
  std::string text;
  std::vector<int32_t> token_ids;
  // Of each token, likeliest first; empty where Question::top_logprobs is 0.
  std::vector<std::vector<TokenLogprob>> top_logprobs;
  std::string finish_reason;  // "stop", "length" or "scored"
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t recomputed_tokens = 0;
  int32_t selected_tokens = 0;
  int32_t reused_tokens = 0;  // rows of an earlier request in the same context
  AnswerTiming timing;
  std::vector<ChunkUse> plan;
  std::string linker;
  std::string linker_note;  // where the question named no linker and did not get legolink:16: why, and what to do
  std::string worker_id;
  std::string request_id;
};

struct ModelDescription {
  std::string name;
  std::string architecture;
  std::string fingerprint;
  int32_t layers = 0;
  int32_t width = 0;
  int32_t context_length = 0;
  int32_t vocab_size = 0;
  int64_t kv_bytes_per_token = 0;
  int64_t weight_bytes = 0;
  std::string chat_template;
  std::string chat_template_refusal;
};

// What a worker's shadow checks say of a linker: how its answers agree with full recompute while it serves.
struct ShadowFigures {
  std::string linker;
  int32_t checks = 0;  // over how many of its last ones
  double first_token_agreement = 0;
  double mean_kl = 0;   // nats
  std::string problem;  // each figure that is worse than a verdict allows, beside its threshold; empty: none is
};

struct MemberStatus {
  std::string role;  // "cache node" or "worker"
  std::string address;
  std::string health;
  std::string model;
  int64_t documents = 0;
  int64_t blocks = 0;
  int64_t used_bytes = 0;
  int64_t capacity_bytes = 0;
  int64_t queued = 0;   // chunks to compile, or rows to run
  int64_t running = 0;  // leases, or requests
  int64_t waiting = 0;
  double tokens_per_second = 0;
  std::vector<ShadowFigures> shadow;  // of a worker
};

struct ClusterStatus {
  std::string version;
  int64_t uptime_ms = 0;
  std::vector<MemberStatus> members;
};

class Client {
 public:
  // INVALID_ARGUMENT for an address that is not HOST:PORT. Does not connect yet.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(const ClientOptions& options);
  virtual ~Client() = default;

  // Returns once the registration is durable. `created` (may be null) says whether it is new.
  virtual absl::StatusOr<DocumentInfo> CreateDocument(const NewDocument& document, bool* created = nullptr) = 0;
  // With `text`, the document's text too.
  virtual absl::StatusOr<DocumentInfo> GetDocument(const std::string& id, std::string* text = nullptr) = 0;
  // page_size 0: the server's default.
  virtual absl::StatusOr<DocumentPage> ListDocuments(int32_t page_size, const std::string& page_token) = 0;
  virtual absl::Status DeleteDocument(const std::string& id) = 0;
  // Calls `progress` (may be null) with every change until the document is ready. INTERNAL where compiling failed.
  virtual absl::Status WaitUntilReady(const std::string& id,
                                      const std::function<void(const DocumentInfo&)>& progress) = 0;
  // `on_text` (may be null) gets the answer's text as it comes.
  virtual absl::StatusOr<Answer> Ask(const Question& question,
                                     const std::function<void(const std::string&)>& on_text) = 0;
  virtual absl::StatusOr<std::vector<ModelDescription>> ListModels() = 0;
  virtual absl::StatusOr<ClusterStatus> GetStatus() = 0;
};

}  // namespace epic::client

#endif  // EPIC_CLIENT_CLIENT_H_
