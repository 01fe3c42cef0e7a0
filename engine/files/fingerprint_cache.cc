#include "engine/files/fingerprint_cache.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "core/status_macros.h"
#include "engine/files/file_error.h"
#include "engine/files/json_file.h"

namespace epic {

namespace {

constexpr int kFormatVersion = 1;
constexpr size_t kDigestDigits = 64;

std::string CachePath(const std::string& cache_dir) { return cache_dir + "/fingerprints.json"; }

nlohmann::json IdentityJson(const FileIdentity& identity) {
  return {{"path", identity.path},
          {"size_bytes", identity.size_bytes},
          {"modified_ns", identity.modified_ns},
          {"inode", identity.inode},
          {"device", identity.device}};
}

// The list of entries, oldest first; empty where there is no usable file.
nlohmann::json ReadEntries(const std::string& cache_dir) {
  absl::StatusOr<nlohmann::json> document = ReadJsonFile(CachePath(cache_dir));
  if (!document.ok() || document->value("format_version", nlohmann::json()) != kFormatVersion)
    return nlohmann::json::array();
  nlohmann::json entries = document->value("files", nlohmann::json());
  return entries.is_array() ? entries : nlohmann::json::array();
}

bool IsDigest(const nlohmann::json& value) {
  if (!value.is_string()) return false;
  const auto& text = value.get_ref<const std::string&>();
  return text.size() == kDigestDigits && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

const nlohmann::json* Member(const nlohmann::json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

absl::Status WriteAll(int descriptor, const std::string& text, const std::string& path) {
  size_t written = 0;
  while (written < text.size()) {
    const ssize_t count = write(descriptor, text.data() + written, text.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return absl::ErrnoToStatus(errno, fmt::format("{}: cannot write", path));
    written += static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

absl::Status ReplaceFile(const std::string& path, const std::string& text) {
  std::string temporary = path + ".XXXXXX";
  const int descriptor = mkostemp(temporary.data(), O_CLOEXEC);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, fmt::format("{}: cannot make a file beside it", path));
  absl::Status status = WriteAll(descriptor, text, temporary);
  if (close(descriptor) != 0 && status.ok())
    status = absl::ErrnoToStatus(errno, fmt::format("{}: cannot close", temporary));
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    status = absl::ErrnoToStatus(errno, fmt::format("{}: cannot replace the file", path));
  }
  if (!status.ok()) unlink(temporary.c_str());
  return status;
}

}  // namespace

std::vector<std::optional<TensorDigests>> RememberedDigests(const std::string& cache_dir,
                                                            std::span<const FileIdentity> identities) {
  const nlohmann::json entries = ReadEntries(cache_dir);
  std::vector<std::optional<TensorDigests>> remembered;
  for (const FileIdentity& identity : identities) {
    const nlohmann::json wanted = IdentityJson(identity);
    std::optional<TensorDigests>& digests = remembered.emplace_back();
    for (const nlohmann::json& entry : entries) {
      const nlohmann::json* found = Member(entry, "identity");
      const nlohmann::json* tensors = Member(entry, "tensors");
      if (found == nullptr || *found != wanted || tensors == nullptr || !tensors->is_object()) continue;
      digests.emplace();
      for (const auto& [name, digest] : tensors->items()) {
        if (IsDigest(digest)) digests->emplace(name, digest.get<std::string>());
      }
      break;
    }
  }
  return remembered;
}

absl::Status RememberDigests(const std::string& cache_dir, std::span<const FileDigests> files) {
  std::error_code error;
  std::filesystem::create_directories(cache_dir, error);
  if (error) return absl::ErrnoToStatus(error.value(), fmt::format("{}: cannot make the folder", cache_dir));
  std::set<std::string> replaced;
  for (const FileDigests& file : files) replaced.insert(file.identity.path);
  nlohmann::json entries = nlohmann::json::array();
  for (nlohmann::json& entry : ReadEntries(cache_dir)) {
    const nlohmann::json* found = Member(entry, "identity");
    const nlohmann::json* path = found == nullptr ? nullptr : Member(*found, "path");
    if (path == nullptr || !path->is_string() || replaced.contains(path->get_ref<const std::string&>())) continue;
    entries.push_back(std::move(entry));
  }
  for (const FileDigests& file : files) {
    entries.push_back({{"identity", IdentityJson(file.identity)}, {"tensors", file.digests}});
  }
  while (entries.size() > kRememberedFilesMax) entries.erase(entries.begin());
  const nlohmann::json document = {{"format_version", kFormatVersion}, {"files", std::move(entries)}};
  // A path need not be UTF-8; such bytes are replaced, and the entry is then simply not found again.
  return ReplaceFile(CachePath(cache_dir), document.dump(1, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace epic
