// The durable image: what a disk would hold after power loss, kept in ordinary files beside the folder that is watched.
//
// Every file and folder that is watched has an identity of its own, in an extended attribute: it stays the same over
// renames, hard links and restarts, and is never used twice, which inode numbers are. The image is
//
//   bytes/ID   a file's bytes as of its last sync; not there where it was never synced
//   names/ID   a folder's names as of its last sync: a line `f ID NAME` for a file, `d ID NAME` for a folder
//
// and the watched folder itself has the identity `root`. Replacing a list of names is atomic; bytes are replaced in
// place and in ascending order, so that what was durable stays so when the writing process is killed in between.
//
// These functions are thread-safe for different files and folders. Failures of the image's own files end the process
// with a message: a test must not go on with half an image.
#ifndef EPIC_TESTS_FAULTFS_IMAGE_H_
#define EPIC_TESTS_FAULTFS_IMAGE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/faultfs/byte_ranges.h"

namespace epic::faultfs {

inline constexpr char kRootId[] = "root";

// Prints `what` and the system's reason, and aborts.
[[noreturn]] void Die(const std::string& what);

// The identity of the open file or folder; nothing where it has none, with errno saying why.
std::optional<std::string> IdOfDescriptor(int descriptor);
// The identity of what lies at `path`, which gets one if it has none. Nothing where `path` is gone.
std::optional<std::string> EnsureId(const std::string& path);
// Gives it an identity whether it has one or not: `id`, or a new one where that is empty.
std::string AssignId(const std::string& path, const std::string& id = "");

struct Name {
  std::string name;
  std::string id;
  bool is_folder = false;
};

// The names in the folder, sorted, each with its identity. Symbolic links, sockets and pipes are left out.
std::vector<Name> ListFolder(const std::string& path);

// Copies [begin, end) of one open file over the other's, cut to what the source has; holes stay holes.
void CopyBytes(int from, int to, int64_t begin, int64_t end);

class Image {
 public:
  explicit Image(std::string folder) : folder_(std::move(folder)) {}

  const std::string& folder() const { return folder_; }
  std::string BytesPath(const std::string& id) const { return folder_ + "/bytes/" + id; }
  std::string NamesPath(const std::string& id) const { return folder_ + "/names/" + id; }

  // Makes an image, which must not exist, of a folder with everything in it.
  void Create(const std::string& root) const;

  // Makes `ranges` of the file durable, and its size.
  void SyncBytes(int descriptor, const std::string& id, const ByteRanges& ranges) const;
  // Makes [begin, end) durable, and of the size no more than that needs.
  void SyncRange(int descriptor, const std::string& id, int64_t begin, int64_t end) const;
  // Makes the names of the folder durable.
  void SyncNames(const std::string& folder_path, const std::string& id) const;

  // The durable names of a folder, sorted; none where it was never synced.
  std::vector<Name> Names(const std::string& id) const;

 private:
  const std::string folder_;
};

}  // namespace epic::faultfs

#endif  // EPIC_TESTS_FAULTFS_IMAGE_H_
