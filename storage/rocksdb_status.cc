#include "storage/rocksdb_status.h"

#include <string_view>

#include "fmt/format.h"

namespace epic {
namespace {

bool Mentions(const rocksdb::Status& status, const char* words) {
  return status.ToString().find(words) != std::string::npos;
}

// A table that is not there is looked for under its old suffix last, which then is what RocksDB names.
std::string WithPresentSuffixes(std::string text) {
  const std::string_view old_suffix = ".ldb";
  for (size_t at = text.find(old_suffix); at != std::string::npos; at = text.find(old_suffix, at + 1)) {
    text.replace(at, old_suffix.size(), ".sst");
  }
  return text;
}

absl::Status DamagedManifest(const rocksdb::Status& status, const std::string& folder) {
  return absl::DataLossError(
      fmt::format("the manifest in {} is damaged: {}", folder, WithPresentSuffixes(status.ToString())));
}

}  // namespace

absl::Status FromRocksDb(const rocksdb::Status& status, const std::string& folder) {
  if (status.ok()) return absl::OkStatus();
  if (status.IsCorruption()) return DamagedManifest(status, folder);
  if (status.IsNoSpace()) {
    return absl::ResourceExhaustedError(
        fmt::format("the disk of {} is full: {}; free some space", folder, status.ToString()));
  }
  if (status.IsIOError()) {
    return absl::UnavailableError(
        fmt::format("the manifest in {} cannot be read or written: {}", folder, status.ToString()));
  }
  return absl::InternalError(fmt::format("the manifest in {} failed: {}", folder, status.ToString()));
}

absl::Status FromRocksDbOpen(const rocksdb::Status& status, const std::string& folder) {
  // RocksDB has one code for all I/O errors; its words tell them apart.
  if (status.IsIOError()) {
    if (Mentions(status, "lock hold by current process") || Mentions(status, "Resource temporarily unavailable")) {
      return absl::FailedPreconditionError(
          fmt::format("data directory {} belongs to a running instance; stop it or choose another directory", folder));
    }
    if (Mentions(status, "Permission denied") || Mentions(status, "Read-only file system")) {
      return absl::PermissionDeniedError(
          fmt::format("data directory {} cannot be written: {}", folder, status.ToString()));
    }
    if (status.IsPathNotFound() || Mentions(status, "No such file or directory"))
      return DamagedManifest(status, folder);
  }
  if (status.IsNotSupported() || status.IsInvalidArgument()) {
    return absl::FailedPreconditionError(
        fmt::format("the manifest in {} was not written by this version of EPIC: {}", folder, status.ToString()));
  }
  return FromRocksDb(status, folder);
}

}  // namespace epic
