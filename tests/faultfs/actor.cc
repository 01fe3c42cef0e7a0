// Does file operations that a test dictates, through the calls that real programs use, until it is killed.
//
// Reads one command a line from standard input; answers each with a line: "ok", the bytes that a reading command read,
// or the name of the error. HANDLE is any word; it stands for an open descriptor.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "fmt/format.h"

namespace {

constexpr size_t kBlockBytes = 4096;  // of O_DIRECT

using Words = std::vector<std::string>;
using Command = std::function<std::string(const Words&)>;

std::string Outcome(long result) { return result >= 0 ? "ok" : strerrorname_np(errno); }

class Actor {
 public:
  Actor() {
    AddOpening();
    AddWriting();
    AddNames();
    AddReading();
  }

  std::string Run(const Words& words) {
    const auto command = commands_.find(words[0]);
    return command == commands_.end() ? "no such command" : command->second(words);
  }

 private:
  int Handle(const Words& words) { return handles_.at(words.at(1)); }
  static long Number(const std::string& word) { return std::atol(word.c_str()); }

  void AddOpening();
  void AddWriting();
  void AddNames();
  void AddReading();

  std::map<std::string, Command> commands_;
  std::map<std::string, int> handles_;
};

void Actor::AddOpening() {
  // open HANDLE PATH FLAG...
  commands_["open"] = [this](const Words& words) {
    const std::map<std::string, int> flags = {
        {"rw", O_RDWR},     {"read", O_RDONLY},   {"create", O_CREAT}, {"trunc", O_TRUNC},  {"append", O_APPEND},
        {"dsync", O_DSYNC}, {"direct", O_DIRECT}, {"sync", O_SYNC},    {"write", O_WRONLY}, {"folder", O_DIRECTORY}};
    int all = 0;
    for (size_t i = 3; i < words.size(); ++i) all |= flags.at(words[i]);
    const int descriptor = open(words.at(2).c_str(), all, 0644);
    if (descriptor >= 0) handles_[words[1]] = descriptor;
    return Outcome(descriptor);
  };
  commands_["creat"] = [this](const Words& words) {
    return Outcome(handles_[words.at(1)] = creat(words.at(2).c_str(), 0644));
  };
  commands_["dup"] = [this](const Words& words) { return Outcome(handles_[words.at(2)] = dup(Handle(words))); };
  commands_["close"] = [this](const Words& words) { return Outcome(close(Handle(words))); };
  commands_["fsync"] = [this](const Words& words) { return Outcome(fsync(Handle(words))); };
  commands_["fdatasync"] = [this](const Words& words) { return Outcome(fdatasync(Handle(words))); };
  commands_["sync_file_range"] = [this](const Words& words) {
    return Outcome(sync_file_range(Handle(words), 0, 0,
                                   SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER));
  };
  commands_["syncfolder"] = [](const Words& words) {
    const int folder = open(words.at(1).c_str(), O_RDONLY | O_DIRECTORY);
    std::string outcome = folder < 0 ? Outcome(folder) : Outcome(fsync(folder));
    close(folder);
    return outcome;
  };
}

void Actor::AddWriting() {
  // "short N" where fewer bytes were written.
  const auto written = [](ssize_t count, size_t expected) {
    return count < 0 || count == static_cast<ssize_t>(expected) ? Outcome(count) : fmt::format("short {}", count);
  };
  commands_["write"] = [=, this](const Words& words) {
    return written(write(Handle(words), words.at(2).data(), words[2].size()), words[2].size());
  };
  commands_["pwrite"] = [=, this](const Words& words) {
    return written(pwrite(Handle(words), words.at(3).data(), words[3].size(), Number(words[2])), words[3].size());
  };
  // writev HANDLE FIRST SECOND
  commands_["writev"] = [=, this](const Words& words) {
    std::string first = words.at(2);
    std::string second = words.at(3);
    const std::array<iovec, 2> pieces = {iovec{first.data(), first.size()}, iovec{second.data(), second.size()}};
    return written(writev(Handle(words), pieces.data(), 2), first.size() + second.size());
  };
  // pwritev2 HANDLE OFFSET TEXT: with RWF_DSYNC
  commands_["pwritev2"] = [=, this](const Words& words) {
    std::string text = words.at(3);
    const iovec piece{text.data(), text.size()};
    return written(pwritev2(Handle(words), &piece, 1, Number(words[2]), RWF_DSYNC), text.size());
  };
  // fill HANDLE OFFSET BLOCKS CHARACTER: aligned, as O_DIRECT wants it
  commands_["fill"] = [=, this](const Words& words) {
    const size_t bytes = kBlockBytes * static_cast<size_t>(Number(words.at(3)));
    const std::unique_ptr<void, decltype(&std::free)> block(std::aligned_alloc(kBlockBytes, bytes), &std::free);
    std::memset(block.get(), words.at(4)[0], bytes);
    return written(pwrite(Handle(words), block.get(), bytes, Number(words[2])), bytes);
  };
  commands_["ftruncate"] = [this](const Words& words) {
    return Outcome(ftruncate(Handle(words), Number(words.at(2))));
  };
  commands_["truncate"] = [](const Words& words) {
    return Outcome(truncate(words.at(1).c_str(), Number(words.at(2))));
  };
  commands_["fallocate"] = [this](const Words& words) {
    return Outcome(fallocate(Handle(words), 0, Number(words.at(2)), Number(words.at(3))));
  };
  commands_["punch"] = [this](const Words& words) {
    return Outcome(
        fallocate(Handle(words), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, Number(words.at(2)), Number(words.at(3))));
  };
  // map HANDLE OFFSET TEXT: writes through a shared mapping
  commands_["map"] = [this](const Words& words) -> std::string {
    void* const page = mmap(nullptr, kBlockBytes, PROT_READ | PROT_WRITE, MAP_SHARED, Handle(words), 0);
    if (page == MAP_FAILED) return Outcome(-1);
    std::memcpy(static_cast<char*>(page) + Number(words.at(2)), words.at(3).data(), words[3].size());
    munmap(page, kBlockBytes);
    return "ok";
  };
  // stdio PATH TEXT: fopen, fwrite, fflush, fsync, fclose
  commands_["stdio"] = [](const Words& words) {
    FILE* const stream = fopen(words.at(1).c_str(), "w");
    if (stream == nullptr) return Outcome(-1);
    fwrite(words.at(2).data(), 1, words[2].size(), stream);
    fflush(stream);
    std::string outcome = Outcome(fsync(fileno(stream)));
    fclose(stream);
    return outcome;
  };
  // stream PATH TEXT: std::ofstream, which cannot sync
  commands_["stream"] = [](const Words& words) {
    std::ofstream(words.at(1)) << words.at(2);
    return std::string("ok");
  };
  // copy FROM TO, from where each handle stands
  commands_["copy"] = [this](const Words& words) {
    return Outcome(copy_file_range(Handle(words), nullptr, handles_.at(words.at(2)), nullptr, kBlockBytes, 0));
  };
  commands_["sendfile"] = [this](const Words& words) {
    return Outcome(sendfile(handles_.at(words.at(2)), Handle(words), nullptr, kBlockBytes));
  };
  // threads FOLDER COUNT ROUNDS: each thread appends to a log of its own and syncs it, ROUNDS times
  commands_["threads"] = [](const Words& words) {
    std::vector<std::thread> threads;
    for (long i = 0; i < Number(words.at(2)); ++i) {
      threads.emplace_back([path = fmt::format("{}/log{}", words[1], i), rounds = Number(words.at(3))] {
        const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
        for (long round = 0; round < rounds; ++round) {
          if (write(descriptor, "0123456789", 10) != 10 || fdatasync(descriptor) != 0) std::abort();
        }
        close(descriptor);
      });
    }
    for (std::thread& thread : threads) thread.join();
    return std::string("ok");
  };
}

void Actor::AddNames() {
  commands_["rename"] = [](const Words& words) { return Outcome(rename(words.at(1).c_str(), words.at(2).c_str())); };
  commands_["unlink"] = [](const Words& words) { return Outcome(unlink(words.at(1).c_str())); };
  commands_["remove"] = [](const Words& words) { return Outcome(remove(words.at(1).c_str())); };
  commands_["link"] = [](const Words& words) { return Outcome(link(words.at(1).c_str(), words.at(2).c_str())); };
  commands_["mkdir"] = [](const Words& words) { return Outcome(mkdir(words.at(1).c_str(), 0755)); };
  commands_["rmdir"] = [](const Words& words) { return Outcome(rmdir(words.at(1).c_str())); };
}

void Actor::AddReading() {
  // space PATH: bytes that can be written, "much" beyond 1 GiB
  commands_["space"] = [](const Words& words) -> std::string {
    struct statvfs found;
    if (statvfs(words.at(1).c_str(), &found) != 0) return Outcome(-1);
    const uint64_t bytes = uint64_t{found.f_bavail} * found.f_frsize;
    return bytes > (uint64_t{1} << 30) ? "much" : std::to_string(bytes);
  };
  // pread HANDLE OFFSET BYTES
  commands_["pread"] = [this](const Words& words) {
    std::string text(static_cast<size_t>(Number(words.at(3))), '\0');
    const ssize_t got = pread(Handle(words), text.data(), text.size(), Number(words[2]));
    return got < 0 ? Outcome(got) : fmt::format("<{}>", text.substr(0, static_cast<size_t>(got)));
  };
  // fread PATH BYTES, as RocksDB reads its logs
  commands_["fread"] = [](const Words& words) {
    const int descriptor = open(words.at(1).c_str(), O_RDONLY);
    FILE* const stream = fdopen(descriptor, "r");
    std::string text(static_cast<size_t>(Number(words.at(2))), '\0');
    errno = 0;
    const size_t got = fread_unlocked(text.data(), 1, text.size(), stream);
    std::string outcome = ferror(stream) ? Outcome(-1) : fmt::format("<{}>", text.substr(0, got));
    fclose(stream);
    return outcome;
  };
}

}  // namespace

int main() {
  Actor actor;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream stream(line);
    Words words;
    for (std::string word; stream >> word;) words.push_back(word);
    std::cout << actor.Run(words) << std::endl;
  }
}
