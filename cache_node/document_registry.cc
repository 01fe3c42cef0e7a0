#include "cache_node/document_registry.h"

#include <algorithm>
#include <span>
#include <tuple>
#include <utility>

#include "core/identifiers.h"
#include "core/limits.h"
#include "core/status_macros.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"

namespace epic {
namespace {

absl::StatusOr<DocumentName> MakeName(const std::string& tenant, const std::string& id) {
  DocumentName name{.tenant = tenant.empty() ? "default" : tenant, .id = id};
  EPIC_RETURN_IF_ERROR(ValidateTenant("tenant", name.tenant));
  EPIC_RETURN_IF_ERROR(ValidateDocumentId("document_id", name.id));
  return name;
}

absl::Status NotFound(const DocumentName& name) {
  return absl::NotFoundError(fmt::format("document {} does not exist", QuoteForMessage(name.id)));
}

absl::Status ValidateText(const std::string& text) {
  if (text.empty()) return absl::InvalidArgumentError("text is empty, expected at least one character");
  if (text.size() > kDocumentTextBytesMax) {
    return absl::InvalidArgumentError(
        fmt::format("text has {} bytes, the limit is {}; split the document", text.size(), kDocumentTextBytesMax));
  }
  if (const size_t zero = text.find('\0'); zero != std::string::npos) {
    return absl::InvalidArgumentError(fmt::format("text has a zero byte at offset {}: this is not text", zero));
  }
  return absl::OkStatus();
}

absl::Status ValidateTokenIds(const std::vector<int32_t>& ids, int32_t vocab_size) {
  if (ids.empty()) return absl::InvalidArgumentError("token_ids is empty, expected at least one token");
  const auto bad = std::find_if(ids.begin(), ids.end(), [&](int32_t id) { return id < 0 || id >= vocab_size; });
  if (bad == ids.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("token_ids[{}] is {}, expected 0 to {} for the present model",
                                                bad - ids.begin(), *bad, vocab_size - 1));
}

absl::Status ValidateTokenCount(size_t count) {
  if (count <= static_cast<size_t>(kDocumentTokensMax)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("the document has {} tokens, the limit is {}; split the document", count, kDocumentTokensMax));
}

// For documents; what linkers need besides is made when they ask.
absl::Status ValidateRecipeId(const std::string& id) {
  if (id.empty() || id == kPlainRecipeId || id == kDocumentRecipeId) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("recipe_id is {}, expected \"{}\", \"{}\" or nothing",
                                                QuoteForMessage(id), kPlainRecipeId, kDocumentRecipeId));
}

// Of a chunk in a section, all chunks of the section before it.
std::vector<ContextChunk> ContextIn(const ChunkListRecord& list, size_t chunk) {
  std::vector<ContextChunk> context;
  if (list.section_begins.empty()) return context;
  for (size_t i = 0; i < chunk; ++i) {
    if (list.spans[i].begin < list.section_begins[chunk]) continue;
    const std::span<const int32_t> tokens = list.TokensOf(i);
    context.push_back({list.keys[i], {tokens.begin(), tokens.end()}});
  }
  return context;
}

DocumentRegistry::ChunkWork WorkAt(const ChunkListRecord& list, size_t chunk) {
  const std::span<const int32_t> tokens = list.TokensOf(chunk);
  return {.key = list.keys[chunk],
          .recipe = list.RecipeOf(chunk),
          .token_ids = {tokens.begin(), tokens.end()},
          .context = ContextIn(list, chunk)};
}

}  // namespace

std::string FingerprintForMessage(const std::string& model_fingerprint_hex) {
  return ChunkKey::FromHex(model_fingerprint_hex).ok() ? model_fingerprint_hex : QuoteForMessage(model_fingerprint_hex);
}

DocumentRegistry::DocumentRegistry(Manifest* manifest, const ChunkCompiler* compiler, const ChunkerOptions& chunker,
                                   std::string default_recipe_id, Clock clock)
    : manifest_(manifest),
      compiler_(compiler),
      chunker_(chunker),
      default_recipe_id_(std::move(default_recipe_id)),
      clock_(std::move(clock)) {}

bool DocumentRegistry::IsExpired(int64_t expires_unix_ms) const {
  return expires_unix_ms != 0 && expires_unix_ms <= clock_();
}

