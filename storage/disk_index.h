// Where the disk tier's blocks lie: a small RocksDB database, chunk key to range.
//
// The write-ahead log is handed to the system with every change and never synced: changes survive kill -9; power loss
// may take the latest ones. A damaged index is thrown away whole and begins anew: the blocks can be compiled again.
//
// A database whose write failed is not written to again (RocksDB 7.8 resumes with a log that has seen an error, and a
// build with assertions aborts): the next change opens it anew. Where the disk is nearly full, changes are refused
// before RocksDB meets the end of it. Thread-safe.
#ifndef EPIC_STORAGE_DISK_INDEX_H_
#define EPIC_STORAGE_DISK_INDEX_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/chunk_key.h"
#include "core/sync.h"

namespace rocksdb {
class DB;
class WriteBatch;
}  // namespace rocksdb

namespace epic {

struct DiskIndexEntry {
  uint32_t segment = 0;  // the number in its file's name
  uint64_t offset = 0;
  uint64_t block_bytes = 0;
  uint64_t edition = 0;
  uint64_t header_checksum = 0;  // XXH3-64 of the block's header
  double recompile_cost_us = 0;
  uint64_t sequence = 0;  // grows with every write

  friend bool operator==(const DiskIndexEntry&, const DiskIndexEntry&) = default;
};

class DiskIndex {
 public:
  struct Contents {
    std::unique_ptr<DiskIndex> index;
    std::vector<std::pair<ChunkKey, DiskIndexEntry>> entries;  // in the order of their keys
    size_t unreadable_entries = 0;                             // of a wrong size; they were erased
    std::string damage;  // what was wrong with the index that was thrown away; empty where none was
  };
  // Opens or creates it, and reads all of it. RESOURCE_EXHAUSTED, PERMISSION_DENIED and UNAVAILABLE where the fault is
  // the system's and not the files'. `write_buffer_bytes` bounds the log and the memory. REQUIRES: nobody else has it
  // open.
  static absl::StatusOr<Contents> Open(const std::string& folder, size_t write_buffer_bytes);
  // What is in it, read without changing anything; damage is in `damage`, and `index` is null. The caller holds the
  // tier's lock.
  static Contents Look(const std::string& folder);
  ~DiskIndex();
  DiskIndex(const DiskIndex&) = delete;
  DiskIndex& operator=(const DiskIndex&) = delete;

  // What must be free on the disk for a change: a log, a table and a compaction.
  static constexpr size_t FreeBytesMin(size_t write_buffer_bytes) { return 4 * write_buffer_bytes; }

  // RESOURCE_EXHAUSTED where the disk is nearly full, else UNAVAILABLE. The next call tries again.
  absl::Status Put(const ChunkKey& key, const DiskIndexEntry& entry);
  // All of them or none; absent ones do no harm.
  absl::Status Erase(std::span<const ChunkKey> keys);
  // Rewrites it without what was erased. Returns the bytes of its tables before and after.
  absl::StatusOr<std::pair<uint64_t, uint64_t>> Compact();

 private:
  DiskIndex(std::string folder, size_t write_buffer_bytes, std::unique_ptr<rocksdb::DB> database);
  static absl::Status ReadAll(rocksdb::DB& database, Contents* contents, rocksdb::WriteBatch* unreadable);
  absl::Status ReadAll(Contents* contents);
  absl::Status Write(rocksdb::WriteBatch& batch);
  // Enters a writer, after opening the database anew where that is due.
  absl::Status Enter();
  void Leave(bool written);

  const std::string folder_;
  const size_t write_buffer_bytes_;
  std::unique_ptr<rocksdb::DB> database_;  // used by writers; replaced while there are none

  Mutex mutex_;  // protects who may use the database
  CondVar changed_;
  int writers_ EPIC_GUARDED_BY(mutex_) = 0;
  bool failed_ EPIC_GUARDED_BY(mutex_) = false;
  bool reopening_ EPIC_GUARDED_BY(mutex_) = false;
};

}  // namespace epic

#endif  // EPIC_STORAGE_DISK_INDEX_H_
