#include "cache_node/document_table.h"

#include <algorithm>
#include <utility>

namespace epic {

struct DocumentTable::Chunk {
  ChunkKey key;
  std::vector<ChunkList*> lists;  // one entry for each time that a list holds the chunk
  bool compiled = false;
  bool handed_out = false;
};

struct DocumentTable::ChunkList {
  Document* document = nullptr;
  std::string recipe_id;
  uint64_t sequence = 0;
  int32_t token_count = 0;
  std::vector<Chunk*> chunks;
  int32_t compiled_count = 0;
  size_t next_index = 0;  // where TakeWork goes on
  absl::Status failure;

  bool complete() const { return compiled_count == static_cast<int32_t>(chunks.size()); }
};

struct DocumentTable::Document {
  DocumentName name;
  int64_t expires_unix_ms = 0;
  std::string own_recipe_id;
  uint64_t version = 0;
  std::map<std::string, ChunkList> lists;  // by recipe
};

DocumentTable::DocumentTable() = default;
DocumentTable::~DocumentTable() = default;

void DocumentTable::Touch(ChunkList* list) {
  list->document->version = ++change_;
  changed_.NotifyAll();
}

void DocumentTable::SetWaiting(ChunkList* list) {
  if (list->complete() || !list->failure.ok()) return;
  list->next_index = 0;
  waiting_[list->sequence] = list;
}

void DocumentTable::Add(const NewList& added) {
  MutexLock lock(mutex_);
  std::unique_ptr<Document>& document = documents_[added.name];
  if (document == nullptr) {
    document = std::make_unique<Document>();
    document->name = added.name;
    document->expires_unix_ms = added.expires_unix_ms;
    document->own_recipe_id = added.own_recipe_id;
    if (added.expires_unix_ms != 0) expiring_.emplace(added.expires_unix_ms, added.name);
  }
  const auto [entry, is_new] = document->lists.try_emplace(added.recipe_id);
  if (!is_new) return;
  ChunkList& list = entry->second;
  list.document = document.get();
  list.recipe_id = added.recipe_id;
  list.sequence = next_sequence_++;
  list.token_count = added.token_count;
  list.chunks.reserve(added.keys.size());
  for (const ChunkKey& key : added.keys) {
    std::unique_ptr<Chunk>& chunk = chunks_[key];
    if (chunk == nullptr) chunk = std::make_unique<Chunk>();
    chunk->key = key;
    chunk->lists.push_back(&list);
    list.chunks.push_back(chunk.get());
    if (chunk->compiled) ++list.compiled_count;
  }
  SetWaiting(&list);
  Touch(&list);
}

std::vector<ChunkKey> DocumentTable::Remove(const DocumentName& name) {
  std::vector<ChunkKey> unreferenced;
  MutexLock lock(mutex_);
  const auto found = documents_.find(name);
  if (found == documents_.end()) return unreferenced;
  for (auto& [recipe_id, list] : found->second->lists) {
    waiting_.erase(list.sequence);
    // By key and each once: a chunk that the list holds twice is gone after its first turn.
    std::vector<ChunkKey> keys;
    keys.reserve(list.chunks.size());
    for (const Chunk* chunk : list.chunks) keys.push_back(chunk->key);
    std::sort(keys.begin(), keys.end());
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
    for (const ChunkKey& key : keys) {
      std::vector<ChunkList*>& lists = chunks_.at(key)->lists;
      lists.erase(std::remove(lists.begin(), lists.end(), &list), lists.end());
      if (!lists.empty()) continue;
      chunks_.erase(key);
      unreferenced.push_back(key);
    }
  }
  expiring_.erase({found->second->expires_unix_ms, name});
  documents_.erase(found);
  ++change_;
  changed_.NotifyAll();
  return unreferenced;
}

void DocumentTable::Retry(const DocumentName& name) {
  MutexLock lock(mutex_);
  const auto found = documents_.find(name);
  if (found == documents_.end()) return;
  for (auto& [recipe_id, list] : found->second->lists) {
    if (list.failure.ok()) continue;
    list.failure = absl::OkStatus();
    SetWaiting(&list);
    Touch(&list);
  }
}

std::optional<DocumentTable::Work> DocumentTable::TakeWork() {
  MutexLock lock(mutex_);
  while (!waiting_.empty()) {
    ChunkList& list = *waiting_.begin()->second;
    while (list.next_index < list.chunks.size()) {
      const size_t index = list.next_index++;
      Chunk& chunk = *list.chunks[index];
      if (chunk.compiled || chunk.handed_out) continue;
      chunk.handed_out = true;
      return Work{list.document->name, list.recipe_id, index, chunk.key};
    }
    waiting_.erase(waiting_.begin());
  }
  return std::nullopt;
}

void DocumentTable::OnCompiled(const ChunkKey& key) {
  MutexLock lock(mutex_);
  const auto found = chunks_.find(key);
  if (found == chunks_.end()) return;
  Chunk& chunk = *found->second;
  chunk.handed_out = false;
  if (chunk.compiled) return;
  chunk.compiled = true;
  for (ChunkList* list : chunk.lists) {
    ++list->compiled_count;
    if (list->complete()) {
      list->failure = absl::OkStatus();
      waiting_.erase(list->sequence);
    }
    Touch(list);
  }
}

void DocumentTable::OnFailed(const ChunkKey& key, const absl::Status& status) {
  MutexLock lock(mutex_);
  const auto found = chunks_.find(key);
  if (found == chunks_.end()) return;
  found->second->handed_out = false;
  if (found->second->compiled) return;
  for (ChunkList* list : found->second->lists) {
    list->failure = status;
    waiting_.erase(list->sequence);
    Touch(list);
  }
}

void DocumentTable::OnPostponed(const ChunkKey& key) {
  MutexLock lock(mutex_);
  const auto found = chunks_.find(key);
  if (found == chunks_.end()) return;
  found->second->handed_out = false;
  for (ChunkList* list : found->second->lists) SetWaiting(list);
}

bool DocumentTable::IsReferenced(const ChunkKey& key) const {
  MutexLock lock(mutex_);
  return chunks_.contains(key);
}

std::optional<DocumentTable::Work> DocumentTable::PlaceOf(const ChunkKey& key) const {
  MutexLock lock(mutex_);
  const auto found = chunks_.find(key);
  if (found == chunks_.end()) return std::nullopt;
  const ChunkList& list = *found->second->lists.front();
  const auto at = std::find(list.chunks.begin(), list.chunks.end(), found->second.get());
  return Work{list.document->name, list.recipe_id, static_cast<size_t>(at - list.chunks.begin()), key};
}

bool DocumentTable::HasList(const DocumentName& name, const std::string& recipe_id) const {
  MutexLock lock(mutex_);
  const auto found = documents_.find(name);
  return found != documents_.end() && found->second->lists.contains(recipe_id);
}

std::optional<int64_t> DocumentTable::ExpiresUnixMs(const DocumentName& name) const {
  MutexLock lock(mutex_);
  const auto found = documents_.find(name);
  if (found == documents_.end()) return std::nullopt;
  return found->second->expires_unix_ms;
}

std::optional<std::string> DocumentTable::OwnRecipeId(const DocumentName& name) const {
  MutexLock lock(mutex_);
  const auto found = documents_.find(name);
  if (found == documents_.end()) return std::nullopt;
  return found->second->own_recipe_id;
}

std::optional<DocumentProgress> DocumentTable::Progress(const DocumentName& name) const {
  MutexLock lock(mutex_);
  const auto found = documents_.find(name);
  if (found == documents_.end()) return std::nullopt;
  DocumentProgress progress;
  progress.version = found->second->version;
  const auto own = found->second->lists.find(found->second->own_recipe_id);
  if (own == found->second->lists.end()) return progress;
  const ChunkList& list = own->second;
  progress.token_count = list.token_count;
  progress.chunk_count = static_cast<int32_t>(list.chunks.size());
  progress.compiled_chunk_count = list.compiled_count;
  progress.phase = list.complete()     ? DocumentPhase::kReady
                   : list.failure.ok() ? DocumentPhase::kCompiling
                                       : DocumentPhase::kFailed;
  if (progress.phase == DocumentPhase::kFailed) progress.reason = std::string(list.failure.message());
  return progress;
}

std::vector<ChunkKey> DocumentTable::Keys(const DocumentName& name) const {
  std::vector<ChunkKey> keys;
  MutexLock lock(mutex_);
  const auto found = documents_.find(name);
  if (found == documents_.end()) return keys;
  const auto own = found->second->lists.find(found->second->own_recipe_id);
  if (own == found->second->lists.end()) return keys;
  keys.reserve(own->second.chunks.size());
  for (const Chunk* chunk : own->second.chunks) keys.push_back(chunk->key);
  return keys;
}

std::vector<DocumentName> DocumentTable::Expired(int64_t now_unix_ms, size_t count_max) const {
  std::vector<DocumentName> names;
  MutexLock lock(mutex_);
  for (const auto& [expires_unix_ms, name] : expiring_) {
    if (names.size() == count_max || expires_unix_ms > now_unix_ms) break;
    names.push_back(name);
  }
  return names;
}

int64_t DocumentTable::chunks_waiting() const {
  MutexLock lock(mutex_);
  int64_t count = 0;
  for (const auto& [sequence, list] : waiting_)
    count += static_cast<int64_t>(list->chunks.size()) - list->compiled_count;
  return count;
}

uint64_t DocumentTable::WaitForChange(uint64_t seen_change, std::chrono::steady_clock::time_point deadline) const {
  MutexLock lock(mutex_);
  const uint64_t wakes = wakes_;
  bool in_time = true;
  while (change_ == seen_change && wakes_ == wakes && in_time) in_time = changed_.WaitUntil(mutex_, deadline);
  return change_;
}

void DocumentTable::WakeWaiters() {
  MutexLock lock(mutex_);
  ++wakes_;
  changed_.NotifyAll();
}

}  // namespace epic
