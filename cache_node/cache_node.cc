#include "cache_node/cache_node.h"

#include <algorithm>
#include <utility>

#include "core/identifiers.h"
#include "core/limits.h"
#include "core/status_macros.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"

namespace epic {
namespace {

int64_t SystemUnixMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

CacheNodeOptions WithClock(CacheNodeOptions options) {
  if (!options.clock) options.clock = SystemUnixMs;
  return options;
}

absl::Status CheckDeadline(Deadline deadline) {
  if (deadline > std::chrono::steady_clock::now()) return absl::OkStatus();
  return absl::DeadlineExceededError("the deadline had passed before the call was begun");
}

// A view and the lease that keeps it in place.
struct LeasedView {
  explicit LeasedView(BlockStore::Lease held) : lease(std::move(held)) {}
  BlockStore::Lease lease;
};

std::shared_ptr<const KvBlockView> ViewOf(BlockStore::Lease lease) {
  auto leased = std::make_shared<LeasedView>(std::move(lease));
  return {leased, &leased->lease.view()};
}

}  // namespace

CacheNode::CacheNode(const CacheNodeOptions& options, std::unique_ptr<Manifest> manifest,
                     std::unique_ptr<BlockStore> store, ChunkCompiler* compiler)
    : options_(WithClock(options)),
      manifest_(std::move(manifest)),
      store_(std::move(store)),
      compiler_(compiler),
      registry_(std::make_unique<DocumentRegistry>(manifest_.get(), compiler, options_.chunker, options_.clock)) {}

absl::StatusOr<std::unique_ptr<CacheNode>> CacheNode::Create(const CacheNodeOptions& options,
                                                             std::unique_ptr<Manifest> manifest,
                                                             std::unique_ptr<BlockStore> store,
                                                             ChunkCompiler* compiler) {
  std::unique_ptr<CacheNode> node(new CacheNode(options, std::move(manifest), std::move(store), compiler));
  EPIC_RETURN_IF_ERROR(node->registry_->Load());
  CompileObserver* const observer = node.get();
  node->queue_ = std::make_unique<CompileQueue>(options.compile, compiler, node->store_.get(), observer);
  return node;
}

CacheNode::~CacheNode() { Shutdown(); }

void CacheNode::Shutdown() {
  if (queue_ != nullptr) queue_->Stop();
  WakeWaiters();
}

absl::StatusOr<CacheNode::Created> CacheNode::CreateDocument(const NewDocument& document, Deadline deadline) {
  EPIC_RETURN_IF_ERROR(CheckDeadline(deadline));
  absl::StatusOr<DocumentRegistry::Created> created = registry_->Create(document, deadline);
  // Also after an error: an expired document of the same id may have been removed.
  queue_->Wake();
  if (!created.ok()) return created.status();
  DropUnreferenced(created->freed_keys);
  return Created{.document = std::move(created->document), .created = created->created};
}

absl::StatusOr<DocumentInfo> CacheNode::GetDocument(const std::string& tenant, const std::string& id,
                                                    Deadline deadline) const {
  EPIC_RETURN_IF_ERROR(CheckDeadline(deadline));
  return registry_->Get(tenant, id);
}

absl::StatusOr<DocumentPage> CacheNode::ListDocuments(const std::string& tenant, int32_t page_size,
                                                      const std::string& page_token, Deadline deadline) const {
  EPIC_RETURN_IF_ERROR(CheckDeadline(deadline));
  return registry_->List(tenant, page_size, page_token);
}

absl::Status CacheNode::DeleteDocument(const std::string& tenant, const std::string& id, Deadline deadline) {
  EPIC_RETURN_IF_ERROR(CheckDeadline(deadline));
  EPIC_ASSIGN_OR_RETURN(const std::vector<ChunkKey> free, registry_->Delete(tenant, id, deadline));
  queue_->Wake();
  DropUnreferenced(free);
  return absl::OkStatus();
}

absl::StatusOr<DocumentInfo> CacheNode::AskForDocument(const std::string& tenant, const std::string& id,
                                                       Deadline deadline) {
  EPIC_RETURN_IF_ERROR(CheckDeadline(deadline));
  absl::StatusOr<DocumentInfo> info = registry_->Ask(tenant, id, deadline);
  queue_->Wake();
  return info;
}

absl::StatusOr<std::vector<ResolvedDocument>> CacheNode::ResolveDocuments(const std::string& tenant,
                                                                          const std::vector<std::string>& ids,
                                                                          const std::string& recipe_id,
                                                                          const std::string& model_fingerprint_hex,
                                                                          Deadline deadline) {
  EPIC_RETURN_IF_ERROR(CheckDeadline(deadline));
  EPIC_RETURN_IF_ERROR(CheckModel(model_fingerprint_hex));
  if (ids.size() > kPromptSegmentsMax) {
    return absl::InvalidArgumentError(
        fmt::format("document_ids has {} entries, the limit is {}", ids.size(), kPromptSegmentsMax));
  }
  EPIC_RETURN_IF_ERROR(compiler_->RecipeById(recipe_id).status());
  std::vector<ResolvedDocument> documents;
  for (const std::string& id : ids) {
    absl::StatusOr<ChunkListRecord> list = registry_->Resolve(tenant, id, recipe_id, deadline);
    queue_->Wake();
    if (!list.ok()) return list.status();
    ResolvedDocument document{.id = id, .recipe = list->recipe, .chunks = {}};
    for (size_t i = 0; i < list->spans.size(); ++i) {
      const TokenSpan span = list->spans[i];
      document.chunks.push_back(
          {.key = list->keys[i],
           .token_ids = {list->token_ids.begin() + span.begin, list->token_ids.begin() + span.end},
           .block_bytes = KvBlockBytes(compiler_->kv_shape(), span.end - span.begin),
           .resident = store_->Contains(list->keys[i])});
    }
    documents.push_back(std::move(document));
  }
  return documents;
}

int32_t CacheNode::ResidentChunks(const DocumentName& name) const {
  const std::vector<ChunkKey> keys = registry_->table().Keys(name);
  return static_cast<int32_t>(
      std::count_if(keys.begin(), keys.end(), [this](const ChunkKey& key) { return store_->Contains(key); }));
}

KvBlockInfo CacheNode::BlockInfo(const ChunkKey& key, const Recipe& recipe, std::vector<int32_t> token_ids) const {
  KvBlockInfo info;
  info.shape = compiler_->kv_shape();
  info.model_fingerprint_hex = compiler_->fingerprint_hex();
  info.key = key;
  info.recipe_id = recipe.id;
  info.first_position = recipe.first_position();
  info.token_ids = std::move(token_ids);
  return info;
}

std::optional<CompileJob> CacheNode::NextBackgroundJob() {
  std::optional<DocumentRegistry::ChunkWork> work = registry_->NextWork();
  if (!work.has_value()) return std::nullopt;
  return CompileJob{.info = BlockInfo(work->key, work->recipe, std::move(work->token_ids)), .recipe = work->recipe};
}

void CacheNode::OnCompileFinished(const CompileJob& job, const absl::Status& status, bool requested) {
  const ChunkKey& key = job.info.key;
  DocumentTable& table = registry_->table();
  if (status.ok()) {
    table.OnCompiled(key);
    // Its document was deleted while it was being compiled.
    if (!requested && !table.IsReferenced(key)) store_->Drop(key);
    return;
  }
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnavailable:
      table.OnPostponed(key);
      break;
    default:
      spdlog::warn("chunk {} could not be compiled: {}", key.Hex(), status.ToString());
      table.OnFailed(key, status);
  }
}