absl::Status DocumentRegistry::Load() {
  struct Loaded {
    DocumentTable::NewList list;
    int64_t created_unix_ms = 0;
  };
  std::vector<Loaded> lists;
  const auto visit = [&](const std::string& tenant, const std::string& id, const ChunkListRecord& list) {
    // A list of another chunker is made anew when it is asked for.
    if (list.chunker_version != kChunkerVersion) return absl::OkStatus();
    Loaded& loaded = lists.emplace_back();
    loaded.list.name = {tenant, id};
    loaded.list.recipe_id = list.recipe.id;
    loaded.list.token_count = static_cast<int32_t>(list.token_ids.size());
    loaded.list.keys = list.keys;
    return absl::OkStatus();
  };
  EPIC_RETURN_IF_ERROR(manifest_->ForEachChunkList(compiler_->fingerprint_hex(), visit));
  // The lists come in the order of tenants and ids, and so do the headers.
  size_t next = 0;
  EPIC_RETURN_IF_ERROR(manifest_->ForEachDocumentHeader([&](const DocumentHeader& header) {
    const DocumentName name{header.tenant, header.id};
    for (; next < lists.size() && lists[next].list.name <= name; ++next) {
      if (lists[next].list.name != name) break;
      lists[next].created_unix_ms = header.created_unix_ms;
      lists[next].list.expires_unix_ms = header.expires_unix_ms;
      lists[next].list.own_recipe_id = header.recipe_id;
    }
    return absl::OkStatus();
  }));
  if (next < lists.size()) {
    return absl::DataLossError(fmt::format("the manifest has chunks of document {} of tenant {}, but not the document",
                                           lists[next].list.name.id, lists[next].list.name.tenant));
  }
  std::sort(lists.begin(), lists.end(), [](const Loaded& a, const Loaded& b) {
    return std::tie(a.created_unix_ms, a.list.name, a.list.recipe_id) <
           std::tie(b.created_unix_ms, b.list.name, b.list.recipe_id);
  });
  for (const Loaded& loaded : lists) table_.Add(loaded.list);
  return absl::OkStatus();
}

absl::StatusOr<DocumentRecord> DocumentRegistry::NewRecord(const DocumentName& name,
                                                           const NewDocument& document) const {
  EPIC_RETURN_IF_ERROR(ValidateLabels("labels", document.labels));
  if (document.ttl_ms < 0 || document.ttl_ms > kDocumentTtlMsMax) {
    return absl::InvalidArgumentError(
        fmt::format("ttl_ms is {}, expected 0 (for ever) to {}", document.ttl_ms, kDocumentTtlMsMax));
  }
  if (document.text.has_value() == document.token_ids.has_value()) {
    return absl::InvalidArgumentError("content is empty, expected text or token_ids");
  }
  EPIC_RETURN_IF_ERROR(ValidateRecipeId(document.recipe_id));
  DocumentRecord record;
  record.recipe_id = document.recipe_id.empty() ? default_recipe_id_ : document.recipe_id;
  record.tenant = name.tenant;
  record.id = name.id;
  record.labels = document.labels;
  record.created_unix_ms = clock_();
  record.expires_unix_ms = document.ttl_ms == 0 ? 0 : record.created_unix_ms + document.ttl_ms;
  if (document.text.has_value()) {
    EPIC_RETURN_IF_ERROR(ValidateText(*document.text));
    record.text = *document.text;
    return record;
  }
  record.token_ids_model_fingerprint = document.token_ids_model_fingerprint.empty()
                                           ? compiler_->fingerprint_hex()
                                           : document.token_ids_model_fingerprint;
  if (record.token_ids_model_fingerprint != compiler_->fingerprint_hex()) {
    return absl::FailedPreconditionError(fmt::format("token_ids are of model {}, this node runs model {}",
                                                     FingerprintForMessage(record.token_ids_model_fingerprint),
                                                     compiler_->fingerprint_hex()));
  }
  EPIC_RETURN_IF_ERROR(ValidateTokenCount(document.token_ids->size()));
  EPIC_RETURN_IF_ERROR(ValidateTokenIds(*document.token_ids, compiler_->vocab_size()));
  record.token_ids = *document.token_ids;
  return record;
}

absl::StatusOr<Recipe> DocumentRegistry::ListRecipe(const std::string& recipe_id) const {
  if (recipe_id != kDocumentRecipeId) return compiler_->RecipeById(recipe_id);
  EPIC_ASSIGN_OR_RETURN(Recipe recipe, compiler_->RecipeById(kPlainRecipeId));
  recipe.id = kDocumentRecipeId;
  return recipe;
}

