// Two databases that get the same changes in the same order: the manifest's folder and its copy.
//
// A change is done when both have it on stable storage. Changes that come together are merged into one batch and cost
// two syncs for all of them (group commit: whoever finds nobody writing writes for all who wait). Once a write failed,
// nobody knows which of the two has it; then no further change is taken until the pair is opened anew, which makes the
// two equal. Reads go on, and what one database cannot read is answered by the other one.
//
// Thread-safe, but changes of one record need the caller's own exclusion.
#ifndef EPIC_STORAGE_MANIFEST_PAIR_H_
#define EPIC_STORAGE_MANIFEST_PAIR_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/sync.h"
#include "rocksdb/db.h"
#include "storage/manifest_options.h"
#include "storage/manifest_state.h"

namespace epic {

// Writers that may wait for the disk at the same time, each on its own thread.
inline constexpr size_t kManifestWaitingChangesMax = 1024;
// A group takes no further change beyond this size, so that the first of it does not wait for a whole burst.
inline constexpr size_t kManifestGroupBytesMax = size_t{4} << 20;

class ManifestPair;

// Records to put and to delete, all or none.
class ManifestChange {
 public:
  // `pair` is not owned. It is read for what the change replaces: whoever makes a change excludes others of the same
  // records until it is committed.
  explicit ManifestChange(const ManifestPair* pair) : pair_(pair) {}
  // Each record at most once in a change. DATA_LOSS or UNAVAILABLE where the old record cannot be read.
  absl::Status Put(std::string key, std::string value);
  absl::Status Delete(std::string key);

 private:
  friend class ManifestPair;
  struct Edit {
    std::string key;
    std::string value;
    bool is_delete = false;
  };
  absl::Status Forget(const std::string& key);

  const ManifestPair* const pair_;
  std::vector<Edit> edits_;
  size_t bytes_ = 0;
  // What the change adds to the state, modulo 2^64.
  uint64_t record_count_ = 0;
  uint64_t digest_ = 0;
};

class ManifestPair {
 public:
  struct Side {
    std::string folder;
    std::unique_ptr<rocksdb::DB> database;
  };

  // REQUIRES: both hold the same records and end at the same change. `warn` gets a line of text for each read that met
  // damage and for the failure that stops the changes; it is called on any thread.
  ManifestPair(Side primary, Side copy, const ManifestState& state, std::function<void(const std::string&)> warn);
  ~ManifestPair();

  // Blocks until the change is on both disks. RESOURCE_EXHAUSTED where a disk is full or too many wait, UNAVAILABLE for
  // other I/O errors; after an error the change may be there after the next opening, or not.
  absl::Status Commit(const ManifestChange& change);
  // OK as long as changes are taken; else why not.
  absl::Status CheckWritable() const;
  // The first change of an opening. Begins an epoch, and notes in both folders how far they go. Called once, before all
  // other changes.
  absl::Status BeginEpoch(const ManifestChange& change);

  absl::StatusOr<std::string> Get(std::string_view key) const;  // NOT_FOUND where absent
  // Calls `visit(key, value)` for each key with this beginning, from `start` on, until it gives false or an error.
  absl::Status Scan(std::string_view prefix, std::string_view start,
                    const std::function<absl::StatusOr<bool>(std::string_view, std::string_view)>& visit) const;

  // Bytes of the tables of both, before and after they were rewritten without what was deleted.
  absl::StatusOr<std::pair<uint64_t, uint64_t>> Compact();
  ManifestCounters counters() const;  // all but the repairs

 private:
  struct Waiting {
    const ManifestChange* change = nullptr;
    bool done = false;
    absl::Status status;
  };
  absl::Status WriteGroup(const std::vector<Waiting*>& group, const ManifestState& state);
  absl::Status Stopped(const absl::Status& cause) const;
  void NoteUnreadable(const absl::Status& status, std::string_view key) const;

  const Side primary_;
  const Side copy_;
  const std::function<void(const std::string&)> warn_;
  mutable std::atomic<int64_t> reads_from_copy_total_{0};

  mutable Mutex mutex_;  // protects the queue and what its head leaves behind
  CondVar group_done_;
  std::deque<Waiting*> waiting_ EPIC_GUARDED_BY(mutex_);
  bool writing_ EPIC_GUARDED_BY(mutex_) = false;
  absl::Status stopped_ EPIC_GUARDED_BY(mutex_);
  ManifestState state_ EPIC_GUARDED_BY(mutex_);
  ManifestCounters counters_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace epic

#endif  // EPIC_STORAGE_MANIFEST_PAIR_H_
