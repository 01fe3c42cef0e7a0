#include "storage/disk_folder.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string_view>
#include <system_error>

#include "core/status_macros.h"
#include "fmt/format.h"
#include "xxhash.h"

namespace epic {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kFormatVersion = 1;
constexpr std::string_view kFormatWords = "epic-disk-tier";
constexpr std::string_view kSegmentPrefix = "segment-";

absl::Status SystemError(const std::string& what, std::error_code error) {
  const std::string message = fmt::format("{}: {}", what, error.message());
  if (error == std::errc::no_space_on_device) return absl::ResourceExhaustedError(message + "; free some space");
  if (error == std::errc::permission_denied || error == std::errc::read_only_file_system) {
    return absl::PermissionDeniedError(message + "; choose a directory that this user may write");
  }
  return absl::UnavailableError(message);
}
std::error_code LastError() { return {errno, std::generic_category()}; }

// The checksum tells a newer version from a damaged file.
std::string FormatLine(uint32_t version) {
  const std::string words = fmt::format("{} {}", kFormatWords, version);
  return fmt::format("{} {:016x}\n", words, XXH3_64bits(words.data(), words.size()));
}

// Nothing where it is damaged.
std::optional<uint32_t> ParseFormatLine(std::string_view line) {
  uint32_t version = 0;
  if (!line.starts_with(kFormatWords) || line.size() <= kFormatWords.size()) return std::nullopt;
  const std::string_view digits = line.substr(kFormatWords.size() + 1);
  std::from_chars(digits.data(), digits.data() + digits.size(), version);
  if (version == 0 || line != FormatLine(version)) return std::nullopt;
  return version;
}

std::optional<uint32_t> SegmentNumber(const fs::path& path) {
  const std::string name = path.filename();
  if (!name.starts_with(kSegmentPrefix)) return std::nullopt;
  uint32_t number = 0;
  const char* const end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + kSegmentPrefix.size(), end, number);
  if (error != std::errc() || stop != end) return std::nullopt;
  return number;
}

// Synced, so that what follows is never found without it.
absl::Status WriteFormat(const std::string& path) {
  const std::string line = FormatLine(kFormatVersion);
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
  if (file < 0) return SystemError(fmt::format("cannot create {}", path), LastError());
  absl::Status status;
  if (write(file, line.data(), line.size()) != static_cast<ssize_t>(line.size()) || fsync(file) != 0) {
    status = SystemError(fmt::format("cannot write {}", path), LastError());
  }
  close(file);
  return status;
}

absl::Status RemoveFile(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  return error ? SystemError(fmt::format("cannot remove {}", path), error) : absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<DiskFolder>> DiskFolder::Open(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return SystemError(fmt::format("cannot make the disk tier's directory {}", path), error);
  const std::string lock_path = path + "/LOCK";
  const int lock = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640);
  if (lock < 0) return SystemError(fmt::format("cannot open {}", lock_path), LastError());
  std::unique_ptr<DiskFolder> folder(new DiskFolder(path, lock));
  if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(fmt::format(
        "the disk tier's directory {} belongs to a running instance; stop it or choose another directory", path));
  }
  EPIC_RETURN_IF_ERROR(folder->CheckFormat());
  return folder;
}

DiskFolder::~DiskFolder() { close(lock_); }

absl::StatusOr<std::unique_ptr<DiskFolder>> DiskFolder::Look(const std::string& path) {
  const std::string lock_path = path + "/LOCK";
  const int lock = open(lock_path.c_str(), O_RDONLY | O_CLOEXEC);
  if (lock < 0) {
    if (errno == ENOENT) return absl::NotFoundError(fmt::format("there is no disk tier in {}", path));
    return SystemError(fmt::format("cannot open {}", lock_path), LastError());
  }
  std::unique_ptr<DiskFolder> folder(new DiskFolder(path, lock));
  if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(
        fmt::format("the disk tier's directory {} belongs to a running instance; stop it first", path));
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<uint32_t> version, folder->ReadFormat());
  if (!version) return absl::DataLossError(fmt::format("{}/FORMAT is damaged or gone", path));
  return folder;
}

