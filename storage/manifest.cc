#include "storage/manifest.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "core/byte_codec.h"
#include "core/status_macros.h"
#include "fmt/format.h"
#include "rocksdb/db.h"
#include "rocksdb/env.h"
#include "rocksdb/listener.h"
#include "rocksdb/write_batch.h"
#include "storage/keyed_mutex.h"
#include "storage/manifest_keys.h"
#include "storage/rocksdb_status.h"
#include "storage/sequence_file.h"

namespace epic {
namespace {

constexpr uint32_t kFormatVersion = 1;
// Small, so that a restart replays little: a few of the largest documents.
constexpr size_t kWriteBufferBytes = size_t{16} << 20;
constexpr uint64_t kWriteAheadLogBytesMax = uint64_t{32} << 20;

rocksdb::Slice AsSlice(const std::string& bytes) { return {bytes.data(), bytes.size()}; }
std::string_view AsView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

// The same status with where it happened in front.
absl::Status Annotate(const absl::Status& status, const std::string& where) {
  if (status.ok()) return status;
  return absl::Status(status.code(), fmt::format("{}: {}", where, std::string(status.message())));
}

// Notes each flush in the sequence file. That write may fail without harm: the older number stays true, and the guard
// only reaches less far.
class FlushListener : public rocksdb::EventListener {
 public:
  explicit FlushListener(std::string folder) : folder_(std::move(folder)) {}
  void OnFlushCompleted(rocksdb::DB* /*db*/, const rocksdb::FlushJobInfo& info) override {
    WriteSequenceFile(folder_, info.largest_seqno).IgnoreError();
  }

 private:
  const std::string folder_;
};

rocksdb::Options DatabaseOptions() {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.paranoid_checks = true;
  options.write_buffer_size = kWriteBufferBytes;
  options.max_total_wal_size = kWriteAheadLogBytesMax;
  // A write that was cut off by a crash was not acknowledged and may go; damage anywhere else stops the opening. The
  // default would drop everything behind the damage in silence.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.track_and_verify_wals_in_manifest = true;
  options.verify_sst_unique_id_in_manifest = true;
  options.max_open_files = 64;
  options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  options.max_log_file_size = size_t{1} << 20;
  options.keep_log_file_num = 2;
  return options;
}

absl::Status PrepareFolder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error && access(folder.c_str(), R_OK | W_OK | X_OK) != 0) error = {errno, std::generic_category()};
  if (!error) return absl::OkStatus();
  const std::string message = fmt::format("data directory {} cannot be written: {}", folder, error.message());
  if (error == std::errc::no_space_on_device) return absl::ResourceExhaustedError(message);
  return absl::PermissionDeniedError(message + "; choose a directory that this user may write");
}

