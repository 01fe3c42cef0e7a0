// One copy of the manifest as a RocksDB database: its options, its lock, and a look at it that changes nothing.
//
// Functions are thread-safe for different folders. `env` is not owned and outlives what is opened with it; nullptr is
// the system's.
#ifndef EPIC_STORAGE_MANIFEST_DATABASE_H_
#define EPIC_STORAGE_MANIFEST_DATABASE_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "rocksdb/db.h"
#include "rocksdb/env.h"
#include "storage/manifest_recovery.h"

namespace epic {

inline rocksdb::Slice AsSlice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }
inline std::string_view AsView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

// The lock that RocksDB takes when it opens a database, taken for work on the files before that. Released at the end.
class FolderLock {
 public:
  // FAILED_PRECONDITION where a process has it, PERMISSION_DENIED where it may not be taken.
  static absl::StatusOr<std::unique_ptr<FolderLock>> Take(const std::string& folder, rocksdb::Env* env);
  // Makes no file: gives nothing where the folder was never opened.
  static absl::StatusOr<std::unique_ptr<FolderLock>> TakeIfThere(const std::string& folder, rocksdb::Env* env);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  FolderLock(rocksdb::Env* env, rocksdb::FileLock* lock) : env_(env), lock_(lock) {}
  rocksdb::Env* const env_;
  rocksdb::FileLock* const lock_;
};

// Makes the folder where it is missing. PERMISSION_DENIED naming it where it cannot be written, RESOURCE_EXHAUSTED
// where the disk is full.
absl::Status PrepareFolder(const std::string& folder);

// Makes the database where there is none. Takes the folder's lock. Each flush is noted in the sequence file.
absl::StatusOr<std::unique_ptr<rocksdb::DB>> OpenForWriting(const std::string& folder, rocksdb::Env* env);
// Writes nothing into the folder, neither a log of its own. `complaints` gets what RocksDB would have logged. The
// caller holds the lock.
absl::StatusOr<std::unique_ptr<rocksdb::DB>> OpenForReading(const std::string& folder, rocksdb::Env* env,
                                                            std::string* complaints);

using RecordVisitor = std::function<void(std::string_view key, std::string_view value)>;

// Reads every record of the copy in `folder`, and changes nothing. The caller holds the lock, where there is one.
// `visit` is called for each record, in the order of keys, until damage is met; it may be empty. An error is only
// what says nothing about the contents: PERMISSION_DENIED.
absl::StatusOr<ManifestCopyView> InspectManifestCopy(const std::string& folder, rocksdb::Env* env,
                                                     const RecordVisitor& visit = {});

}  // namespace epic

#endif  // EPIC_STORAGE_MANIFEST_DATABASE_H_
