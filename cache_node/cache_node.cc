#include "cache_node/cache_node.h"

#include <algorithm>
#include <span>
#include <utility>

#include "absl/container/flat_hash_set.h"
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
                     std::unique_ptr<TieredStore> store, ChunkCompiler* compiler)
    : options_(WithClock(options)),
      manifest_(std::move(manifest)),
      compiler_(compiler),
      registry_(std::make_unique<DocumentRegistry>(manifest_.get(), compiler, options_.chunker,
                                                   options_.default_recipe_id, options_.clock)),
      pinned_(options_.pinned_bytes_max),
      store_(std::move(store)) {
  store_->SetDiskFilter([this](const ChunkKey& key) { return registry_->table().IsReferenced(key); });
  // A pinned chunk's copy stays as the chunk does: a restart is not to compile it again.
  if (store_->disk() != nullptr) {
    store_->disk()->SetEvictionFilter([this](const ChunkKey& key) { return !pinned_.ContainsChunk(key); });
  }
  store_->host().SetRemovalObserver([this](const ChunkKey& key) { pinned_.OnMissing(key); });
}

absl::StatusOr<std::unique_ptr<CacheNode>> CacheNode::Create(const CacheNodeOptions& options,
                                                             std::unique_ptr<Manifest> manifest,
                                                             std::unique_ptr<TieredStore> store,
                                                             ChunkCompiler* compiler) {
  std::unique_ptr<CacheNode> node(new CacheNode(options, std::move(manifest), std::move(store), compiler));
  EPIC_RETURN_IF_ERROR(node->registry_->Load());
  EPIC_RETURN_IF_ERROR(node->AdoptDisk());
  EPIC_RETURN_IF_ERROR(node->LoadPins());
  CompileObserver* const observer = node.get();
  node->queue_ = std::make_unique<CompileQueue>(options.compile, compiler, node->store_.get(), observer);
  return node;
}

CacheNode::~CacheNode() { Shutdown(); }

void CacheNode::Shutdown() {
  if (queue_ != nullptr) queue_->Stop();
  store_->Stop();
  WakeWaiters();
}

absl::Status CacheNode::AdoptDisk() {
  if (store_->disk() == nullptr) return absl::OkStatus();
  std::vector<ChunkKey> held;
  store_->disk()->ForEach([&](const ChunkKey& key, const BlockTier::Entry&) { held.push_back(key); });
  std::vector<ChunkKey> unknown;
  for (const ChunkKey& key : held) {
    if (registry_->table().IsReferenced(key)) {
      registry_->table().OnCompiled(key);
      ++adoption_.adopted_blocks;
    } else {
      unknown.push_back(key);
    }
  }
  if (unknown.empty()) return absl::OkStatus();
  // Blocks of other models stay, as long as their documents do. The others are left by a crash between a document's
  // deletion and that of its blocks.
  EPIC_ASSIGN_OR_RETURN(const absl::flat_hash_set<ChunkKey> referenced, registry_->ReferencedKeys());
  for (const ChunkKey& key : unknown) {
    if (referenced.contains(key)) continue;
    store_->disk()->Drop(key);
    ++adoption_.orphaned_blocks;
  }
  return absl::OkStatus();
}

absl::Status CacheNode::LoadPins() {
  return registry_->ForEachPinned([this](const DocumentName& name, const ChunkListRecord& list) {
    const absl::StatusOr<std::vector<ChunkKey>> fresh = pinned_.Add(name, ChunksToPin(list));
    if (!fresh.ok()) {
      // The limit was lowered. The pin stays on record for a node with more room.
      spdlog::warn("a pinned document is not kept in memory: {}", std::string(fresh.status().message()));
      return;
    }
    for (const ChunkKey& key : *fresh) store_->host().Pin(key);
  });
}

std::vector<PinnedDocuments::Chunk> CacheNode::ChunksToPin(const ChunkListRecord& list) const {
  std::vector<PinnedDocuments::Chunk> chunks;
  for (size_t i = 0; i < list.keys.size(); ++i) {
    const std::span<const int32_t> tokens = list.TokensOf(i);
    const KvBlockInfo info =
        store_->HostInfo(BlockInfo(list.keys[i], list.RecipeOf(i), {tokens.begin(), tokens.end()}));
    const size_t pages = (KvBlockBytes(info) + kBlockAlignmentBytes - 1) / kBlockAlignmentBytes;
    chunks.push_back({list.keys[i], pages * kBlockAlignmentBytes});
  }
  return chunks;
}

