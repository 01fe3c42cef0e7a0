#include "tests/faultfs/image.h"

#include <dirent.h>
#include <sys/random.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>
#include <utility>

#include "tests/faultfs/system_calls.h"

namespace epic::faultfs {
namespace {

constexpr char kAttribute[] = "user.epic_faultfs_id";
constexpr size_t kIdCharactersMax = 32;
constexpr int64_t kPieceBytes = int64_t{1} << 20;

std::string NewId() {
  std::array<unsigned char, kIdCharactersMax / 2> bytes;
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) Die("no random bytes");
  std::string id;
  for (const unsigned char byte : bytes) {
    id += "0123456789abcdef"[byte / 16];
    id += "0123456789abcdef"[byte % 16];
  }
  return id;
}

// Writes [begin, end) of `from` over the same bytes of `to`; all of it is data in `from`, or becomes so.
void CopyData(int from, int to, int64_t begin, int64_t end) {
  std::string piece;
  while (begin < end) {
    piece.resize(static_cast<size_t>(std::min(end - begin, kPieceBytes)));
    const ssize_t got = system::PositionedRead(from, piece.data(), piece.size(), begin);
    if (got < 0) Die("cannot read a watched file");
    if (got == 0) return;  // cut short meanwhile
    if (system::PositionedWrite(to, piece.data(), static_cast<size_t>(got), begin) != got) {
      Die("cannot write to the durable image");
    }
    begin += got;
  }
}

// Makes [begin, end) of `descriptor` zeros, as far as it reaches.
void Punch(int descriptor, int64_t begin, int64_t end) {
  if (begin < end &&
      system::Allocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, begin, end - begin) != 0) {
    Die("cannot make a hole in the durable image");
  }
}

void WriteWhole(const std::string& path, const std::string& bytes) {
  const system::Descriptor file(system::Open(path, O_WRONLY | O_CREAT | O_TRUNC));
  if (file.get() < 0 || system::Write(file.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
    Die("cannot write " + path);
  }
}

}  // namespace

void Die(const std::string& what) {
  const std::string message = "epic_faultfs: " + what + " (" + std::strerror(errno) + ")\n";
  static_cast<void>(system::Write(STDERR_FILENO, message.data(), message.size()));
  std::abort();
}

std::optional<std::string> IdOfDescriptor(int descriptor) {
  std::array<char, kIdCharactersMax> id;
  const ssize_t size = fgetxattr(descriptor, kAttribute, id.data(), id.size());
  if (size < 0) return std::nullopt;
  return std::string(id.data(), static_cast<size_t>(size));
}

std::optional<std::string> EnsureId(const std::string& path) {
  while (true) {
    std::array<char, kIdCharactersMax> id;
    const ssize_t size = getxattr(path.c_str(), kAttribute, id.data(), id.size());
    if (size >= 0) return std::string(id.data(), static_cast<size_t>(size));
    if (errno == ENOENT) return std::nullopt;
    if (errno != ENODATA) Die("cannot read the identity of " + path);
    const std::string fresh = NewId();
    if (setxattr(path.c_str(), kAttribute, fresh.data(), fresh.size(), XATTR_CREATE) != 0 && errno != EEXIST &&
        errno != ENOENT) {
      Die("cannot give an identity to " + path + ": its file system must have user extended attributes");
    }
  }
}

std::string AssignId(const std::string& path, const std::string& id) {
  std::string assigned = id.empty() ? NewId() : id;
  if (setxattr(path.c_str(), kAttribute, assigned.data(), assigned.size(), 0) != 0) {
    Die("cannot give an identity to " + path + ": its file system must have user extended attributes");
  }
  return assigned;
}

std::vector<Name> ListFolder(const std::string& path) {
  const int descriptor = system::Open(path, O_RDONLY | O_DIRECTORY);
  DIR* const folder = descriptor < 0 ? nullptr : fdopendir(descriptor);
  if (folder == nullptr) Die("cannot list " + path);
  std::vector<Name> names;
  while (const dirent* const entry = readdir(folder)) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    std::string child = path;
    child.append("/").append(name);
    struct stat status;
    if (fstatat(descriptor, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) continue;  // gone meanwhile
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) continue;
    if (name.find('\n') != std::string::npos) Die("a name with a line break cannot be kept: " + child);
    if (const auto id = EnsureId(child)) names.push_back({name, *id, S_ISDIR(status.st_mode)});
  }
  closedir(folder);
  std::sort(names.begin(), names.end(), [](const Name& a, const Name& b) { return a.name < b.name; });
  return names;
}