absl::StatusOr<ChunkListRecord> DocumentRegistry::Cut(const DocumentRecord& record,
                                                      const std::string& recipe_id) const {
  ChunkListRecord list;
  list.model_fingerprint_hex = compiler_->fingerprint_hex();
  EPIC_ASSIGN_OR_RETURN(list.recipe, ListRecipe(recipe_id));
  std::vector<size_t> byte_ends;
  if (record.token_ids.empty()) {
    absl::StatusOr<ChunkCompiler::Encoding> encoding = compiler_->EncodeText(record.text);
    if (!encoding.ok()) {
      return absl::Status(encoding.status().code(), fmt::format("text: {}", std::string(encoding.status().message())));
    }
    list.token_ids = std::move(encoding->ids);
    byte_ends = std::move(encoding->byte_ends);
  } else if (record.token_ids_model_fingerprint != list.model_fingerprint_hex) {
    return absl::FailedPreconditionError(
        fmt::format("document {} was registered as token ids of model {}, this node runs model {}",
                    QuoteForMessage(record.id), record.token_ids_model_fingerprint, list.model_fingerprint_hex));
  } else {
    list.token_ids = record.token_ids;
  }
  EPIC_RETURN_IF_ERROR(ValidateTokenCount(list.token_ids.size()));
  list.spans =
      ChunkDocument(static_cast<int32_t>(list.token_ids.size()),
                    byte_ends.empty() ? std::string_view{} : std::string_view(record.text), byte_ends, chunker_);
  if (recipe_id == kDocumentRecipeId) {
    const int32_t room = compiler_->context_length() - list.recipe.first_position();
    list.section_begins = SectionBegins(list.spans, std::min(kDocumentSectionTokensMax, room));
  }
  list.keys.reserve(list.spans.size());
  for (size_t i = 0; i < list.spans.size(); ++i) {
    list.keys.push_back(ComputeChunkKey(list.model_fingerprint_hex, list.RecipeOf(i), record.tenant, list.TokensOf(i)));
  }
  return list;
}

void DocumentRegistry::AddToTable(const DocumentRecord& record, const ChunkListRecord& list) {
  table_.Add({.name = {record.tenant, record.id},
              .expires_unix_ms = record.expires_unix_ms,
              .own_recipe_id = record.recipe_id,
              .recipe_id = list.recipe.id,
              .token_count = static_cast<int32_t>(list.token_ids.size()),
              .keys = list.keys});
}

absl::StatusOr<ChunkListRecord> DocumentRegistry::EnsureChunkList(const DocumentRecord& record,
                                                                  const std::string& recipe_id) {
  absl::StatusOr<ChunkListRecord> list =
      manifest_->GetChunkList(record.tenant, record.id, compiler_->fingerprint_hex(), recipe_id);
  EPIC_ASSIGN_OR_RETURN(const Recipe recipe, ListRecipe(recipe_id));
  const bool is_current = list.ok() && list->chunker_version == kChunkerVersion && list->recipe == recipe;
  if (!list.ok() && list.status().code() != absl::StatusCode::kNotFound) return list.status();
  if (!is_current) {
    list = Cut(record, recipe_id);
    if (!list.ok()) return list.status();
    EPIC_RETURN_IF_ERROR(manifest_->PutChunkList(record.tenant, record.id, *list));
  }
  AddToTable(record, *list);
  return list;
}

absl::StatusOr<DocumentRecord> DocumentRegistry::Find(const DocumentName& name) const {
  absl::StatusOr<DocumentRecord> record = manifest_->GetDocument(name.tenant, name.id);
  if (record.status().code() == absl::StatusCode::kNotFound) return NotFound(name);
  if (!record.ok()) return record.status();
  if (IsExpired(record->expires_unix_ms)) return NotFound(name);
  return record;
}

DocumentInfo DocumentRegistry::Describe(DocumentRecord record) const {
  DocumentInfo info;
  info.progress = table_.Progress({record.tenant, record.id}).value_or(DocumentProgress{});
  info.record = std::move(record);
  return info;
}

absl::StatusOr<DocumentRegistry::Created> DocumentRegistry::Create(const NewDocument& document, Deadline deadline) {
  EPIC_ASSIGN_OR_RETURN(const DocumentName name, MakeName(document.tenant, document.id));
  EPIC_ASSIGN_OR_RETURN(DocumentRecord record, NewRecord(name, document));
  EPIC_ASSIGN_OR_RETURN(const NameGate::Pass pass, gate_.Enter(name, deadline));
  return CreateAtGate(name, std::move(record), !document.recipe_id.empty());
}

