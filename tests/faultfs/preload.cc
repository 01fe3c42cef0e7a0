// The functions of the C library that this library stands before when it is named in LD_PRELOAD: those that change what
// is in a file, take names away, make something durable, or read. Each makes the system call itself and tells the
// tracker. Names come into being without a word to it: a folder is listed when it is synced.
//
// Not seen, because the C library makes these calls inside itself: stdio's writes, hence a file that is opened by fopen
// or fdopen for writing, like one that is mapped for writing, is taken whole by every later sync and does not count
// against the disk's space. io_uring, splice and raw system calls are not watched.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "tests/faultfs/system_calls.h"
#include "tests/faultfs/tracker.h"

namespace epic::faultfs {
namespace {

template <class Function>
Function* Next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

std::shared_ptr<WatchedFile> FileOf(int descriptor) {
  Tracker* const tracker = Tracker::Get();
  return tracker == nullptr ? nullptr : tracker->FileOf(descriptor);
}

int OpenAt(int folder, const char* path, int flags, mode_t mode) {
  const int descriptor = static_cast<int>(syscall(SYS_openat, folder, path, flags, mode));
  if (descriptor >= 0 && (flags & O_TRUNC) != 0) {
    if (const auto file = FileOf(descriptor)) file->MarkChanged(0, ByteRanges::kEndless);
  }
  return descriptor;
}

bool HasMode(int flags) { return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE; }

FILE* Opened(FILE* stream, const char* mode) {
  if (stream == nullptr || strpbrk(mode, "wa+") == nullptr) return stream;
  if (const auto file = FileOf(fileno(stream))) file->MarkChangedUnseen();
  return stream;
}

int64_t SizeOf(int descriptor) {
  struct stat status;
  return fstat(descriptor, &status) == 0 ? status.st_size : 0;
}

constexpr off_t kAtPosition = -1;  // as in pwritev2

// A write of `bytes` at `offset`, or at the descriptor's position. `write(count)` writes that many bytes; vectors
// cannot be cut short and are written whole or not at all.
template <class Write>
ssize_t WriteWatched(int descriptor, size_t bytes, off_t offset, bool synchronous, bool may_be_cut,
                     const Write& write) {
  const std::shared_ptr<WatchedFile> file = FileOf(descriptor);
  if (file == nullptr) return write(bytes);
  Tracker& tracker = *Tracker::Get();
  if (may_be_cut) {
    const auto granted = static_cast<size_t>(tracker.TakeSpace(descriptor, static_cast<int64_t>(bytes)));
    if (granted == 0 && bytes > 0) {
      errno = ENOSPC;
      return -1;
    }
    bytes = granted;
  } else if (!tracker.HasSpaceFor(descriptor, static_cast<int64_t>(bytes))) {
    errno = ENOSPC;
    return -1;
  } else {
    tracker.TakeSpace(descriptor, static_cast<int64_t>(bytes));
  }
  const int flags = fcntl(descriptor, F_GETFL);
  ssize_t written = 0;
  off_t begin = 0;
  if (offset != kAtPosition && (flags & O_APPEND) == 0) {
    written = write(bytes);
    begin = offset;
  } else {
    const MutexLock lock(file->position_mutex);
    written = write(bytes);
    // Linux appends with O_APPEND even where an offset is given, and leaves the position alone then.
    if (written > 0 && offset == kAtPosition) begin = lseek(descriptor, 0, SEEK_CUR) - written;
    if (written > 0 && offset != kAtPosition) begin = SizeOf(descriptor) - written;
  }
  if (written > 0) {
    file->MarkChanged(begin, begin + written);
    if (synchronous || (flags & O_DSYNC) != 0) tracker.SyncRange(descriptor, *file, begin, begin + written);
  }
  return written;
}

size_t BytesOf(const iovec* pieces, int count) {
  size_t bytes = 0;
  for (int i = 0; i < count; ++i) bytes += pieces[i].iov_len;
  return bytes;
}

ssize_t PositionedWriteVector(int descriptor, const iovec* pieces, int count, off_t offset, int flags) {
  return WriteWatched(descriptor, BytesOf(pieces, count), offset, (flags & (RWF_DSYNC | RWF_SYNC)) != 0,
                      /*may_be_cut=*/false, [&](size_t) -> ssize_t {
                        return syscall(SYS_pwritev2, descriptor, pieces, count, offset, 0L, flags);
                      });
}

// Whether the disk has room for the file to become so large.
bool HasSpaceToGrow(int descriptor, int64_t size) {
  const int64_t grows_bytes = size - SizeOf(descriptor);
  if (grows_bytes <= 0 || Tracker::Get()->HasSpaceFor(descriptor, grows_bytes)) return true;
  errno = ENOSPC;
  return false;
}

int Truncate(int descriptor, off_t size) {
  const std::shared_ptr<WatchedFile> file = FileOf(descriptor);
  if (file != nullptr && !HasSpaceToGrow(descriptor, size)) return -1;
  const int result = system::Truncate(descriptor, size);
  if (result == 0 && file != nullptr) file->MarkChanged(size, ByteRanges::kEndless);
  return result;
}

int TruncatePath(const char* path, off_t size) {
  const auto result = static_cast<int>(syscall(SYS_truncate, path, size));
  if (result == 0 && Tracker::Get() != nullptr) {
    if (const auto file = Tracker::Get()->FileAt(path)) file->MarkChanged(size, ByteRanges::kEndless);
  }
  return result;
}

int Allocate(int descriptor, int mode, off_t offset, off_t size) {
  const std::shared_ptr<WatchedFile> file = FileOf(descriptor);
  const bool takes_away = (mode & ~FALLOC_FL_KEEP_SIZE) != 0;
  if (file != nullptr && !takes_away && !HasSpaceToGrow(descriptor, offset + size)) return -1;
  const int result = system::Allocate(descriptor, mode, offset, size);
  if (result == 0 && file != nullptr && takes_away) file->MarkChanged(offset, ByteRanges::kEndless);
  return result;
}

int Sync(int descriptor, long number) {
  Tracker* const tracker = Tracker::Get();
  if (tracker != nullptr) {
    if (const std::optional<int> result = tracker->Sync(descriptor)) return *result;
  }
  return static_cast<int>(syscall(number, descriptor));
}

// A system call that takes names away or changes them.
template <class Call>
int ChangeNames(const Call& call) {
  Tracker* const tracker = Tracker::Get();
  if (tracker == nullptr) return static_cast<int>(call());
  const MutexLock lock(tracker->names_mutex());
  return static_cast<int>(call());
}

template <class Call>
auto ReadWatched(int descriptor, const Call& call) -> decltype(call()) {
  Tracker* const tracker = Tracker::Get();
  if (tracker != nullptr && tracker->ReadFails(descriptor)) {
    errno = EIO;
    return -1;
  }
  return call();
}

template <class Call>
size_t ReadStream(FILE* stream, const Call& call) {
  Tracker* const tracker = Tracker::Get();
  if (tracker == nullptr || !tracker->ReadFails(fileno(stream))) return call();
  stream->_flags |= _IO_ERR_SEEN;
  errno = EIO;
  return 0;
}

void* Map(void* address, size_t bytes, int protection, int flags, int descriptor, off_t offset) {
  if (descriptor >= 0 && (flags & MAP_SHARED) != 0 && (protection & PROT_WRITE) != 0) {
    if (const auto file = FileOf(descriptor)) file->MarkChangedUnseen();
  }
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the system call gives addresses as integers
  return reinterpret_cast<void*>(syscall(SYS_mmap, address, bytes, protection, flags, descriptor, offset));
}

// Tells of no more space than there is by the faults.
int LimitSpace(int result, int descriptor, struct statvfs* found) {
  Tracker* const tracker = Tracker::Get();
  if (result != 0 || tracker == nullptr) return result;
  if (const std::optional<int64_t> bytes = tracker->SpaceBytes(descriptor)) {
    const fsblkcnt_t blocks = static_cast<fsblkcnt_t>(*bytes) / found->f_frsize;
    found->f_bfree = std::min(found->f_bfree, blocks);
    found->f_bavail = std::min(found->f_bavail, blocks);
  }
  return result;
}

template <class Call>
ssize_t CopyInto(int descriptor, const Call& call) {
  const ssize_t copied = call();
  if (copied > 0) {
    if (const auto file = FileOf(descriptor)) file->MarkChanged(0, ByteRanges::kEndless);
  }
  return copied;
}

}  // namespace
}  // namespace epic::faultfs

