#include "tests/faultfs/tracker.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <array>
#include <utility>

#include "tests/faultfs/system_calls.h"

namespace epic::faultfs {
namespace {

std::string RealPath(const char* variable) {
  const char* const path = getenv(variable);
  std::array<char, PATH_MAX> real;
  if (path == nullptr || realpath(path, real.data()) == nullptr) {
    Die(std::string(variable) + " must name an existing folder, it is " + (path == nullptr ? "unset" : path));
  }
  return real.data();
}

}  // namespace

void WatchedFile::MarkChanged(int64_t begin, int64_t end) {
  const MutexLock lock(mutex_);
  changed_.Add(begin, end);
}

void WatchedFile::MarkChangedUnseen() {
  const MutexLock lock(mutex_);
  changes_unseen_ = true;
}

ByteRanges WatchedFile::TakeChanged() {
  const MutexLock lock(mutex_);
  ByteRanges changed = std::exchange(changed_, {});
  if (changes_unseen_) changed.Add(0, ByteRanges::kEndless);
  return changed;
}

Tracker* Tracker::Get() {
  static Tracker* tracker = []() -> Tracker* {
    if (getenv("EPIC_FAULTFS_ROOT") == nullptr) return nullptr;
    return new Tracker(RealPath("EPIC_FAULTFS_ROOT"), RealPath("EPIC_FAULTFS_IMAGE"), getenv("EPIC_FAULTFS_CONTROL"));
  }();
  return tracker;
}

Tracker::Tracker(std::string root, std::string image, const char* control_path)
    : root_(std::move(root)),
      image_(std::move(image)),
      faults_(control_path == nullptr ? nullptr : std::make_unique<Faults>(control_path)) {
  if (image_.folder().starts_with(root_ + "/")) Die("the image must lie outside of the watched folder " + root_);
}

std::shared_ptr<WatchedFile> Tracker::FileWithId(const std::string& id) {
  const MutexLock lock(files_mutex_);
  std::shared_ptr<WatchedFile>& file = files_[id];
  if (file == nullptr) {
    file = std::make_shared<WatchedFile>(id);
    file->MarkChanged(0, ByteRanges::kEndless);
  }
  return file;
}

std::optional<std::string> Tracker::PathBelowRoot(int descriptor) const {
  std::array<char, PATH_MAX> buffer;
  const ssize_t size = readlink(system::DescriptorPath(descriptor).c_str(), buffer.data(), buffer.size());
  if (size <= 0) return std::nullopt;
  const std::string_view path(buffer.data(), static_cast<size_t>(size));
  if (path == root_) return ".";
  if (!path.starts_with(root_) || path[root_.size()] != '/') return std::nullopt;
  return std::string(path.substr(root_.size() + 1));
}

std::shared_ptr<WatchedFile> Tracker::FileOf(int descriptor) {
  const system::KeepErrno keep;
  std::optional<std::string> id = IdOfDescriptor(descriptor);
  if (!id) {
    // What can have no identity says so; a file that has none yet is new, or is not watched.
    struct stat status;
    if (errno != ENODATA || !PathBelowRoot(descriptor) || fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
      return nullptr;
    }
    id = EnsureId(system::DescriptorPath(descriptor));
    if (!id) return nullptr;
  }
  return FileWithId(*id);
}

std::shared_ptr<WatchedFile> Tracker::FileAt(const char* path) {
  const system::Descriptor file(system::Open(path, O_RDONLY));
  return file.get() < 0 ? nullptr : FileOf(file.get());
}

std::optional<int> Tracker::Sync(int descriptor) {
  struct stat status;
  const std::optional<std::string> path = PathBelowRoot(descriptor);
  if (!path || fstat(descriptor, &status) != 0) return std::nullopt;
  const bool fails = faults_ != nullptr && faults_->Fails(Operation::kSync, *path);
  if (S_ISDIR(status.st_mode)) {
    if (!fails) {
      const MutexLock lock(names_mutex_);
      const std::string folder = system::DescriptorPath(descriptor);
      if (const auto id = EnsureId(folder)) image_.SyncNames(folder, *id);
    }
  } else if (const std::shared_ptr<WatchedFile> file = FileOf(descriptor)) {
    const MutexLock lock(file->sync_mutex);
    const ByteRanges changed = file->TakeChanged();
    if (!fails) image_.SyncBytes(descriptor, file->id, changed);
  } else {
    return std::nullopt;
  }
  if (fails) errno = EIO;
  return fails ? -1 : 0;
}

void Tracker::SyncRange(int descriptor, WatchedFile& file, int64_t begin, int64_t end) {
  const system::KeepErrno keep;
  const MutexLock lock(file.sync_mutex);
  image_.SyncRange(descriptor, file.id, begin, end);
}

bool Tracker::ReadFails(int descriptor) {
  if (faults_ == nullptr) return false;
  const system::KeepErrno keep;
  const std::optional<std::string> path = PathBelowRoot(descriptor);
  return path && faults_->Fails(Operation::kRead, *path);
}

int64_t Tracker::TakeSpace(int descriptor, int64_t bytes) {
  if (faults_ == nullptr) return bytes;
  return faults_->TakeSpace(bytes, PathBelowRoot(descriptor).value_or(""));
}

bool Tracker::HasSpaceFor(int descriptor, int64_t bytes) {
  return faults_ == nullptr || faults_->HasSpaceFor(bytes, PathBelowRoot(descriptor).value_or(""));
}

std::optional<int64_t> Tracker::SpaceBytes(int descriptor) {
  if (faults_ == nullptr || !PathBelowRoot(descriptor)) return std::nullopt;
  return faults_->SpaceBytes();
}

}  // namespace epic::faultfs