absl::StatusOr<DocumentRegistry::Created> DocumentRegistry::CreateAtGate(const DocumentName& name,
                                                                         DocumentRecord record, bool names_recipe) {
  absl::StatusOr<DocumentRecord> known = manifest_->GetDocument(name.tenant, name.id);
  std::vector<ChunkKey> freed;
  if (known.ok() && IsExpired(known->expires_unix_ms)) {
    EPIC_RETURN_IF_ERROR(manifest_->DeleteDocument(name.tenant, name.id));
    freed = table_.Remove(name);
  } else if (known.ok()) {
    if (!known->SameContent(record)) {
      return absl::AlreadyExistsError(
          fmt::format("document {} exists with other content; choose another id or delete "
                      "it first",
                      QuoteForMessage(name.id)));
    }
    if (names_recipe && known->recipe_id != record.recipe_id) {
      return absl::AlreadyExistsError(
          fmt::format("document {} is compiled by recipe {}, this registration asks for {}; name no recipe, or delete "
                      "the document first",
                      QuoteForMessage(name.id), known->recipe_id, record.recipe_id));
    }
    EPIC_RETURN_IF_ERROR(EnsureChunkList(*known, known->recipe_id).status());
    table_.Retry(name);
    return Created{.document = Describe(*std::move(known)), .created = false, .freed_keys = {}};
  } else if (known.status().code() != absl::StatusCode::kNotFound) {
    return known.status();
  }
  EPIC_ASSIGN_OR_RETURN(const ChunkListRecord list, Cut(record, record.recipe_id));
  if (list.token_ids.empty()) return absl::InvalidArgumentError("text has no tokens, expected at least one");
  EPIC_ASSIGN_OR_RETURN(const bool is_new, manifest_->PutDocument(record, &list));
  AddToTable(record, list);
  return Created{.document = Describe(std::move(record)), .created = is_new, .freed_keys = std::move(freed)};
}

absl::StatusOr<DocumentInfo> DocumentRegistry::Get(const std::string& tenant, const std::string& id) const {
  EPIC_ASSIGN_OR_RETURN(const DocumentName name, MakeName(tenant, id));
  EPIC_ASSIGN_OR_RETURN(DocumentRecord record, Find(name));
  return Describe(std::move(record));
}

absl::StatusOr<DocumentPage> DocumentRegistry::List(const std::string& tenant, int32_t page_size,
                                                    const std::string& page_token) const {
  const std::string owner = tenant.empty() ? "default" : tenant;
  EPIC_RETURN_IF_ERROR(ValidateTenant("tenant", owner));
  if (page_size < 0 || page_size > kPageSizeMax) {
    return absl::InvalidArgumentError(
        fmt::format("page_size is {}, expected 0 (for {}) to {}", page_size, kPageSizeDefault, kPageSizeMax));
  }
  if (!page_token.empty()) EPIC_RETURN_IF_ERROR(ValidateDocumentId("page_token", page_token));
  const auto wanted = static_cast<size_t>(page_size == 0 ? kPageSizeDefault : page_size);
  DocumentPage page;
  std::string after = page_token;
  // Expired documents take no room on a page, hence more than one look into the manifest. One document more than wanted
  // says whether there is another page.
  while (true) {
    const auto missing = static_cast<int32_t>(wanted - page.documents.size());
    EPIC_ASSIGN_OR_RETURN(std::vector<DocumentRecord> records, manifest_->ListDocuments(owner, after, missing + 1));
    const bool is_last = records.size() <= static_cast<size_t>(missing);
    if (!is_last) records.pop_back();
    for (DocumentRecord& record : records) {
      after = record.id;
      if (!IsExpired(record.expires_unix_ms)) page.documents.push_back(Describe(std::move(record)));
    }
    if (is_last) return page;
    if (page.documents.size() == wanted) break;
  }
  page.next_page_token = after;
  return page;
}

absl::StatusOr<std::vector<ChunkKey>> DocumentRegistry::Delete(const std::string& tenant, const std::string& id,
                                                               Deadline deadline) {
  EPIC_ASSIGN_OR_RETURN(const DocumentName name, MakeName(tenant, id));
  EPIC_ASSIGN_OR_RETURN(const NameGate::Pass pass, gate_.Enter(name, deadline));
  EPIC_RETURN_IF_ERROR(Find(name).status());
  EPIC_RETURN_IF_ERROR(manifest_->DeleteDocument(name.tenant, name.id));
  return table_.Remove(name);
}

