#include "cache_node/cache_node.h"

#include <algorithm>
#include <span>
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

}  // namespace

CacheNode::CacheNode(const CacheNodeOptions& options, std::unique_ptr<Manifest> manifest,
                     std::unique_ptr<BlockStore> store, ChunkCompiler* compiler)
    : options_(WithClock(options)),
      manifest_(std::move(manifest)),
      store_(std::move(store)),
      compiler_(compiler),
      registry_(std::make_unique<DocumentRegistry>(manifest_.get(), compiler, options_.chunker,
                                                   options_.default_recipe_id, options_.clock)) {}

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
  EPIC_RETURN_IF_ERROR(CheckRecipeId(recipe_id));
  std::vector<ResolvedDocument> documents;
  for (const std::string& id : ids) {
    absl::StatusOr<ChunkListRecord> list = registry_->Resolve(tenant, id, recipe_id, deadline);
    queue_->Wake();
    if (!list.ok()) return list.status();
    ResolvedDocument document{.id = id, .recipe = list->BaseRecipe(), .chunks = {}};
    for (size_t i = 0; i < list->spans.size(); ++i) {
      const std::span<const int32_t> tokens = list->TokensOf(i);
      document.chunks.push_back(
          {.key = list->keys[i],
           .token_ids = {tokens.begin(), tokens.end()},
           .context_token_count = static_cast<int32_t>(list->ContextOf(i).size()),
           .block_bytes = KvBlockBytes(compiler_->kv_shape(), static_cast<int32_t>(tokens.size())),
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
  return CompileJob{.info = BlockInfo(work->key, work->recipe, std::move(work->token_ids)),
                    .recipe = work->recipe,
                    .context = std::move(work->context)};
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

absl::Status CacheNode::CheckRecipeId(const std::string& recipe_id) const {
  if (recipe_id.empty() || recipe_id == kDocumentRecipeId || compiler_->RecipeById(recipe_id).ok()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(fmt::format("recipe_id is {}, expected {}, {}, {} or nothing (each document's own)",
                                                QuoteForMessage(recipe_id), kPlainRecipeId, kDocumentRecipeId,
                                                kSinkRecipeId));
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
  for (size_t i = 0; i < query.chunks.size(); ++i) EPIC_RETURN_IF_ERROR(CheckChunk(query, i, tenant));
  return absl::OkStatus();
}

absl::Status CacheNode::CheckChunk(const LocateQuery& query, size_t index, const std::string& tenant) const {
  const LocateQuery::Chunk& chunk = query.chunks[index];
  const auto check_ids = [&](const char* field, const std::vector<int32_t>& ids) {
    const auto bad =
        std::find_if(ids.begin(), ids.end(), [this](int32_t id) { return id < 0 || id >= compiler_->vocab_size(); });
    if (bad == ids.end()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        fmt::format("chunks[{}].{} holds {}, expected 0 to {}", index, field, *bad, compiler_->vocab_size() - 1));
  };
  const auto context_tokens = static_cast<int32_t>(chunk.context_token_ids.size());
  const int32_t context_tokens_max = query.recipe.id == kPlainRecipeId ? kDocumentSectionTokensMax : 0;
  if (context_tokens > context_tokens_max) {
    return absl::InvalidArgumentError(fmt::format("chunks[{}].context_token_ids has {} entries, expected at most {}",
                                                  index, context_tokens, context_tokens_max));
  }
  const int32_t tokens_max = std::max(0, compiler_->context_length() - query.recipe.first_position() - context_tokens);
  if (chunk.token_ids.empty() || chunk.token_ids.size() > static_cast<size_t>(tokens_max)) {
    return absl::InvalidArgumentError(fmt::format("chunks[{}].token_ids has {} entries, expected 1 to {}", index,
                                                  chunk.token_ids.size(), tokens_max));
  }
  EPIC_RETURN_IF_ERROR(check_ids("token_ids", chunk.token_ids));
  EPIC_RETURN_IF_ERROR(check_ids("context_token_ids", chunk.context_token_ids));
  const Recipe recipe = RecipeBehind(query.recipe, chunk.context_token_ids);
  const ChunkKey expected = ComputeChunkKey(query.model_fingerprint_hex, recipe, tenant, chunk.token_ids);
  if (expected == chunk.key) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("chunks[{}].key is {}, its model, recipe, tenant and tokens make {}",
                                                index, chunk.key.Hex(), expected.Hex()));
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
      const Recipe recipe = RecipeBehind(query.recipe, chunk.context_token_ids);
      CompileJob job{.info = BlockInfo(chunk.key, recipe, chunk.token_ids), .recipe = recipe, .context = {}};
      if (!chunk.context_token_ids.empty()) job.context = registry_->ContextOf(chunk.key);
      EPIC_ASSIGN_OR_RETURN(CompileQueue::Ticket ticket, queue_->Request(std::move(job)));
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
    if (leased[i].lease) located[i].view = SharedView(std::move(leased[i].lease));
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