void CacheNode::ReleasePin(const DocumentName& name) {
  const std::optional<std::vector<ChunkKey>> released = pinned_.Remove(name);
  if (!released.has_value()) return;
  for (const ChunkKey& key : *released) store_->host().Unpin(key);
}

absl::StatusOr<CacheNode::Pinned> CacheNode::PinDocument(const std::string& tenant, const std::string& id,
                                                         Deadline deadline) {
  EPIC_RETURN_IF_ERROR(CheckDeadline(deadline));
  std::vector<ChunkKey> fresh;
  DocumentName pinned_name;
  bool is_new = false;
  const auto admit = [&](const DocumentName& name, const ChunkListRecord& list) -> absl::Status {
    is_new = !pinned_.Contains(name);
    EPIC_ASSIGN_OR_RETURN(fresh, pinned_.Add(name, ChunksToPin(list)));
    pinned_name = name;
    for (const ChunkKey& key : fresh) store_->host().Pin(key);
    return absl::OkStatus();
  };
  const absl::StatusOr<ChunkListRecord> list = registry_->Pin(tenant, id, deadline, admit);
  if (!list.ok()) {
    if (is_new) ReleasePin(pinned_name);  // what is not durable is no pin
    return list.status();
  }
  queue_->Wake();
  Pinned pinned{.chunk_count = static_cast<int32_t>(list->keys.size())};
  for (const PinnedDocuments::Chunk& chunk : ChunksToPin(*list)) {
    pinned.bytes += chunk.bytes;
    if (store_->host().Contains(chunk.key)) ++pinned.resident_chunk_count;
  }
  return pinned;
}

absl::StatusOr<bool> CacheNode::UnpinDocument(const std::string& tenant, const std::string& id, Deadline deadline) {
  EPIC_RETURN_IF_ERROR(CheckDeadline(deadline));
  bool was_pinned = false;
  EPIC_RETURN_IF_ERROR(registry_->Unpin(tenant, id, deadline, [&](const DocumentName& name) {
    was_pinned = pinned_.Contains(name);
    ReleasePin(name);
  }));
  return was_pinned;
}

absl::StatusOr<EvictionReport> CacheNode::Evict(const std::string& tenant, const std::vector<std::string>& ids,
                                                bool from_host, bool from_disk, Deadline deadline) {
  EPIC_RETURN_IF_ERROR(CheckDeadline(deadline));
  std::vector<ChunkKey> keys;
  for (const std::string& id : ids) {
    EPIC_ASSIGN_OR_RETURN(const DocumentInfo info, registry_->Get(tenant, id));
    const std::vector<ChunkKey> of_document = registry_->table().Keys({info.record.tenant, info.record.id});
    keys.insert(keys.end(), of_document.begin(), of_document.end());
  }
  if (ids.empty()) {
    if (from_host) keys = store_->host().Keys();
    if (from_disk && store_->disk() != nullptr) {
      store_->disk()->ForEach([&](const ChunkKey& key, const BlockTier::Entry&) { keys.push_back(key); });
    }
  }
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  EvictionReport report;
  for (const ChunkKey& key : keys) {
    if (from_host && store_->host().Contains(key)) {
      ++(store_->host().Evict(key) ? report.evicted_host_blocks : report.kept_blocks);
    }
    if (from_disk && store_->OnDisk(key)) {
      store_->disk()->Drop(key);
      ++report.evicted_disk_blocks;
    }
  }
  return report;
}