// The lock that RocksDB takes when it opens a database, taken for a look at the files before that.
class FolderLock {
 public:
  static absl::StatusOr<std::unique_ptr<FolderLock>> Take(const std::string& folder) {
    rocksdb::FileLock* lock = nullptr;
    const rocksdb::Status status = rocksdb::Env::Default()->LockFile(folder + "/LOCK", &lock);
    if (!status.ok()) return FromRocksDbOpen(status, folder);
    return std::unique_ptr<FolderLock>(new FolderLock(lock));
  }
  ~FolderLock() { rocksdb::Env::Default()->UnlockFile(lock_).PermitUncheckedError(); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  explicit FolderLock(rocksdb::FileLock* lock) : lock_(lock) {}
  rocksdb::FileLock* const lock_;
};

absl::Status Damaged(const std::string& folder, const std::string& what) {
  return absl::DataLossError(fmt::format(
      "the manifest in {} is damaged: {}; nothing was changed: restore the folder from a copy", folder, what));
}

// OK as well where the database is so new that its version was not written yet.
absl::Status CheckFormatVersion(rocksdb::DB& database, const std::string& folder) {
  std::string value;
  const rocksdb::Status status =
      database.Get(rocksdb::ReadOptions(), AsSlice(ManifestKey(ManifestKeyKind::kFormatVersion, {})), &value);
  if (status.IsNotFound()) {
    const std::unique_ptr<rocksdb::Iterator> iterator(database.NewIterator(rocksdb::ReadOptions()));
    iterator->SeekToFirst();
    return iterator->Valid() ? Damaged(folder, "it has no format version") : FromRocksDb(iterator->status(), folder);
  }
  EPIC_RETURN_IF_ERROR(FromRocksDb(status, folder));
  ByteReader reader(value);
  const auto version = reader.Get<uint32_t>();
  if (!reader.ok() || reader.remaining() != 0 || version == 0) {
    return Damaged(folder, "its format version cannot be read");
  }
  if (version > kFormatVersion) {
    return absl::FailedPreconditionError(fmt::format(
        "the manifest in {} has format version {}, this program reads up to {}: it was written by a newer EPIC; "
        "use that one or another data directory",
        folder, version, kFormatVersion));
  }
  return absl::OkStatus();
}

// Whether there is a sound manifest of our version, or none at all. Opens the database for reading only, because to
// open it for writing deletes files that a damaged one no longer names, and a newer version's files are not ours to
// touch.
absl::Status CheckFolder(const std::string& folder) {
  EPIC_ASSIGN_OR_RETURN(const std::unique_ptr<FolderLock> lock, FolderLock::Take(folder));
  EPIC_ASSIGN_OR_RETURN(const std::optional<uint64_t> durable_sequence, ReadSequenceFile(folder));
  std::error_code error;
  if (!std::filesystem::exists(folder + "/CURRENT", error)) {
    bool has_history = durable_sequence.has_value();
    for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
      has_history = has_history || entry.path().extension() == ".sst";
    }
    return has_history ? Damaged(folder, "the file CURRENT is gone") : absl::OkStatus();
  }
  rocksdb::DB* raw_database = nullptr;
  const rocksdb::Status status = rocksdb::DB::OpenForReadOnly(DatabaseOptions(), folder, &raw_database);
  const std::unique_ptr<rocksdb::DB> database(raw_database);
  if (!status.ok()) return FromRocksDbOpen(status, folder);
  const uint64_t found_sequence = database->GetLatestSequenceNumber();
  if (found_sequence < durable_sequence.value_or(0)) {
    return Damaged(folder,
                   fmt::format("it ends at change {}, but change {} had been stored: a file was cut short or is an "
                               "old copy",
                               found_sequence, *durable_sequence));
  }
  return CheckFormatVersion(*database, folder);
}

class RocksDbManifest final : public Manifest {
 public:
  RocksDbManifest(std::string folder, std::unique_ptr<rocksdb::DB> database)
      : folder_(std::move(folder)), database_(std::move(database)) {}
  ~RocksDbManifest() override;

  // Writes the format version into a new database, notes the sequence and counts the documents.
  absl::Status Start();

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
  absl::StatusOr<int64_t> CountDocuments() const override { return document_count_.load(); }

 private:
  absl::Status Write(rocksdb::WriteBatch& batch);
  // The record's bytes, or NOT_FOUND.
  absl::StatusOr<std::string> Read(const std::string& key) const;
  absl::StatusOr<DocumentRecord> DecodeDocument(const std::string& tenant, const std::string& id,
                                                std::string_view bytes) const;
  // Calls `visit(key, value)` for each key with this beginning, from `start` on, until it gives false or an error.
  absl::Status Scan(const std::string& prefix, const std::string& start,
                    const std::function<absl::StatusOr<bool>(std::string_view, std::string_view)>& visit) const;
  std::string Where(const std::string& tenant, const std::string& id) const {
    return fmt::format("document {} of tenant {} in {}", id, tenant, folder_);
  }

  const std::string folder_;
  const std::unique_ptr<rocksdb::DB> database_;
  KeyedMutex documents_;  // held by whoever changes a document, from its look to its write
  std::atomic<int64_t> document_count_{0};
};

RocksDbManifest::~RocksDbManifest() {
  // From here on even a log that is cut short is noticed. As in the listener, failing does no harm.
  const uint64_t sequence = database_->GetLatestSequenceNumber();
  if (database_->Close().ok()) WriteSequenceFile(folder_, sequence).IgnoreError();
}