absl::StatusOr<std::optional<uint32_t>> DiskFolder::ReadFormat() const {
  const std::string format_path = path_ + "/FORMAT";
  std::ifstream file(format_path, std::ios::binary);
  const std::optional<uint32_t> version = ParseFormatLine(std::string(std::istreambuf_iterator<char>(file), {}));
  if (!version || *version <= kFormatVersion) return version;
  return absl::FailedPreconditionError(
      fmt::format("the disk tier in {} has format version {}, this program reads up to {}: it was written by a "
                  "newer EPIC; use that one or another directory",
                  path_, *version, kFormatVersion));
}

absl::Status DiskFolder::CheckFormat() const {
  EPIC_ASSIGN_OR_RETURN(const std::optional<uint32_t> version, ReadFormat());
  if (version) return absl::OkStatus();
  const std::string format_path = path_ + "/FORMAT";
  std::error_code error;
  if (fs::exists(format_path, error)) spdlog::warn("disk tier: {} is damaged; starting empty", format_path);
  EPIC_RETURN_IF_ERROR(RemoveContents());
  return WriteFormat(format_path);
}

absl::Status DiskFolder::RemoveContents() const {
  EPIC_RETURN_IF_ERROR(RemoveFile(IndexPath()));
  std::error_code error;
  for (const auto& file : fs::directory_iterator(path_, error)) {
    if (SegmentNumber(file.path())) EPIC_RETURN_IF_ERROR(RemoveFile(file.path()));
  }
  return error ? SystemError(fmt::format("cannot list {}", path_), error) : absl::OkStatus();
}

absl::StatusOr<std::map<uint32_t, std::string>> DiskFolder::SegmentPaths() const {
  std::map<uint32_t, std::string> paths;
  std::error_code error;
  for (const auto& file : fs::directory_iterator(path_, error)) {
    if (const std::optional<uint32_t> number = SegmentNumber(file.path())) paths.emplace(*number, file.path());
  }
  if (error) return SystemError(fmt::format("cannot list {}", path_), error);
  return paths;
}

absl::StatusOr<std::map<uint32_t, std::unique_ptr<SegmentFile>>> DiskFolder::OpenSegments(size_t bytes_max,
                                                                                          bool direct_io) const {
  EPIC_ASSIGN_OR_RETURN(const auto paths, SegmentPaths());
  std::map<uint32_t, std::unique_ptr<SegmentFile>> segments;
  size_t bytes = 0;
  for (const auto& [number, path] : paths) {
    absl::StatusOr<std::unique_ptr<SegmentFile>> segment = SegmentFile::Open(path, direct_io);
    if (!segment.ok() && !absl::IsUnavailable(segment.status())) return segment.status();
    absl::Status fault = segment.status();
    if (fault.ok() && ((*segment)->bytes() == 0 || (*segment)->bytes() > bytes_max - bytes)) {
      fault = absl::OutOfRangeError(fmt::format("its {} bytes do not fit into the {} of the tier beside the others",
                                                (*segment)->bytes(), bytes_max));
    }
    if (fault.ok()) fault = (*segment)->ReserveHoles();
    if (fault.ok()) {
      bytes += (*segment)->bytes();
      segments.emplace(number, *std::move(segment));
      continue;
    }
    spdlog::warn("disk tier: removing {}: {}", path, std::string(fault.message()));
    EPIC_RETURN_IF_ERROR(RemoveFile(path));
  }
  return segments;
}

size_t DiskFolder::BytesToGrow(size_t free_bytes_min) const {
  struct statvfs attributes = {};
  if (statvfs(path_.c_str(), &attributes) != 0) return 0;
  const size_t available = static_cast<size_t>(attributes.f_bavail) * attributes.f_frsize;
  return available > free_bytes_min ? available - free_bytes_min : 0;
}

std::string DiskFolder::SegmentPath(uint32_t number) const {
  return fmt::format("{}/{}{:06}", path_, kSegmentPrefix, number);
}

}  // namespace epic