absl::StatusOr<CacheNode::Created> CacheNode::CreateDocument(const NewDocument& document, Deadline deadline) {
  EPIC_RETURN_IF_ERROR(CheckDeadline(deadline));
  absl::StatusOr<DocumentRegistry::Created> created = registry_->Create(document, deadline);
  // Also after an error: an expired document of the same id may have been removed.
  queue_->Wake();
  if (!created.ok()) return created.status();
  // The one that had expired under this name was deleted with its pin.
  if (created->created) ReleasePin({created->document.record.tenant, created->document.record.id});
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
  ReleasePin({tenant.empty() ? "default" : tenant, id});
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
  KvShape host_shape = compiler_->kv_shape();
  host_shape.dtype = store_->options().host_dtype;
  const auto block_bytes = [&](int32_t tokens) { return KvBlockBytes(host_shape, tokens); };
  std::vector<ResolvedDocument> documents;
  for (const std::string& id : ids) {
    absl::StatusOr<ChunkListRecord> list = registry_->Resolve(tenant, id, recipe_id, deadline);
    queue_->Wake();
    if (!list.ok()) return list.status();
    ResolvedDocument document{.id = id, .recipe = list->BaseRecipe(), .chunks = {}};
    for (size_t i = 0; i < list->spans.size(); ++i) {
      const std::span<const int32_t> tokens = list->TokensOf(i);
      document.chunks.push_back({.key = list->keys[i],
                                 .token_ids = {tokens.begin(), tokens.end()},
                                 .context_token_count = static_cast<int32_t>(list->ContextOf(i).size()),
                                 .block_bytes = block_bytes(static_cast<int32_t>(tokens.size())),
                                 .resident = store_->Holds(list->keys[i])});
    }
    documents.push_back(std::move(document));
  }
  return documents;
}

int32_t CacheNode::ResidentChunks(const DocumentName& name) const {
  const std::vector<ChunkKey> keys = registry_->table().Keys(name);
  return static_cast<int32_t>(
      std::count_if(keys.begin(), keys.end(), [this](const ChunkKey& key) { return store_->host().Contains(key); }));
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
  if (std::optional<DocumentRegistry::ChunkWork> work = registry_->NextWork(); work.has_value()) {
    return JobOf(*std::move(work));
  }
  // Then what is pinned and not in memory.
  const auto held = [this](const ChunkKey& key) { return store_->host().Contains(key); };
  while (const std::optional<ChunkKey> key = pinned_.NextMissing(held)) {
    std::optional<DocumentRegistry::ChunkWork> work = registry_->WorkFor(*key);
    if (work.has_value()) return JobOf(*std::move(work));
  }
  return std::nullopt;
}

CompileJob CacheNode::JobOf(DocumentRegistry::ChunkWork work) const {
  return CompileJob{.info = BlockInfo(work.key, work.recipe, std::move(work.token_ids)),
                    .recipe = work.recipe,
                    .context = std::move(work.context)};
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
  if (absl::IsResourceExhausted(status) || absl::IsCancelled(status)) pinned_.OnMissing(key);
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kNotFound:
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
  absl::StatusOr<BlockStore::Lease> lease = store_->host().Acquire(chunk.key, chunk.token_ids);
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
    } else if (query.compile_missing || store_->OnDisk(chunk.key)) {
      const Recipe recipe = RecipeBehind(query.recipe, chunk.context_token_ids);
      CompileJob job{.info = BlockInfo(chunk.key, recipe, chunk.token_ids),
                     .recipe = recipe,
                     .context = {},
                     .load_only = !query.compile_missing};
      if (!chunk.context_token_ids.empty()) job.context = registry_->ContextOf(chunk.key);
      EPIC_ASSIGN_OR_RETURN(CompileQueue::Ticket ticket, queue_->Request(std::move(job)));
      tickets.emplace_back(i, std::move(ticket));
    }
  }
  for (const auto& [i, ticket] : tickets) {
    absl::StatusOr<CompileQueue::Compiled> waited = queue_->Wait(ticket, deadline);
    if (!query.compile_missing && absl::IsNotFound(waited.status())) continue;
    if (!waited.ok()) return waited.status();
    CompileQueue::Compiled compiled = *std::move(waited);
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
  for (const PinnedDocuments::Pinned& pinned : pinned_.List(pinned_.count())) {
    if (!registry_->table().ExpiresUnixMs(pinned.name).has_value()) ReleasePin(pinned.name);
  }
  queue_->Wake();
}

absl::StatusOr<CacheNodeStatus> CacheNode::Status() const {
  CacheNodeStatus status;
  EPIC_ASSIGN_OR_RETURN(status.documents, registry_->CountDocuments());
  status.store = store_->host().Stats();
  status.compile = queue_->Stats();
  status.chunks_waiting = registry_->table().chunks_waiting();
  return status;
}

}  // namespace epic
