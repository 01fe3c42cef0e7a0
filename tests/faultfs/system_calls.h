// System calls without the C library's functions in between, for code inside the preloaded library: what it does itself
// must not come back to it through the functions that it replaces. Results and errno are those of the calls.
#ifndef EPIC_TESTS_FAULTFS_SYSTEM_CALLS_H_
#define EPIC_TESTS_FAULTFS_SYSTEM_CALLS_H_

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <string>

namespace epic::faultfs::system {

inline int Open(const std::string& path, int flags, mode_t mode = 0644) {
  return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path.c_str(), flags | O_CLOEXEC, mode));
}
inline ssize_t Read(int descriptor, void* bytes, size_t count) { return syscall(SYS_read, descriptor, bytes, count); }
inline ssize_t Write(int descriptor, const void* bytes, size_t count) {
  return syscall(SYS_write, descriptor, bytes, count);
}
inline ssize_t PositionedRead(int descriptor, void* bytes, size_t count, off_t offset) {
  return syscall(SYS_pread64, descriptor, bytes, count, offset);
}
inline ssize_t PositionedWrite(int descriptor, const void* bytes, size_t count, off_t offset) {
  return syscall(SYS_pwrite64, descriptor, bytes, count, offset);
}
inline int Truncate(int descriptor, off_t size) { return static_cast<int>(syscall(SYS_ftruncate, descriptor, size)); }
inline int Allocate(int descriptor, int mode, off_t offset, off_t size) {
  return static_cast<int>(syscall(SYS_fallocate, descriptor, mode, offset, size));
}
inline int Rename(const std::string& from, const std::string& to) {
  return static_cast<int>(syscall(SYS_rename, from.c_str(), to.c_str()));
}

// Closes a descriptor at the end of its scope; negative ones are none.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) syscall(SYS_close, number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return number_; }

 private:
  const int number_;
};

// Leaves errno at the end of its scope as it was at the beginning.
class KeepErrno {
 public:
  KeepErrno() = default;
  ~KeepErrno() { errno = error_; }
  KeepErrno(const KeepErrno&) = delete;
  KeepErrno& operator=(const KeepErrno&) = delete;

 private:
  const int error_ = errno;
};

// By which the kernel reaches what an open descriptor stands for, whatever became of its name.
inline std::string DescriptorPath(int descriptor) { return "/proc/self/fd/" + std::to_string(descriptor); }

}  // namespace epic::faultfs::system

#endif  // EPIC_TESTS_FAULTFS_SYSTEM_CALLS_H_