void CacheNode::DropUnreferenced(const std::vector<ChunkKey>& keys) {
  for (const ChunkKey& key : keys) {
    if (!registry_->table().IsReferenced(key)) store_->Drop(key);
  }
}

absl::Status CacheNode::CheckModel(const std::string& model_fingerprint_hex) const {
  if (model_fingerprint_hex == compiler_->fingerprint_hex()) return absl::OkStatus();
  return absl::FailedPreconditionError(fmt::format("model_fingerprint is {}, this node runs model {}",
                                                   FingerprintForMessage(model_fingerprint_hex),
                                                   compiler_->fingerprint_hex()));
}

absl::Status CacheNode::CheckQuery(const LocateQuery& query) const {
  EPIC_RETURN_IF_ERROR(CheckModel(query.model_fingerprint_hex));
  if (query.chunks.size() > kLocateChunksMax) {
    return absl::InvalidArgumentError(
        fmt::format("chunks has {} entries, the limit is {}", query.chunks.size(), kLocateChunksMax));
  }
  EPIC_ASSIGN_OR_RETURN(const Recipe recipe, compiler_->RecipeById(query.recipe.id));
  if (!(recipe == query.recipe)) {
    return absl::InvalidArgumentError(
        fmt::format("recipe.prefix_token_ids of {} are [{}], the model's are [{}]", QuoteForMessage(recipe.id),
                    fmt::join(query.recipe.prefix_tokens, ", "), fmt::join(recipe.prefix_tokens, ", ")));
  }
  const std::string tenant = query.tenant.empty() ? "default" : query.tenant;
  EPIC_RETURN_IF_ERROR(ValidateTenant("tenant", tenant));
  const int32_t tokens_max = compiler_->context_length() - recipe.first_position();
  for (size_t i = 0; i < query.chunks.size(); ++i) {
    const std::vector<int32_t>& tokens = query.chunks[i].token_ids;
    if (tokens.empty() || tokens.size() > static_cast<size_t>(tokens_max)) {
      return absl::InvalidArgumentError(
          fmt::format("chunks[{}].token_ids has {} entries, expected 1 to {}", i, tokens.size(), tokens_max));
    }
    const auto bad = std::find_if(tokens.begin(), tokens.end(),
                                  [this](int32_t id) { return id < 0 || id >= compiler_->vocab_size(); });
    if (bad != tokens.end()) {
      return absl::InvalidArgumentError(
          fmt::format("chunks[{}].token_ids holds {}, expected 0 to {}", i, *bad, compiler_->vocab_size() - 1));
    }
    const ChunkKey expected = ComputeChunkKey(query.model_fingerprint_hex, recipe, tenant, tokens);
    if (expected != query.chunks[i].key) {
      return absl::InvalidArgumentError(
          fmt::format("chunks[{}].key is {}, its model, recipe, tenant and tokens make {}", i,
                      query.chunks[i].key.Hex(), expected.Hex()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<BlockStore::Lease> CacheNode::AcquireHeld(const LocateQuery::Chunk& chunk) {
  absl::StatusOr<BlockStore::Lease> lease = store_->Acquire(chunk.key, chunk.token_ids);
  switch (lease.status().code()) {
    case absl::StatusCode::kNotFound:
      return BlockStore::Lease();
    case absl::StatusCode::kDataLoss:
      // The store has dropped it: it is compiled again like any missing chunk.
      ++damaged_blocks_;
      spdlog::warn("a held block was damaged and is compiled again: {}", std::string(lease.status().message()));
      return BlockStore::Lease();
    default:
      return lease;
  }
}

absl::StatusOr<std::vector<CacheNode::LeasedChunk>> CacheNode::LocateLeases(const LocateQuery& query,
                                                                            Deadline deadline) {
  EPIC_RETURN_IF_ERROR(CheckDeadline(deadline));
  EPIC_RETURN_IF_ERROR(CheckQuery(query));
  std::vector<LeasedChunk> leased(query.chunks.size());
  // Everything is asked for before anything is waited for, so that the compiler sees the whole request.
  std::vector<std::pair<size_t, CompileQueue::Ticket>> tickets;
  for (size_t i = 0; i < query.chunks.size(); ++i) {
    const LocateQuery::Chunk& chunk = query.chunks[i];
    EPIC_ASSIGN_OR_RETURN(leased[i].lease, AcquireHeld(chunk));
    if (leased[i].lease) {
      leased[i].origin = BlockOrigin::kHeld;
    } else if (query.compile_missing) {
      EPIC_ASSIGN_OR_RETURN(
          CompileQueue::Ticket ticket,
          queue_->Request({.info = BlockInfo(chunk.key, query.recipe, chunk.token_ids), .recipe = query.recipe}));
      tickets.emplace_back(i, std::move(ticket));
    }
  }
  for (const auto& [i, ticket] : tickets) {
    EPIC_ASSIGN_OR_RETURN(CompileQueue::Compiled compiled, queue_->Wait(ticket, deadline));
    leased[i].origin = compiled.was_held ? BlockOrigin::kHeld : BlockOrigin::kCompiled;
    leased[i].lease = std::move(compiled.lease);
    leased[i].compile_us = compiled.compile_us;
  }
  return leased;
}

absl::StatusOr<std::vector<BlockProvider::Located>> CacheNode::Locate(const LocateQuery& query, Deadline deadline) {
  EPIC_ASSIGN_OR_RETURN(std::vector<LeasedChunk> leased, LocateLeases(query, deadline));
  std::vector<Located> located(leased.size());
  for (size_t i = 0; i < leased.size(); ++i) {
    located[i].origin = leased[i].origin;
    located[i].compile_us = leased[i].compile_us;
    if (leased[i].lease) located[i].view = ViewOf(std::move(leased[i].lease));
  }
  return located;
}

void CacheNode::SweepExpired(Deadline deadline) {
  DropUnreferenced(registry_->SweepExpired(deadline));
  queue_->Wake();
}

absl::StatusOr<CacheNodeStatus> CacheNode::Status() const {
  CacheNodeStatus status;
  EPIC_ASSIGN_OR_RETURN(status.documents, registry_->CountDocuments());
  status.store = store_->Stats();
  status.compile = queue_->Stats();
  status.chunks_waiting = registry_->table().chunks_waiting();
  return status;
}

}  // namespace epic
