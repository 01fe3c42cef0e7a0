#include "storage/sequence_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>

#include "core/byte_codec.h"
#include "fmt/format.h"
#include "xxhash.h"

namespace epic {
namespace {

constexpr std::string_view kMagic = "EPICSEQ1";
constexpr size_t kFileBytes = 24;  // magic, sequence number, XXH3-64 of both

std::string Encode(uint64_t sequence) {
  ByteWriter writer;
  writer.PutRaw(kMagic);
  writer.Put(sequence);
  writer.Put(static_cast<uint64_t>(XXH3_64bits(writer.bytes().data(), writer.size())));
  return std::move(writer).Take();
}

absl::Status SystemError(const char* step, const std::string& path, int error) {
  const std::string message = fmt::format("{} {}: {}", step, path, std::generic_category().message(error));
  return error == ENOSPC || error == EDQUOT ? absl::ResourceExhaustedError(message) : absl::UnavailableError(message);
}

// Syncs what was written to `path`, a file or a folder.
absl::Status WriteAndSync(const std::string& path, int open_flags, std::string_view bytes) {
  const int descriptor = open(path.c_str(), open_flags | O_CLOEXEC, 0644);
  if (descriptor < 0) return SystemError("cannot open", path, errno);
  absl::Status status;
  if (!bytes.empty() && write(descriptor, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
    status = SystemError("cannot write", path, errno);
  } else if (fsync(descriptor) != 0) {
    status = SystemError("cannot sync", path, errno);
  }
  close(descriptor);
  return status;
}

}  // namespace

absl::StatusOr<std::optional<uint64_t>> ReadSequenceFile(const std::string& folder) {
  const std::string path = folder + "/" + kSequenceFileName;
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    if (errno == ENOENT) return std::nullopt;
    return SystemError("cannot open", path, errno);
  }
  std::array<char, kFileBytes + 1> buffer;
  const ssize_t got = read(descriptor, buffer.data(), buffer.size());
  const int error = errno;
  close(descriptor);
  if (got < 0) return SystemError("cannot read", path, error);
  const std::string_view bytes(buffer.data(), static_cast<size_t>(got));
  ByteReader reader(bytes);
  reader.GetRaw(kMagic.size());
  const auto sequence = reader.Get<uint64_t>();
  if (bytes != Encode(sequence)) return absl::DataLossError(fmt::format("{} is damaged", path));
  return sequence;
}

absl::Status WriteSequenceFile(const std::string& folder, uint64_t sequence) {
  const std::string path = folder + "/" + kSequenceFileName;
  const std::string next_path = fmt::format("{}.{}", path, sequence);
  absl::Status status = WriteAndSync(next_path, O_WRONLY | O_CREAT | O_TRUNC, Encode(sequence));
  if (status.ok() && rename(next_path.c_str(), path.c_str()) != 0)
    status = SystemError("cannot rename", next_path, errno);
  if (!status.ok()) {
    unlink(next_path.c_str());
    return status;
  }
  return WriteAndSync(folder, O_RDONLY | O_DIRECTORY, {});
}

}  // namespace epic