absl::StatusOr<DocumentInfo> DocumentRegistry::Ask(const std::string& tenant, const std::string& id,
                                                   Deadline deadline) {
  EPIC_ASSIGN_OR_RETURN(const DocumentName name, MakeName(tenant, id));
  EPIC_ASSIGN_OR_RETURN(const NameGate::Pass pass, gate_.Enter(name, deadline));
  EPIC_ASSIGN_OR_RETURN(DocumentRecord record, Find(name));
  if (!table_.HasList(name, record.recipe_id)) {
    EPIC_RETURN_IF_ERROR(EnsureChunkList(record, record.recipe_id).status());
  }
  table_.Retry(name);
  return Describe(std::move(record));
}

absl::StatusOr<ChunkListRecord> DocumentRegistry::Resolve(const std::string& tenant, const std::string& id,
                                                          const std::string& recipe_id, Deadline deadline) {
  EPIC_ASSIGN_OR_RETURN(const DocumentName name, MakeName(tenant, id));
  // The usual case, for every document of every request: known, and one read of the manifest.
  const std::string wanted = recipe_id.empty() ? table_.OwnRecipeId(name).value_or("") : recipe_id;
  if (const std::optional<int64_t> expires = table_.ExpiresUnixMs(name);
      expires.has_value() && !IsExpired(*expires) && table_.HasList(name, wanted)) {
    absl::StatusOr<ChunkListRecord> list =
        manifest_->GetChunkList(name.tenant, name.id, compiler_->fingerprint_hex(), wanted);
    if (list.status().code() == absl::StatusCode::kNotFound) return NotFound(name);  // deleted just now
    table_.Retry(name);
    return list;
  }
  EPIC_ASSIGN_OR_RETURN(const NameGate::Pass pass, gate_.Enter(name, deadline));
  EPIC_ASSIGN_OR_RETURN(const DocumentRecord record, Find(name));
  return EnsureChunkList(record, recipe_id.empty() ? record.recipe_id : recipe_id);
}

absl::StatusOr<ChunkListRecord> DocumentRegistry::Pin(
    const std::string& tenant, const std::string& id, Deadline deadline,
    const std::function<absl::Status(const DocumentName&, const ChunkListRecord&)>& admit) {
  EPIC_ASSIGN_OR_RETURN(const DocumentName name, MakeName(tenant, id));
  EPIC_ASSIGN_OR_RETURN(const NameGate::Pass pass, gate_.Enter(name, deadline));
  EPIC_ASSIGN_OR_RETURN(const DocumentRecord record, Find(name));
  EPIC_ASSIGN_OR_RETURN(ChunkListRecord list, EnsureChunkList(record, record.recipe_id));
  EPIC_RETURN_IF_ERROR(admit(name, list));
  EPIC_RETURN_IF_ERROR(manifest_->SetPinned(name.tenant, name.id, true));
  return list;
}

absl::Status DocumentRegistry::Unpin(const std::string& tenant, const std::string& id, Deadline deadline,
                                     const std::function<void(const DocumentName&)>& release) {
  EPIC_ASSIGN_OR_RETURN(const DocumentName name, MakeName(tenant, id));
  EPIC_ASSIGN_OR_RETURN(const NameGate::Pass pass, gate_.Enter(name, deadline));
  EPIC_RETURN_IF_ERROR(Find(name).status());
  EPIC_RETURN_IF_ERROR(manifest_->SetPinned(name.tenant, name.id, false));
  release(name);
  return absl::OkStatus();
}