absl::Status RocksDbManifest::Start() {
  const std::string version_key = ManifestKey(ManifestKeyKind::kFormatVersion, {});
  if (const absl::Status held = Read(version_key).status(); absl::IsNotFound(held)) {
    ByteWriter writer;
    writer.Put(kFormatVersion);
    rocksdb::WriteBatch batch;
    batch.Put(AsSlice(version_key), AsSlice(writer.bytes()));
    EPIC_RETURN_IF_ERROR(Write(batch));
  } else {
    EPIC_RETURN_IF_ERROR(held);
  }
  EPIC_RETURN_IF_ERROR(WriteSequenceFile(folder_, database_->GetLatestSequenceNumber()));
  const std::string prefix = ManifestKey(ManifestKeyKind::kIndex, {});
  int64_t count = 0;
  EPIC_RETURN_IF_ERROR(Scan(prefix, prefix, [&](std::string_view, std::string_view) -> absl::StatusOr<bool> {
    ++count;
    return true;
  }));
  document_count_ = count;
  return absl::OkStatus();
}

absl::Status RocksDbManifest::Write(rocksdb::WriteBatch& batch) {
  rocksdb::WriteOptions options;
  options.sync = true;
  return FromRocksDb(database_->Write(options, &batch), folder_);
}

absl::StatusOr<std::string> RocksDbManifest::Read(const std::string& key) const {
  std::string value;
  const rocksdb::Status status = database_->Get(rocksdb::ReadOptions(), AsSlice(key), &value);
  if (status.IsNotFound()) return absl::NotFoundError("no such record");
  EPIC_RETURN_IF_ERROR(FromRocksDb(status, folder_));
  return value;
}

absl::Status RocksDbManifest::Scan(
    const std::string& prefix, const std::string& start,
    const std::function<absl::StatusOr<bool>(std::string_view, std::string_view)>& visit) const {
  const std::unique_ptr<rocksdb::Iterator> iterator(database_->NewIterator(rocksdb::ReadOptions()));
  for (iterator->Seek(AsSlice(start)); iterator->Valid() && iterator->key().starts_with(AsSlice(prefix));
       iterator->Next()) {
    EPIC_ASSIGN_OR_RETURN(const bool more, visit(AsView(iterator->key()), AsView(iterator->value())));
    if (!more) break;
  }
  return FromRocksDb(iterator->status(), folder_);
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
  const absl::StatusOr<DocumentRecord> held = GetDocument(document.tenant, document.id);
  if (held.ok()) {
    if (held->SameContent(document)) return false;
    return absl::AlreadyExistsError(
        fmt::format("document {} of tenant {} exists already with other content; delete it first or choose another id",
                    document.id, document.tenant));
  }
  if (!absl::IsNotFound(held.status())) return held.status();
  rocksdb::WriteBatch batch;
  batch.Put(AsSlice(key), AsSlice(EncodeDocumentRecord(document)));
  batch.Put(AsSlice(ManifestKey(ManifestKeyKind::kIndex, {document.tenant, document.id})), {});
  if (chunks != nullptr) {
    batch.Put(AsSlice(ManifestKey(ManifestKeyKind::kChunkList,
                                  {document.tenant, document.id, chunks->model_fingerprint_hex, chunks->recipe.id})),
              AsSlice(EncodeChunkListRecord(*chunks)));
  }
  EPIC_RETURN_IF_ERROR(Write(batch));
  ++document_count_;
  return true;
}

absl::StatusOr<DocumentRecord> RocksDbManifest::GetDocument(const std::string& tenant, const std::string& id) const {
  const absl::StatusOr<std::string> bytes = Read(ManifestKey(ManifestKeyKind::kDocument, {tenant, id}));
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
    if (!names || names->size() != 2) return absl::DataLossError(fmt::format("unreadable key in {}", folder_));
    EPIC_ASSIGN_OR_RETURN(DocumentRecord document, DecodeDocument(tenant, (*names)[1], value));
    documents.push_back(std::move(document));
    return documents.size() < static_cast<size_t>(limit);
  };
  EPIC_RETURN_IF_ERROR(Scan(prefix, after.empty() ? prefix : after, visit));
  return documents;
}

