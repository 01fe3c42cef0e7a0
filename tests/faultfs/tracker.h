// What this process has done to watched files since their last sync, and the rule for what becomes durable.
//
// The rule is that of the strictest file system that POSIX allows. Bytes of a file become durable by fsync or fdatasync
// of any descriptor of it, or by a write with O_DSYNC, O_SYNC, RWF_DSYNC or RWF_SYNC, which covers its own bytes alone.
// Names in a folder become durable by fsync of that folder. Nothing else makes anything durable: not close, rename,
// sync_file_range, msync, sync or O_DIRECT. What a failed sync was asked to make durable is lost for later syncs too,
// as on Linux, unless it is written again.
//
// A file is recognised by its identity (image.h), so that descriptors need no table: dup, fork and inheritance are
// covered. Of a file that this process sees for the first time everything counts as changed. A file must not be written
// by two processes at a time.
#ifndef EPIC_TESTS_FAULTFS_TRACKER_H_
#define EPIC_TESTS_FAULTFS_TRACKER_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "core/sync.h"
#include "tests/faultfs/byte_ranges.h"
#include "tests/faultfs/faults.h"
#include "tests/faultfs/image.h"

namespace epic::faultfs {

class WatchedFile {
 public:
  explicit WatchedFile(std::string identity) : id(std::move(identity)) {}

  void MarkChanged(int64_t begin, int64_t end);
  // For changes that cannot be seen one by one: from now on every sync looks at the whole file.
  void MarkChangedUnseen();
  // What changed, and begins anew.
  ByteRanges TakeChanged();

  const std::string id;
  Mutex sync_mutex;      // held while bytes are made durable: a sync returns when those under way are through
  Mutex position_mutex;  // held over a write at the descriptor's position, until that position is known

 private:
  Mutex mutex_;
  ByteRanges changed_ EPIC_GUARDED_BY(mutex_);
  bool changes_unseen_ EPIC_GUARDED_BY(mutex_) = false;
};

// One for the process. Thread-safe.
class Tracker {
 public:
  // From the environment: EPIC_FAULTFS_ROOT, EPIC_FAULTFS_IMAGE, which must exist, and EPIC_FAULTFS_CONTROL, which may
  // be unset. Null where EPIC_FAULTFS_ROOT is unset: nothing is watched.
  static Tracker* Get();

  // The file behind a descriptor; null where it is none that is watched.
  std::shared_ptr<WatchedFile> FileOf(int descriptor);
  std::shared_ptr<WatchedFile> FileAt(const char* path);

  // fsync of whatever the descriptor is. Nothing where it is not watched; else 0, or -1 and errno.
  std::optional<int> Sync(int descriptor);
  // Behind a write with O_DSYNC.
  void SyncRange(int descriptor, WatchedFile& file, int64_t begin, int64_t end);

  // Whether a read of this descriptor has to fail.
  bool ReadFails(int descriptor);
  // How many of these bytes may be written.
  int64_t TakeSpace(int descriptor, int64_t bytes);
  bool HasSpaceFor(int descriptor, int64_t bytes);
  // Bytes that can be written yet to the disk of this file or folder; nothing where there is no limit of ours.
  std::optional<int64_t> SpaceBytes(int descriptor);

  // Held while names are taken away or changed, and while a folder is listed: a file that is renamed in between would
  // be under neither name.
  Mutex& names_mutex() { return names_mutex_; }

 private:
  Tracker(std::string root, std::string image, const char* control_path);

  std::shared_ptr<WatchedFile> FileWithId(const std::string& id);
  // The path below the root, "." for the root itself; nothing where it lies elsewhere.
  std::optional<std::string> PathBelowRoot(int descriptor) const;

  const std::string root_;
  const Image image_;
  const std::unique_ptr<Faults> faults_;  // null without a control file
  Mutex names_mutex_;
  Mutex files_mutex_;
  std::unordered_map<std::string, std::shared_ptr<WatchedFile>> files_ EPIC_GUARDED_BY(files_mutex_);
};

}  // namespace epic::faultfs

#endif  // EPIC_TESTS_FAULTFS_TRACKER_H_