absl::Status DocumentRegistry::ForEachPinned(
    const std::function<void(const DocumentName&, const ChunkListRecord&)>& visit) {
  std::vector<DocumentName> names;
  EPIC_RETURN_IF_ERROR(manifest_->ForEachPinned([&](const std::string& tenant, const std::string& id) {
    names.push_back({tenant, id});
    return absl::OkStatus();
  }));
  for (const DocumentName& name : names) {
    EPIC_ASSIGN_OR_RETURN(const DocumentRecord record, manifest_->GetDocument(name.tenant, name.id));
    if (IsExpired(record.expires_unix_ms)) continue;
    const absl::StatusOr<ChunkListRecord> list = EnsureChunkList(record, record.recipe_id);
    if (!list.ok()) {
      // Token ids of another model, say. The pin stays for a node that can use it.
      spdlog::warn("document {} of tenant {} is pinned, but this node cannot compile it: {}", name.id, name.tenant,
                   std::string(list.status().message()));
      continue;
    }
    visit(name, *list);
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::flat_hash_set<ChunkKey>> DocumentRegistry::ReferencedKeys() const {
  absl::flat_hash_set<ChunkKey> keys;
  EPIC_RETURN_IF_ERROR(manifest_->ForEachChunkKey([&](const ChunkKey& key) { keys.insert(key); }));
  return keys;
}

std::optional<DocumentRegistry::ChunkWork> DocumentRegistry::WorkFor(const ChunkKey& key) const {
  const std::optional<DocumentTable::Work> place = table_.PlaceOf(key);
  if (!place.has_value()) return std::nullopt;
  const absl::StatusOr<ChunkListRecord> list =
      manifest_->GetChunkList(place->name.tenant, place->name.id, compiler_->fingerprint_hex(), place->recipe_id);
  if (!list.ok() || place->chunk_index >= list->keys.size() || list->keys[place->chunk_index] != key) {
    return std::nullopt;
  }
  return WorkAt(*list, place->chunk_index);
}

std::vector<ChunkKey> DocumentRegistry::SweepExpired(Deadline deadline) {
  constexpr size_t kSweepDocumentsMax = 100;
  std::vector<ChunkKey> free;
  for (const DocumentName& name : table_.Expired(clock_(), kSweepDocumentsMax)) {
    const absl::StatusOr<NameGate::Pass> pass = gate_.Enter(name, deadline);
    if (!pass.ok()) break;
    // Read again at the gate: the id may have been registered anew.
    const absl::StatusOr<DocumentRecord> record = manifest_->GetDocument(name.tenant, name.id);
    if (record.ok() && !IsExpired(record->expires_unix_ms)) continue;
    if (record.ok()) {
      if (const absl::Status status = manifest_->DeleteDocument(name.tenant, name.id); !status.ok()) {
        spdlog::warn("expired document {} of tenant {} could not be deleted, tried again later: {}", name.id,
                     name.tenant, std::string(status.message()));
        continue;
      }
    } else if (record.status().code() != absl::StatusCode::kNotFound) {
      continue;
    }
    const std::vector<ChunkKey> keys = table_.Remove(name);
    free.insert(free.end(), keys.begin(), keys.end());
  }
  return free;
}

std::vector<ContextChunk> DocumentRegistry::ContextOf(const ChunkKey& key) const {
  const std::optional<DocumentTable::Work> place = table_.PlaceOf(key);
  if (!place.has_value() || place->recipe_id != kDocumentRecipeId) return {};
  const absl::StatusOr<ChunkListRecord> list =
      manifest_->GetChunkList(place->name.tenant, place->name.id, compiler_->fingerprint_hex(), place->recipe_id);
  // Deleted or registered anew just now: the chunk is compiled without, as well as with.
  if (!list.ok() || place->chunk_index >= list->keys.size() || list->keys[place->chunk_index] != key) return {};
  return ContextIn(*list, place->chunk_index);
}

std::optional<DocumentRegistry::ChunkWork> DocumentRegistry::Postpone(const ChunkKey& key) {
  // The document is just being deleted, or registered anew. The chunk may belong to others as well: no failure.
  table_.OnPostponed(key);
  work_list_.reset();
  return std::nullopt;
}

std::optional<DocumentRegistry::ChunkWork> DocumentRegistry::NextWork() {
  while (std::optional<DocumentTable::Work> work = table_.TakeWork()) {
    const bool is_same = work_list_.has_value() && work_name_ == work->name && work_list_->recipe.id == work->recipe_id;
    // Keys tell a list of a document that was deleted and registered anew from the one that was read before.
    if (!is_same || work->chunk_index >= work_list_->keys.size() || work_list_->keys[work->chunk_index] != work->key) {
      absl::StatusOr<ChunkListRecord> list =
          manifest_->GetChunkList(work->name.tenant, work->name.id, compiler_->fingerprint_hex(), work->recipe_id);
      if (list.status().code() == absl::StatusCode::kNotFound) return Postpone(work->key);
      if (!list.ok()) {
        table_.OnFailed(work->key, list.status());
        continue;
      }
      work_name_ = work->name;
      work_list_ = *std::move(list);
    }
    if (work->chunk_index >= work_list_->keys.size() || work_list_->keys[work->chunk_index] != work->key) {
      return Postpone(work->key);
    }
    return WorkAt(*work_list_, work->chunk_index);
  }
  work_list_.reset();
  return std::nullopt;
}

}  // namespace epic
