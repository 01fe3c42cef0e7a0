#include "storage/manifest.h"

#include <atomic>
#include <filesystem>
#include <utility>

#include "core/byte_codec.h"
#include "core/status_macros.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"
#include "storage/keyed_mutex.h"
#include "storage/manifest_database.h"
#include "storage/manifest_keys.h"
#include "storage/manifest_pair.h"
#include "storage/manifest_repair.h"
#include "storage/manifest_space.h"

namespace epic {
namespace {

// The same status with where it happened in front.
absl::Status Annotate(const absl::Status& status, const std::string& where) {
  if (status.ok()) return status;
  return absl::Status(status.code(), fmt::format("{}: {}", where, std::string(status.message())));
}

class RocksDbManifest final : public Manifest {
 public:
  RocksDbManifest(ManifestOptions options, std::unique_ptr<ManifestPair> pair, int64_t document_count,
                  int64_t repair_count)
      : options_(std::move(options)),
        pair_(std::move(pair)),
        repair_count_(repair_count),
        document_count_(document_count) {}

  absl::StatusOr<bool> PutDocument(const DocumentRecord& document, const ChunkListRecord* chunks) override;
  absl::StatusOr<DocumentRecord> GetDocument(const std::string& tenant, const std::string& id) const override;
  absl::StatusOr<std::vector<DocumentRecord>> ListDocuments(const std::string& tenant, const std::string& after_id,
                                                            int32_t limit) const override;
  absl::Status DeleteDocument(const std::string& tenant, const std::string& id) override;
  absl::Status PutChunkList(const std::string& tenant, const std::string& id, const ChunkListRecord& chunks) override;
  absl::StatusOr<ChunkListRecord> GetChunkList(const std::string& tenant, const std::string& id,
                                               const std::string& model_fingerprint_hex,
                                               const std::string& recipe_id) const override;
  absl::Status ForEachChunkList(const std::string& model_fingerprint_hex,
                                const std::function<absl::Status(const std::string& tenant, const std::string& id,
                                                                 const ChunkListRecord&)>& visit) const override;
  absl::Status SetPinned(const std::string& tenant, const std::string& id, bool pinned) override;
  absl::StatusOr<bool> IsPinned(const std::string& tenant, const std::string& id) const override;
  absl::Status ForEachPinned(
      const std::function<absl::Status(const std::string& tenant, const std::string& id)>& visit) const override;
  absl::Status ForEachDocumentHeader(const std::function<absl::Status(const DocumentHeader&)>& visit) const override;
  absl::StatusOr<int64_t> CountDocuments() const override { return document_count_.load(); }
  absl::Status ForEachChunkKey(const std::function<void(const ChunkKey&)>& visit) const override;
  absl::StatusOr<std::pair<uint64_t, uint64_t>> Compact() override { return pair_->Compact(); }
  ManifestCounters counters() const override;

 private:
  // NOT_FOUND where there is no such document. The caller holds the document's lock where it goes on to change it.
  absl::Status CheckDocument(const std::string& tenant, const std::string& id) const;
  absl::StatusOr<DocumentRecord> DecodeDocument(const std::string& tenant, const std::string& id,
                                                std::string_view bytes) const;
  // Calls `visit(names, value)` for each record of a kind whose first names are `names`.
  absl::Status ForEach(ManifestKeyKind kind, std::initializer_list<std::string_view> names, size_t name_count,
                       const std::function<absl::Status(std::vector<std::string>&, std::string_view)>& visit) const;
  std::string Where(const std::string& tenant, const std::string& id) const {
    return fmt::format("document {} of tenant {} in {}", id, tenant, options_.folder);
  }

