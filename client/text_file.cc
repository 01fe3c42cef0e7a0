#include "client/text_file.h"

#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/limits.h"
#include "core/utf8.h"
#include "fmt/format.h"

namespace epic::client {

absl::StatusOr<std::string> ReadDocumentFile(const std::string& path) {
  std::error_code error;
  const auto kind = std::filesystem::status(path, error);
  if (!std::filesystem::exists(kind)) return absl::NotFoundError(fmt::format("{}: there is no such file", path));
  if (std::filesystem::is_directory(kind)) {
    return absl::InvalidArgumentError(fmt::format("{} is a folder; name the files in it", path));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::PermissionDeniedError(fmt::format("{} cannot be read: {}", path, std::strerror(errno)));
  std::string text;
  text.resize(kDocumentTextBytesMax + 1);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kDocumentTextBytesMax) {
    return absl::InvalidArgumentError(
        fmt::format("{} is longer than a document's limit of {} bytes; split it", path, kDocumentTextBytesMax));
  }
  if (const auto bad = FindInvalidUtf8(text)) {
    return absl::InvalidArgumentError(fmt::format("{} is not UTF-8 text: byte {} (0x{:02x}) belongs to no character",
                                                  path, *bad, static_cast<unsigned char>(text[*bad])));
  }
  if (const size_t nul = text.find('\0'); nul != std::string::npos) {
    return absl::InvalidArgumentError(fmt::format("{} is not text: byte {} is NUL", path, nul));
  }
  if (text.find_first_not_of(" \t\r\n\f\v") == std::string::npos) {
    return absl::InvalidArgumentError(fmt::format("{} is empty; a document needs some text", path));
  }
  return text;
}

std::string DocumentIdFromPath(const std::string& path) {
  std::string id = std::filesystem::path(path).stem().string();
  for (char& c : id) {
    const bool allowed = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.';
    if (!allowed) c = '-';
  }
  return id;
}

}  // namespace epic::client