absl::Status RocksDbManifest::DeleteDocument(const std::string& tenant, const std::string& id) {
  const std::string key = ManifestKey(ManifestKeyKind::kDocument, {tenant, id});
  const KeyedMutex::Lock lock(documents_, key);
  // A record that cannot be decoded can still be deleted.
  const absl::StatusOr<std::string> held = Read(key);
  if (absl::IsNotFound(held.status())) {
    return absl::NotFoundError(fmt::format("there is no document {} of tenant {}", id, tenant));
  }
  EPIC_RETURN_IF_ERROR(held.status());
  rocksdb::WriteBatch batch;
  batch.Delete(AsSlice(key));
  batch.Delete(AsSlice(ManifestKey(ManifestKeyKind::kIndex, {tenant, id})));
  const std::string prefix = ManifestKey(ManifestKeyKind::kChunkList, {tenant, id});
  EPIC_RETURN_IF_ERROR(
      Scan(prefix, prefix, [&](std::string_view chunk_list_key, std::string_view) -> absl::StatusOr<bool> {
        batch.Delete(rocksdb::Slice(chunk_list_key.data(), chunk_list_key.size()));
        return true;
      }));
  EPIC_RETURN_IF_ERROR(Write(batch));
  --document_count_;
  return absl::OkStatus();
}

absl::Status RocksDbManifest::PutChunkList(const std::string& tenant, const std::string& id,
                                           const ChunkListRecord& chunks) {
  const KeyedMutex::Lock lock(documents_, ManifestKey(ManifestKeyKind::kDocument, {tenant, id}));
  const absl::StatusOr<std::string> index = Read(ManifestKey(ManifestKeyKind::kIndex, {tenant, id}));
  if (absl::IsNotFound(index.status())) {
    return absl::FailedPreconditionError(
        fmt::format("document {} of tenant {} is gone; its chunks are not stored", id, tenant));
  }
  EPIC_RETURN_IF_ERROR(index.status());
  rocksdb::WriteBatch batch;
  batch.Put(
      AsSlice(ManifestKey(ManifestKeyKind::kChunkList, {tenant, id, chunks.model_fingerprint_hex, chunks.recipe.id})),
      AsSlice(EncodeChunkListRecord(chunks)));
  return Write(batch);
}

absl::StatusOr<ChunkListRecord> RocksDbManifest::GetChunkList(const std::string& tenant, const std::string& id,
                                                              const std::string& model_fingerprint_hex,
                                                              const std::string& recipe_id) const {
  const absl::StatusOr<std::string> bytes =
      Read(ManifestKey(ManifestKeyKind::kChunkList, {tenant, id, model_fingerprint_hex, recipe_id}));
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
  const std::string prefix = ManifestKey(ManifestKeyKind::kChunkList, {});
  return Scan(prefix, prefix, [&](std::string_view key, std::string_view value) -> absl::StatusOr<bool> {
    const auto names = ParseManifestKey(ManifestKeyKind::kChunkList, key);
    if (!names || names->size() != 4) return absl::DataLossError(fmt::format("unreadable key in {}", folder_));
    const std::string& tenant = (*names)[0];
    const std::string& id = (*names)[1];
    if ((*names)[2] != model_fingerprint_hex) return true;
    const absl::StatusOr<ChunkListRecord> record = DecodeChunkListRecord(value);
    if (!record.ok()) return Annotate(record.status(), Where(tenant, id));
    EPIC_RETURN_IF_ERROR(visit(tenant, id, *record));
    return true;
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Manifest>> Manifest::Open(const std::string& folder) {
  EPIC_RETURN_IF_ERROR(PrepareFolder(folder));
  EPIC_RETURN_IF_ERROR(CheckFolder(folder));
  rocksdb::Options options = DatabaseOptions();
  options.listeners.push_back(std::make_shared<FlushListener>(folder));
  rocksdb::DB* raw_database = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, folder, &raw_database);
  std::unique_ptr<rocksdb::DB> database(raw_database);
  if (!status.ok()) return FromRocksDbOpen(status, folder);
  auto manifest = std::make_unique<RocksDbManifest>(folder, std::move(database));
  EPIC_RETURN_IF_ERROR(manifest->Start());
  return manifest;
}

}  // namespace epic
