#include "cache_node/pinned_documents.h"

#include <algorithm>
#include <utility>

#include "core/identifiers.h"
#include "fmt/format.h"

namespace epic {

absl::StatusOr<std::vector<ChunkKey>> PinnedDocuments::Add(const DocumentName& name, const std::vector<Chunk>& chunks) {
  std::vector<Chunk> distinct = chunks;
  std::sort(distinct.begin(), distinct.end(), [](const Chunk& a, const Chunk& b) { return a.key < b.key; });
  distinct.erase(
      std::unique(distinct.begin(), distinct.end(), [](const Chunk& a, const Chunk& b) { return a.key == b.key; }),
      distinct.end());
  std::vector<ChunkKey> fresh;
  size_t fresh_bytes = 0;
  const MutexLock lock(mutex_);
  if (documents_.contains(name)) return fresh;
  for (const Chunk& chunk : distinct) {
    if (keys_.contains(chunk.key)) continue;
    fresh.push_back(chunk.key);
    fresh_bytes += chunk.bytes;
  }
  if (fresh_bytes > bytes_max_ - std::min(bytes_max_, bytes_)) {
    return absl::ResourceExhaustedError(fmt::format(
        "document {} has {} bytes that are not pinned yet; {} bytes are pinned and the limit is {}: unpin another "
        "document, or raise pinned-bytes-max",
        QuoteForMessage(name.id), fresh_bytes, bytes_, bytes_max_));
  }
  bytes_ += fresh_bytes;
  for (const Chunk& chunk : distinct) {
    KeyState& state = keys_[chunk.key];
    ++state.documents;
    state.bytes = chunk.bytes;
  }
  missing_.insert(missing_.end(), fresh.begin(), fresh.end());
  documents_.emplace(name, std::move(distinct));
  return fresh;
}

std::optional<std::vector<ChunkKey>> PinnedDocuments::Remove(const DocumentName& name) {
  const MutexLock lock(mutex_);
  const auto found = documents_.find(name);
  if (found == documents_.end()) return std::nullopt;
  std::vector<ChunkKey> released;
  for (const Chunk& chunk : found->second) {
    const auto state = keys_.find(chunk.key);
    if (--state->second.documents > 0) continue;
    bytes_ -= state->second.bytes;
    keys_.erase(state);
    released.push_back(chunk.key);
  }
  documents_.erase(found);
  return released;
}

bool PinnedDocuments::Contains(const DocumentName& name) const {
  const MutexLock lock(mutex_);
  return documents_.contains(name);
}

bool PinnedDocuments::ContainsChunk(const ChunkKey& key) const {
  const MutexLock lock(mutex_);
  return keys_.contains(key);
}

std::optional<ChunkKey> PinnedDocuments::NextMissing(const std::function<bool(const ChunkKey&)>& held) {
  const MutexLock lock(mutex_);
  while (!missing_.empty()) {
    const ChunkKey key = missing_.front();
    missing_.pop_front();
    if (keys_.contains(key) && !held(key)) return key;
  }
  return std::nullopt;
}

void PinnedDocuments::OnMissing(const ChunkKey& key) {
  const MutexLock lock(mutex_);
  if (keys_.contains(key)) missing_.push_back(key);
}

std::vector<PinnedDocuments::Pinned> PinnedDocuments::List(size_t count_max) const {
  std::vector<Pinned> pinned;
  const MutexLock lock(mutex_);
  for (const auto& [name, chunks] : documents_) {
    if (pinned.size() == count_max) break;
    Pinned& one = pinned.emplace_back(Pinned{.name = name});
    for (const Chunk& chunk : chunks) one.bytes += chunk.bytes;
  }
  return pinned;
}

size_t PinnedDocuments::count() const {
  const MutexLock lock(mutex_);
  return documents_.size();
}

size_t PinnedDocuments::bytes() const {
  const MutexLock lock(mutex_);
  return bytes_;
}

}  // namespace epic