// Below are the C library's own signatures; its headers declare some parameters nonnull or with other attributes.
// NOLINTBEGIN(readability-identifier-naming, bugprone-reserved-identifier,
// readability-inconsistent-declaration-parameter-name)
namespace faultfs = epic::faultfs;

#define EPIC_FAULTFS_OPEN(NAME)                          \
  int NAME(const char* path, int flags, ...) {           \
    mode_t mode = 0;                                     \
    if (faultfs::HasMode(flags)) {                       \
      va_list arguments;                                 \
      va_start(arguments, flags);                        \
      mode = va_arg(arguments, mode_t);                  \
      va_end(arguments);                                 \
    }                                                    \
    return faultfs::OpenAt(AT_FDCWD, path, flags, mode); \
  }
#define EPIC_FAULTFS_OPENAT(NAME)                          \
  int NAME(int folder, const char* path, int flags, ...) { \
    mode_t mode = 0;                                       \
    if (faultfs::HasMode(flags)) {                         \
      va_list arguments;                                   \
      va_start(arguments, flags);                          \
      mode = va_arg(arguments, mode_t);                    \
      va_end(arguments);                                   \
    }                                                      \
    return faultfs::OpenAt(folder, path, flags, mode);     \
  }

extern "C" {

EPIC_FAULTFS_OPEN(open)
EPIC_FAULTFS_OPEN(open64)
EPIC_FAULTFS_OPENAT(openat)
EPIC_FAULTFS_OPENAT(openat64)
int __open_2(const char* path, int flags) { return faultfs::OpenAt(AT_FDCWD, path, flags, 0); }
int __open64_2(const char* path, int flags) { return faultfs::OpenAt(AT_FDCWD, path, flags, 0); }
int creat(const char* path, mode_t mode) { return faultfs::OpenAt(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }
int creat64(const char* path, mode_t mode) { return creat(path, mode); }

FILE* fopen(const char* path, const char* mode) {
  static auto* const next = faultfs::Next<FILE*(const char*, const char*)>("fopen");
  return faultfs::Opened(next(path, mode), mode);
}
FILE* fopen64(const char* path, const char* mode) { return fopen(path, mode); }
FILE* fdopen(int descriptor, const char* mode) noexcept {
  static auto* const next = faultfs::Next<FILE*(int, const char*)>("fdopen");
  return faultfs::Opened(next(descriptor, mode), mode);
}

ssize_t write(int descriptor, const void* bytes, size_t count) {
  return faultfs::WriteWatched(descriptor, count, faultfs::kAtPosition, /*synchronous=*/false, /*may_be_cut=*/true,
                               [&](size_t n) { return faultfs::system::Write(descriptor, bytes, n); });
}
ssize_t pwrite(int descriptor, const void* bytes, size_t count, off_t offset) {
  return faultfs::WriteWatched(descriptor, count, offset, /*synchronous=*/false, /*may_be_cut=*/true, [&](size_t n) {
    return faultfs::system::PositionedWrite(descriptor, bytes, n, offset);
  });
}
ssize_t pwrite64(int descriptor, const void* bytes, size_t count, off_t offset) {
  return pwrite(descriptor, bytes, count, offset);
}
ssize_t writev(int descriptor, const iovec* pieces, int count) {
  return faultfs::PositionedWriteVector(descriptor, pieces, count, faultfs::kAtPosition, 0);
}
ssize_t pwritev(int descriptor, const iovec* pieces, int count, off_t offset) {
  return faultfs::PositionedWriteVector(descriptor, pieces, count, offset, 0);
}
ssize_t pwritev64(int descriptor, const iovec* pieces, int count, off_t offset) {
  return faultfs::PositionedWriteVector(descriptor, pieces, count, offset, 0);
}
ssize_t pwritev2(int descriptor, const iovec* pieces, int count, off_t offset, int flags) {
  return faultfs::PositionedWriteVector(descriptor, pieces, count, offset, flags);
}
ssize_t pwritev64v2(int descriptor, const iovec* pieces, int count, off_t offset, int flags) {
  return faultfs::PositionedWriteVector(descriptor, pieces, count, offset, flags);
}
ssize_t copy_file_range(int from, off_t* from_offset, int to, off_t* to_offset, size_t bytes, unsigned flags) {
  return faultfs::CopyInto(
      to, [&]() -> ssize_t { return syscall(SYS_copy_file_range, from, from_offset, to, to_offset, bytes, flags); });
}
ssize_t sendfile(int to, int from, off_t* offset, size_t bytes) noexcept {
  return faultfs::CopyInto(to, [&]() -> ssize_t { return syscall(SYS_sendfile, to, from, offset, bytes); });
}
ssize_t sendfile64(int to, int from, off_t* offset, size_t bytes) noexcept { return sendfile(to, from, offset, bytes); }

int ftruncate(int descriptor, off_t size) noexcept { return faultfs::Truncate(descriptor, size); }
int ftruncate64(int descriptor, off_t size) noexcept { return faultfs::Truncate(descriptor, size); }
int truncate(const char* path, off_t size) noexcept { return faultfs::TruncatePath(path, size); }
int truncate64(const char* path, off_t size) noexcept { return faultfs::TruncatePath(path, size); }
int fallocate(int descriptor, int mode, off_t offset, off_t size) {
  return faultfs::Allocate(descriptor, mode, offset, size);
}
int fallocate64(int descriptor, int mode, off_t offset, off_t size) {
  return faultfs::Allocate(descriptor, mode, offset, size);
}
int posix_fallocate(int descriptor, off_t offset, off_t size) {
  const faultfs::system::KeepErrno keep;
  return faultfs::Allocate(descriptor, 0, offset, size) == 0 ? 0 : errno;
}
int posix_fallocate64(int descriptor, off_t offset, off_t size) { return posix_fallocate(descriptor, offset, size); }

int fsync(int descriptor) { return faultfs::Sync(descriptor, SYS_fsync); }
int fdatasync(int descriptor) { return faultfs::Sync(descriptor, SYS_fdatasync); }

int rename(const char* from, const char* to) noexcept {
  return faultfs::ChangeNames([&] { return syscall(SYS_rename, from, to); });
}
int renameat(int from_folder, const char* from, int to_folder, const char* to) noexcept {
  return faultfs::ChangeNames([&] { return syscall(SYS_renameat2, from_folder, from, to_folder, to, 0); });
}
int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  return faultfs::ChangeNames([&] { return syscall(SYS_renameat2, from_folder, from, to_folder, to, flags); });
}
int unlink(const char* path) noexcept {
  return faultfs::ChangeNames([&] { return syscall(SYS_unlink, path); });
}
int unlinkat(int folder, const char* path, int flags) noexcept {
  return faultfs::ChangeNames([&] { return syscall(SYS_unlinkat, folder, path, flags); });
}
int remove(const char* path) noexcept { return unlink(path) == 0 ? 0 : errno == EISDIR ? rmdir(path) : -1; }

int statvfs(const char* path, struct statvfs* found) noexcept {
  static auto* const next = faultfs::Next<int(const char*, struct statvfs*)>("statvfs");
  const faultfs::system::Descriptor descriptor(faultfs::system::Open(path, O_PATH));
  return faultfs::LimitSpace(next(path, found), descriptor.get(), found);
}
int statvfs64(const char* path, struct statvfs64* found) noexcept {
  return statvfs(path, reinterpret_cast<struct statvfs*>(found));
}
int fstatvfs(int descriptor, struct statvfs* found) noexcept {
  static auto* const next = faultfs::Next<int(int, struct statvfs*)>("fstatvfs");
  return faultfs::LimitSpace(next(descriptor, found), descriptor, found);
}
int fstatvfs64(int descriptor, struct statvfs64* found) noexcept {
  return fstatvfs(descriptor, reinterpret_cast<struct statvfs*>(found));
}

void* mmap(void* address, size_t bytes, int protection, int flags, int descriptor, off_t offset) noexcept {
  return faultfs::Map(address, bytes, protection, flags, descriptor, offset);
}
void* mmap64(void* address, size_t bytes, int protection, int flags, int descriptor, off_t offset) noexcept {
  return faultfs::Map(address, bytes, protection, flags, descriptor, offset);
}

ssize_t read(int descriptor, void* bytes, size_t count) {
  return faultfs::ReadWatched(descriptor, [&] { return faultfs::system::Read(descriptor, bytes, count); });
}
ssize_t pread(int descriptor, void* bytes, size_t count, off_t offset) {
  return faultfs::ReadWatched(descriptor,
                              [&] { return faultfs::system::PositionedRead(descriptor, bytes, count, offset); });
}
ssize_t pread64(int descriptor, void* bytes, size_t count, off_t offset) {
  return pread(descriptor, bytes, count, offset);
}
ssize_t readv(int descriptor, const iovec* pieces, int count) {
  return faultfs::ReadWatched(descriptor, [&]() -> ssize_t { return syscall(SYS_readv, descriptor, pieces, count); });
}
ssize_t preadv2(int descriptor, const iovec* pieces, int count, off_t offset, int flags) {
  return faultfs::ReadWatched(
      descriptor, [&]() -> ssize_t { return syscall(SYS_preadv2, descriptor, pieces, count, offset, 0L, flags); });
}
ssize_t preadv(int descriptor, const iovec* pieces, int count, off_t offset) {
  return faultfs::ReadWatched(descriptor,
                              [&]() -> ssize_t { return syscall(SYS_preadv, descriptor, pieces, count, offset, 0L); });
}
ssize_t preadv64(int descriptor, const iovec* pieces, int count, off_t offset) {
  return preadv(descriptor, pieces, count, offset);
}
ssize_t preadv64v2(int descriptor, const iovec* pieces, int count, off_t offset, int flags) {
  return preadv2(descriptor, pieces, count, offset, flags);
}
ssize_t __read_chk(int descriptor, void* bytes, size_t count, size_t) { return read(descriptor, bytes, count); }
ssize_t __pread_chk(int descriptor, void* bytes, size_t count, off_t offset, size_t) {
  return pread(descriptor, bytes, count, offset);
}
ssize_t __pread64_chk(int descriptor, void* bytes, size_t count, off_t offset, size_t) {
  return pread(descriptor, bytes, count, offset);
}
size_t fread(void* bytes, size_t size, size_t count, FILE* stream) {
  static auto* const next = faultfs::Next<size_t(void*, size_t, size_t, FILE*)>("fread");
  return faultfs::ReadStream(stream, [&] { return next(bytes, size, count, stream); });
}
size_t fread_unlocked(void* bytes, size_t size, size_t count, FILE* stream) {
  static auto* const next = faultfs::Next<size_t(void*, size_t, size_t, FILE*)>("fread_unlocked");
  return faultfs::ReadStream(stream, [&] { return next(bytes, size, count, stream); });
}
size_t __fread_chk(void* bytes, size_t, size_t size, size_t count, FILE* stream) {
  return fread(bytes, size, count, stream);
}
size_t __fread_unlocked_chk(void* bytes, size_t, size_t size, size_t count, FILE* stream) {
  return fread_unlocked(bytes, size, count, stream);
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming, bugprone-reserved-identifier,
// readability-inconsistent-declaration-parameter-name)
