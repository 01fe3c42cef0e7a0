// For tests only: a RocksDB Env whose files below chosen folders fail.
#ifndef EPIC_STORAGE_MANIFEST_FAULT_ENV_H_
#define EPIC_STORAGE_MANIFEST_FAULT_ENV_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "core/sync.h"
#include "rocksdb/env.h"
#include "rocksdb/file_system.h"

namespace epic {

// Asked before each operation on a file's bytes: "write", "sync" or "read", and the file's path. What it answers is
// what the operation gives where it is not OK. Called on any thread.
using FaultHook = std::function<rocksdb::IOStatus(const std::string& operation, const std::string& path)>;

// Thread-safe.
class FaultFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  FaultFileSystem() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "FaultFileSystem"; }

  void SetHook(FaultHook hook) {
    const MutexLock lock(mutex_);
    hook_ = std::move(hook);
  }
  rocksdb::IOStatus Ask(const std::string& operation, const std::string& path) const {
    FaultHook hook;
    {
      const MutexLock lock(mutex_);
      hook = hook_;
    }
    return hook ? hook(operation, path) : rocksdb::IOStatus::OK();
  }

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* context) override {
    rocksdb::IOStatus status = target()->NewWritableFile(path, options, file, context);
    if (status.ok()) *file = std::make_unique<WritableFile>(this, path, std::move(*file));
    return status;
  }
  rocksdb::IOStatus NewRandomAccessFile(const std::string& path, const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                        rocksdb::IODebugContext* context) override {
    rocksdb::IOStatus status = target()->NewRandomAccessFile(path, options, file, context);
    if (status.ok()) *file = std::make_unique<RandomAccessFile>(this, path, std::move(*file));
    return status;
  }

 private:
  class WritableFile final : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    WritableFile(const FaultFileSystem* system, std::string path, std::unique_ptr<rocksdb::FSWritableFile> file)
        : FSWritableFileOwnerWrapper(std::move(file)), system_(system), path_(std::move(path)) {}
    using FSWritableFileOwnerWrapper::Append;
    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* context) override {
      rocksdb::IOStatus status = system_->Ask("write", path_);
      return status.ok() ? FSWritableFileOwnerWrapper::Append(data, options, context) : status;
    }
    rocksdb::IOStatus Sync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* context) override {
      rocksdb::IOStatus status = system_->Ask("sync", path_);
      return status.ok() ? FSWritableFileOwnerWrapper::Sync(options, context) : status;
    }

   private:
    const FaultFileSystem* const system_;
    const std::string path_;
  };

  class RandomAccessFile final : public rocksdb::FSRandomAccessFileOwnerWrapper {
   public:
    RandomAccessFile(const FaultFileSystem* system, std::string path, std::unique_ptr<rocksdb::FSRandomAccessFile> file)
        : FSRandomAccessFileOwnerWrapper(std::move(file)), system_(system), path_(std::move(path)) {}
    rocksdb::IOStatus Read(uint64_t offset, size_t bytes, const rocksdb::IOOptions& options, rocksdb::Slice* result,
                           char* scratch, rocksdb::IODebugContext* context) const override {
      rocksdb::IOStatus status = system_->Ask("read", path_);
      return status.ok() ? FSRandomAccessFileOwnerWrapper::Read(offset, bytes, options, result, scratch, context)
                         : status;
    }

   private:
    const FaultFileSystem* const system_;
    const std::string path_;
  };

  mutable Mutex mutex_;  // protects the hook
  FaultHook hook_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace epic

#endif  // EPIC_STORAGE_MANIFEST_FAULT_ENV_H_