void CopyBytes(int from, int to, int64_t begin, int64_t end) {
  struct stat status;
  struct stat to_status;
  if (fstat(from, &status) != 0 || fstat(to, &to_status) != 0) Die("cannot look at a file");
  end = std::min<int64_t>(end, status.st_size);
  while (begin < end) {
    int64_t data = lseek(from, begin, SEEK_DATA);
    if (data < 0) data = end;
    data = std::min(data, end);
    Punch(to, begin, std::min<int64_t>(data, to_status.st_size));
    if (data == end) return;
    int64_t hole = lseek(from, data, SEEK_HOLE);
    if (hole < 0) hole = end;
    begin = std::min(hole, end);
    CopyData(from, to, data, begin);
  }
}

void Image::SyncBytes(int descriptor, const std::string& id, const ByteRanges& ranges) const {
  const system::Descriptor from(system::Open(system::DescriptorPath(descriptor), O_RDONLY));
  const system::Descriptor to(system::Open(BytesPath(id), O_RDWR | O_CREAT));
  struct stat status;
  if (from.get() < 0 || to.get() < 0 || fstat(from.get(), &status) != 0) Die("cannot sync into " + BytesPath(id));
  for (const auto& [begin, end] : ranges.ranges()) {
    CopyBytes(from.get(), to.get(), begin, std::min<int64_t>(end, status.st_size));
  }
  if (system::Truncate(to.get(), status.st_size) != 0) Die("cannot set the size of " + BytesPath(id));
}

void Image::SyncRange(int descriptor, const std::string& id, int64_t begin, int64_t end) const {
  const system::Descriptor from(system::Open(system::DescriptorPath(descriptor), O_RDONLY));
  const system::Descriptor to(system::Open(BytesPath(id), O_RDWR | O_CREAT));
  if (from.get() < 0 || to.get() < 0) Die("cannot sync into " + BytesPath(id));
  CopyData(from.get(), to.get(), begin, end);
}

void Image::SyncNames(const std::string& folder_path, const std::string& id) const {
  std::ostringstream lines;
  for (const Name& name : ListFolder(folder_path)) {
    lines << (name.is_folder ? 'd' : 'f') << ' ' << name.id << ' ' << name.name << '\n';
  }
  const std::string next_path = NamesPath(id) + ".next";
  WriteWhole(next_path, lines.str());
  if (system::Rename(next_path, NamesPath(id)) != 0) Die("cannot replace " + NamesPath(id));
}

std::vector<Name> Image::Names(const std::string& id) const {
  const system::Descriptor file(system::Open(NamesPath(id), O_RDONLY));
  if (file.get() < 0) {
    if (errno != ENOENT) Die("cannot open " + NamesPath(id));
    return {};
  }
  std::string text;
  std::array<char, 4096> piece;
  while (true) {
    const ssize_t got = system::Read(file.get(), piece.data(), piece.size());
    if (got < 0) Die("cannot read " + NamesPath(id));
    if (got == 0) break;
    text.append(piece.data(), static_cast<size_t>(got));
  }
  std::vector<Name> names;
  std::istringstream lines(text);
  Name name;
  std::string kind;
  while (lines >> kind >> name.id && lines.get() == ' ' && std::getline(lines, name.name)) {
    name.is_folder = kind == "d";
    names.push_back(name);
  }
  return names;
}

void Image::Create(const std::string& root) const {
  for (const char* const part : {"", "/bytes", "/names"}) {
    if (mkdir((folder_ + part).c_str(), 0755) != 0) Die("cannot make " + folder_ + part);
  }
  AssignId(root, kRootId);
  std::vector<std::pair<std::string, std::string>> folders = {{root, kRootId}};
  std::map<ino_t, std::string> ids;  // of files with several names
  while (!folders.empty()) {
    const auto [path, id] = folders.back();
    folders.pop_back();
    for (const Name& name : ListFolder(path)) {
      const std::string child = path + "/" + name.name;
      if (name.is_folder) {
        folders.emplace_back(child, AssignId(child));
        continue;
      }
      const system::Descriptor file(system::Open(child, O_RDONLY));
      struct stat status;
      if (file.get() < 0 || fstat(file.get(), &status) != 0) Die("cannot open " + child);
      if (!ids.emplace(status.st_ino, "").second) continue;
      ByteRanges everything;
      everything.Add(0, ByteRanges::kEndless);
      SyncBytes(file.get(), AssignId(child), everything);
    }
    SyncNames(path, id);
  }
}

}  // namespace epic::faultfs
