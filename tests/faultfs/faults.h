// Faults on demand, by a control file that tests may replace at any moment. A line each:
//
//   read every PATTERN      reads of files whose path matches fail with EIO
//   read nth N PATTERN      the N-th read alone does (counted from 1, from when the file was read)
//   read after N PATTERN    every read behind the first N does
//   sync every|nth N|after N PATTERN    the same for fsync and fdatasync, of folders too
//   space BYTES             so many bytes can be written yet, into all files together; then the disk is full. Nothing
//                           that is deleted gives space back. statvfs and fstatvfs say what is left
//
// PATTERN is a shell pattern over the path below the watched folder ("." for that folder itself); `*` matches `/` too.
// The first rule that fails an operation decides; every rule counts the operations that match it.
#ifndef EPIC_TESTS_FAULTFS_FAULTS_H_
#define EPIC_TESTS_FAULTFS_FAULTS_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "core/sync.h"

namespace epic::faultfs {

enum class Operation { kRead, kSync };

// What a control file asks for, with what it has counted so far. Not thread-safe.
class Rules {
 public:
  // Nothing where a line cannot be understood, which is then in `error`.
  static std::optional<Rules> Parse(std::string_view text, std::string* error);

  // Whether this operation fails. Counts it.
  bool Fails(Operation operation, const std::string& path);
  // Bytes of these that may be written; takes them from the space that is left.
  int64_t TakeSpace(int64_t bytes);
  bool HasSpaceFor(int64_t bytes) const { return !space_bytes_ || bytes <= *space_bytes_; }
  // What is left; nothing where there is no limit.
  std::optional<int64_t> space_bytes() const { return space_bytes_; }

 private:
  enum class When { kEvery, kNth, kAfter };
  struct Rule {
    Operation operation;
    When when;
    int64_t number;
    std::string pattern;
    int64_t seen = 0;
  };

  std::vector<Rule> rules_;
  std::optional<int64_t> space_bytes_;
};

// The rules of the control file as it is now. Thread-safe. A control file that cannot be understood ends the process;
// one that is not there asks for nothing. Every fault that was injected becomes a line `KIND PATH` in the file beside
// it that ends in `.injected`.
class Faults {
 public:
  explicit Faults(std::string control_path) : control_path_(std::move(control_path)) {}

  bool Fails(Operation operation, const std::string& path);
  // As in Rules; `path` is for the record.
  int64_t TakeSpace(int64_t bytes, const std::string& path);
  bool HasSpaceFor(int64_t bytes, const std::string& path);
  std::optional<int64_t> SpaceBytes();

 private:
  // Device aside: inode, time of change in seconds and nanoseconds, size.
  using FileState = std::tuple<ino_t, int64_t, int64_t, off_t>;

  void ReadAgainIfChanged() EPIC_REQUIRES(mutex_);
  void Record(const char* kind, const std::string& path) EPIC_REQUIRES(mutex_);

  const std::string control_path_;
  Mutex mutex_;
  std::optional<FileState> state_ EPIC_GUARDED_BY(mutex_);
  Rules rules_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace epic::faultfs

#endif  // EPIC_TESTS_FAULTFS_FAULTS_H_