  const ManifestOptions options_;
  const std::unique_ptr<ManifestPair> pair_;
  const int64_t repair_count_;
  KeyedMutex documents_;  // held by whoever changes a document, from its look to its write
  std::atomic<int64_t> document_count_;
};

absl::Status RocksDbManifest::ForEach(
    ManifestKeyKind kind, std::initializer_list<std::string_view> names, size_t name_count,
    const std::function<absl::Status(std::vector<std::string>&, std::string_view)>& visit) const {
  const std::string prefix = ManifestKey(kind, names);
  return pair_->Scan(prefix, prefix, [&](std::string_view key, std::string_view value) -> absl::StatusOr<bool> {
    auto found = ParseManifestKey(kind, key);
    if (!found || found->size() != name_count) {
      return absl::DataLossError(fmt::format("unreadable key in {}", options_.folder));
    }
    EPIC_RETURN_IF_ERROR(visit(*found, value));
    return true;
  });
}

absl::Status RocksDbManifest::CheckDocument(const std::string& tenant, const std::string& id) const {
  absl::Status status = pair_->Get(ManifestKey(ManifestKeyKind::kIndex, {tenant, id})).status();
  if (!absl::IsNotFound(status)) return status;
  return absl::NotFoundError(fmt::format("there is no document {} of tenant {}", id, tenant));
}

absl::StatusOr<DocumentRecord> RocksDbManifest::DecodeDocument(const std::string& tenant, const std::string& id,
                                                               std::string_view bytes) const {
  absl::StatusOr<DocumentRecord> record = DecodeDocumentRecord(bytes);
  if (!record.ok()) return Annotate(record.status(), Where(tenant, id));
  if (record->tenant != tenant || record->id != id) {
    return absl::DataLossError(fmt::format("{}: the record under this name is of document {} of tenant {}",
                                           Where(tenant, id), record->id, record->tenant));
  }
  return record;
}

absl::StatusOr<bool> RocksDbManifest::PutDocument(const DocumentRecord& document, const ChunkListRecord* chunks) {
  const std::string key = ManifestKey(ManifestKeyKind::kDocument, {document.tenant, document.id});
  const KeyedMutex::Lock lock(documents_, key);
  // What a failed change left in one copy must not be taken for acknowledged.
  EPIC_RETURN_IF_ERROR(pair_->CheckWritable());
  const absl::StatusOr<DocumentRecord> held = GetDocument(document.tenant, document.id);
  if (held.ok()) {
    if (held->SameContent(document)) return false;
    return absl::AlreadyExistsError(
        fmt::format("document {} of tenant {} exists already with other content; delete it first or choose another id",
                    document.id, document.tenant));
  }
  if (!absl::IsNotFound(held.status())) return held.status();
  EPIC_RETURN_IF_ERROR(CheckFreeSpace(options_));
  ManifestChange change(pair_.get());
  EPIC_RETURN_IF_ERROR(change.Put(key, EncodeDocumentRecord(document)));
  EPIC_RETURN_IF_ERROR(change.Put(ManifestKey(ManifestKeyKind::kIndex, {document.tenant, document.id}),
                                  EncodeDocumentHeader(HeaderOf(document))));
  if (chunks != nullptr) {
    EPIC_RETURN_IF_ERROR(
        change.Put(ManifestKey(ManifestKeyKind::kChunkList,
                               {document.tenant, document.id, chunks->model_fingerprint_hex, chunks->recipe.id}),
                   EncodeChunkListRecord(*chunks)));
  }
  EPIC_RETURN_IF_ERROR(pair_->Commit(change));
  ++document_count_;
  return true;
}

absl::StatusOr<DocumentRecord> RocksDbManifest::GetDocument(const std::string& tenant, const std::string& id) const {
  const absl::StatusOr<std::string> bytes = pair_->Get(ManifestKey(ManifestKeyKind::kDocument, {tenant, id}));
  if (absl::IsNotFound(bytes.status())) {
    return absl::NotFoundError(fmt::format("there is no document {} of tenant {}", id, tenant));
  }
  EPIC_RETURN_IF_ERROR(bytes.status());
  return DecodeDocument(tenant, id, *bytes);
}

absl::StatusOr<std::vector<DocumentRecord>> RocksDbManifest::ListDocuments(const std::string& tenant,
                                                                           const std::string& after_id,
                                                                           int32_t limit) const {
  if (limit < 1)
    return absl::InvalidArgumentError(fmt::format("the limit of a listing is {}, expected 1 or more", limit));
  const std::string prefix = ManifestKey(ManifestKeyKind::kDocument, {tenant});
  const std::string after = after_id.empty() ? "" : ManifestKey(ManifestKeyKind::kDocument, {tenant, after_id});
  std::vector<DocumentRecord> documents;
  const auto visit = [&](std::string_view key, std::string_view value) -> absl::StatusOr<bool> {
    if (key == after) return true;
    const auto names = ParseManifestKey(ManifestKeyKind::kDocument, key);
    if (!names || names->size() != 2) return absl::DataLossError(fmt::format("unreadable key in {}", options_.folder));
    EPIC_ASSIGN_OR_RETURN(DocumentRecord document, DecodeDocument(tenant, (*names)[1], value));
    documents.push_back(std::move(document));
    return documents.size() < static_cast<size_t>(limit);
  };
  EPIC_RETURN_IF_ERROR(pair_->Scan(prefix, after.empty() ? prefix : after, visit));
  return documents;
}

absl::Status RocksDbManifest::DeleteDocument(const std::string& tenant, const std::string& id) {
  const std::string key = ManifestKey(ManifestKeyKind::kDocument, {tenant, id});
  const KeyedMutex::Lock lock(documents_, key);
  // A record that cannot be decoded can still be deleted.
  EPIC_RETURN_IF_ERROR(CheckDocument(tenant, id));
  ManifestChange change(pair_.get());
  for (const ManifestKeyKind kind : {ManifestKeyKind::kDocument, ManifestKeyKind::kIndex, ManifestKeyKind::kPin}) {
    EPIC_RETURN_IF_ERROR(change.Delete(ManifestKey(kind, {tenant, id})));
  }
  const std::string prefix = ManifestKey(ManifestKeyKind::kChunkList, {tenant, id});
  const auto delete_chunk_list = [&](std::string_view chunk_list_key, std::string_view) -> absl::StatusOr<bool> {
    EPIC_RETURN_IF_ERROR(change.Delete(std::string(chunk_list_key)));
    return true;
  };
  EPIC_RETURN_IF_ERROR(pair_->Scan(prefix, prefix, delete_chunk_list));
  EPIC_RETURN_IF_ERROR(pair_->Commit(change));
  --document_count_;
  return absl::OkStatus();
}

absl::Status RocksDbManifest::PutChunkList(const std::string& tenant, const std::string& id,
                                           const ChunkListRecord& chunks) {
  const KeyedMutex::Lock lock(documents_, ManifestKey(ManifestKeyKind::kDocument, {tenant, id}));
  const absl::Status found = CheckDocument(tenant, id);
  if (absl::IsNotFound(found)) {
    return absl::FailedPreconditionError(
        fmt::format("document {} of tenant {} is gone; its chunks are not stored", id, tenant));
  }
  EPIC_RETURN_IF_ERROR(found);
  EPIC_RETURN_IF_ERROR(CheckFreeSpace(options_));
  ManifestChange change(pair_.get());
  EPIC_RETURN_IF_ERROR(
      change.Put(ManifestKey(ManifestKeyKind::kChunkList, {tenant, id, chunks.model_fingerprint_hex, chunks.recipe.id}),
                 EncodeChunkListRecord(chunks)));
  return pair_->Commit(change);
}

absl::StatusOr<ChunkListRecord> RocksDbManifest::GetChunkList(const std::string& tenant, const std::string& id,
                                                              const std::string& model_fingerprint_hex,
                                                              const std::string& recipe_id) const {
  const absl::StatusOr<std::string> bytes =
      pair_->Get(ManifestKey(ManifestKeyKind::kChunkList, {tenant, id, model_fingerprint_hex, recipe_id}));
  if (absl::IsNotFound(bytes.status())) {
    return absl::NotFoundError(fmt::format("document {} of tenant {} has no chunks for model {} and recipe {}", id,
                                           tenant, model_fingerprint_hex, recipe_id));
  }
  EPIC_RETURN_IF_ERROR(bytes.status());
  absl::StatusOr<ChunkListRecord> record = DecodeChunkListRecord(*bytes);
  if (!record.ok()) return Annotate(record.status(), Where(tenant, id));
  return record;
}

absl::Status RocksDbManifest::ForEachChunkList(
    const std::string& model_fingerprint_hex,
    const std::function<absl::Status(const std::string& tenant, const std::string& id, const ChunkListRecord&)>& visit)
    const {
  const auto visit_record = [&](std::vector<std::string>& names, std::string_view value) {
    if (names[2] != model_fingerprint_hex) return absl::OkStatus();
    const absl::StatusOr<ChunkListRecord> record = DecodeChunkListRecord(value);
    if (!record.ok()) return Annotate(record.status(), Where(names[0], names[1]));
    return visit(names[0], names[1], *record);
  };
  return ForEach(ManifestKeyKind::kChunkList, {}, 4, visit_record);
}

absl::Status RocksDbManifest::ForEachChunkKey(const std::function<void(const ChunkKey&)>& visit) const {
  const auto visit_record = [&](std::vector<std::string>& names, std::string_view value) {
    const absl::StatusOr<ChunkListRecord> record = DecodeChunkListRecord(value);
    if (!record.ok()) return Annotate(record.status(), Where(names[0], names[1]));
    for (const ChunkKey& key : record->keys) visit(key);
    return absl::OkStatus();
  };
  return ForEach(ManifestKeyKind::kChunkList, {}, 4, visit_record);
}

absl::Status RocksDbManifest::SetPinned(const std::string& tenant, const std::string& id, bool pinned) {
  const KeyedMutex::Lock lock(documents_, ManifestKey(ManifestKeyKind::kDocument, {tenant, id}));
  EPIC_RETURN_IF_ERROR(pair_->CheckWritable());
  EPIC_ASSIGN_OR_RETURN(const bool is_pinned, IsPinned(tenant, id));
  if (is_pinned == pinned) return absl::OkStatus();
  ManifestChange change(pair_.get());
  std::string key = ManifestKey(ManifestKeyKind::kPin, {tenant, id});
  EPIC_RETURN_IF_ERROR(pinned ? change.Put(std::move(key), {}) : change.Delete(std::move(key)));
  return pair_->Commit(change);
}

absl::StatusOr<bool> RocksDbManifest::IsPinned(const std::string& tenant, const std::string& id) const {
  EPIC_RETURN_IF_ERROR(CheckDocument(tenant, id));
  const absl::Status status = pair_->Get(ManifestKey(ManifestKeyKind::kPin, {tenant, id})).status();
  if (absl::IsNotFound(status)) return false;
  EPIC_RETURN_IF_ERROR(status);
  return true;
}

absl::Status RocksDbManifest::ForEachPinned(
    const std::function<absl::Status(const std::string& tenant, const std::string& id)>& visit) const {
  return ForEach(ManifestKeyKind::kPin, {}, 2,
                 [&](std::vector<std::string>& names, std::string_view) { return visit(names[0], names[1]); });
}

absl::Status RocksDbManifest::ForEachDocumentHeader(
    const std::function<absl::Status(const DocumentHeader&)>& visit) const {
  const auto visit_record = [&](std::vector<std::string>& names, std::string_view value) {
    const absl::StatusOr<DocumentHeader> header = DecodeDocumentHeader(std::move(names[0]), std::move(names[1]), value);
    return header.ok() ? visit(*header) : Annotate(header.status(), options_.folder);
  };
  return ForEach(ManifestKeyKind::kIndex, {}, 2, visit_record);
}

ManifestCounters RocksDbManifest::counters() const {
  ManifestCounters counters = pair_->counters();
  counters.repairs_at_open_total = repair_count_;
  return counters;
}

// `path` as it is on the disk, as far as it is there.
absl::StatusOr<std::filesystem::path> Resolve(const std::string& path) {
  std::error_code error;
  std::filesystem::path resolved = std::filesystem::weakly_canonical(path, error);
  if (error) return absl::PermissionDeniedError(fmt::format("cannot look at {}: {}", path, error.message()));
  return resolved / "";
}

absl::Status CheckFoldersApart(const ManifestOptions& options) {
  EPIC_ASSIGN_OR_RETURN(const std::filesystem::path folder, Resolve(options.folder));
  EPIC_ASSIGN_OR_RETURN(const std::filesystem::path copy_folder, Resolve(options.copy_folder));
  const std::string a = folder.string();
  const std::string b = copy_folder.string();
  if (!a.starts_with(b) && !b.starts_with(a)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("the manifest's folder {} and that of its copy {} are the same or one lies in the other; choose two "
                  "that are apart",
                  options.folder, options.copy_folder));
}

void FillDefaults(ManifestOptions* options) {
  if (options->copy_folder.empty()) options->copy_folder = DefaultManifestCopyFolder(options->folder);
  if (!options->warn) options->warn = [](const std::string& line) { spdlog::warn("{}", line); };
}

// The databases of both folders as they were seen, the locks going over to them one after the other, so that at every
// moment one of the two folders is locked.
absl::StatusOr<std::unique_ptr<ManifestPair>> OpenPair(const ManifestOptions& options, const ManifestCopyView& seen,
                                                       ManifestLocks locks) {
  ManifestCopyView seen_copy = seen;
  seen_copy.folder = options.copy_folder;
  locks.primary.reset();
  EPIC_ASSIGN_OR_RETURN(std::unique_ptr<rocksdb::DB> primary, OpenAsSeen(seen, options.env));
  locks.copy.reset();
  EPIC_ASSIGN_OR_RETURN(std::unique_ptr<rocksdb::DB> copy, OpenAsSeen(seen_copy, options.env));
  return std::make_unique<ManifestPair>(ManifestPair::Side{options.folder, std::move(primary)},
                                        ManifestPair::Side{options.copy_folder, std::move(copy)}, seen.state,
                                        options.warn);
}

// The first change of an opening; of a new manifest it holds the format version.
absl::Status BeginEpoch(const ManifestCopyView& seen, ManifestPair* pair) {
  ManifestChange change(pair);
  if (seen.condition == ManifestCopyView::Condition::kAbsent) {
    ByteWriter version;
    version.Put(kManifestFormatVersion);
    EPIC_RETURN_IF_ERROR(change.Put(ManifestKey(ManifestKeyKind::kFormatVersion, {}), version.bytes()));
  }
  return pair->BeginEpoch(change);
}

}  // namespace

std::string DefaultManifestCopyFolder(const std::string& folder) {
  std::filesystem::path path(folder);
  if (!path.has_filename()) path = path.parent_path();
  return path.string() + "-copy";
}

absl::StatusOr<std::unique_ptr<Manifest>> Manifest::Open(ManifestOptions options) {
  FillDefaults(&options);
  EPIC_RETURN_IF_ERROR(PrepareFolder(options.folder));
  EPIC_RETURN_IF_ERROR(CheckFoldersApart(options));
  EPIC_ASSIGN_OR_RETURN(ManifestLocks locks, LockManifest(options.folder, options.copy_folder, options.env));
  int64_t repair_count = 0;
  const auto warn = [&](const std::string& line) {
    ++repair_count;
    options.warn(line);
  };
  EPIC_ASSIGN_OR_RETURN(ManifestCopyView seen,
                        RecoverManifest(options.folder, options.copy_folder, options.env, warn, &locks));
  EPIC_RETURN_IF_ERROR(PrepareFolder(options.copy_folder));
  if (seen.condition == ManifestCopyView::Condition::kAbsent) seen.state.identity = NewManifestIdentity();
  EPIC_ASSIGN_OR_RETURN(std::unique_ptr<ManifestPair> pair, OpenPair(options, seen, std::move(locks)));
  EPIC_RETURN_IF_ERROR(BeginEpoch(seen, pair.get()));
  return std::make_unique<RocksDbManifest>(std::move(options), std::move(pair), seen.document_count, repair_count);
}

absl::StatusOr<std::unique_ptr<Manifest>> Manifest::Open(const std::string& folder) {
  ManifestOptions options;
  options.folder = folder;
  return Open(std::move(options));
}

}  // namespace epic
