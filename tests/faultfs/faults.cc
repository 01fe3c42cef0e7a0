#include "tests/faultfs/faults.h"

#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <sstream>

#include "tests/faultfs/image.h"
#include "tests/faultfs/system_calls.h"

namespace epic::faultfs {

std::optional<Rules> Rules::Parse(std::string_view text, std::string* error) {
  Rules rules;
  std::istringstream lines{std::string(text)};
  std::string line;
  while (std::getline(lines, line)) {
    if (line.empty()) continue;
    *error = line;
    std::istringstream words(line);
    std::string what;
    std::string when;
    words >> what;
    if (what == "space") {
      int64_t bytes = -1;
      if (!(words >> bytes) || bytes < 0) return std::nullopt;
      rules.space_bytes_ = bytes;
    } else if (what == "read" || what == "sync") {
      Rule rule{what == "read" ? Operation::kRead : Operation::kSync, When::kEvery, 0, ""};
      words >> when;
      if (when == "nth" || when == "after") {
        rule.when = when == "nth" ? When::kNth : When::kAfter;
        if (!(words >> rule.number) || rule.number < 0) return std::nullopt;
      } else if (when != "every") {
        return std::nullopt;
      }
      if (!(words >> rule.pattern)) return std::nullopt;
      rules.rules_.push_back(rule);
    } else {
      return std::nullopt;
    }
    if (words >> what) return std::nullopt;  // more than was expected
  }
  return rules;
}

bool Rules::Fails(Operation operation, const std::string& path) {
  bool fails = false;
  for (Rule& rule : rules_) {
    if (rule.operation != operation || fnmatch(rule.pattern.c_str(), path.c_str(), 0) != 0) continue;
    ++rule.seen;
    fails = fails || rule.when == When::kEvery || (rule.when == When::kNth && rule.seen == rule.number) ||
            (rule.when == When::kAfter && rule.seen > rule.number);
  }
  return fails;
}

int64_t Rules::TakeSpace(int64_t bytes) {
  if (!space_bytes_) return bytes;
  const int64_t taken = std::min(bytes, *space_bytes_);
  *space_bytes_ -= taken;
  return taken;
}

bool Faults::Fails(Operation operation, const std::string& path) {
  const MutexLock lock(mutex_);
  ReadAgainIfChanged();
  if (!rules_.Fails(operation, path)) return false;
  Record(operation == Operation::kRead ? "read" : "sync", path);
  return true;
}

int64_t Faults::TakeSpace(int64_t bytes, const std::string& path) {
  const MutexLock lock(mutex_);
  ReadAgainIfChanged();
  const int64_t taken = rules_.TakeSpace(bytes);
  if (taken < bytes) Record("space", path);
  return taken;
}

bool Faults::HasSpaceFor(int64_t bytes, const std::string& path) {
  const MutexLock lock(mutex_);
  ReadAgainIfChanged();
  if (rules_.HasSpaceFor(bytes)) return true;
  Record("space", path);
  return false;
}

std::optional<int64_t> Faults::SpaceBytes() {
  const MutexLock lock(mutex_);
  ReadAgainIfChanged();
  return rules_.space_bytes();
}

void Faults::ReadAgainIfChanged() {
  const system::KeepErrno keep;
  std::optional<FileState> state;
  struct stat status;
  if (stat(control_path_.c_str(), &status) == 0) {
    state = {status.st_ino, status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_size};
  }
  if (state == state_) return;
  state_ = state;
  std::string text;
  if (state) {
    const system::Descriptor file(system::Open(control_path_, O_RDONLY));
    std::array<char, 4096> piece;
    ssize_t got = 0;
    while ((got = system::Read(file.get(), piece.data(), piece.size())) > 0) {
      text.append(piece.data(), static_cast<size_t>(got));
    }
    if (got < 0) Die("cannot read the control file " + control_path_);
  }
  std::string error;
  const std::optional<Rules> rules = Rules::Parse(text, &error);
  if (!rules) Die("a line of the control file " + control_path_ + " cannot be understood: " + error);
  rules_ = *rules;
}

void Faults::Record(const char* kind, const std::string& path) {
  const system::KeepErrno keep;
  const system::Descriptor file(system::Open(control_path_ + ".injected", O_WRONLY | O_CREAT | O_APPEND));
  const std::string line = std::string(kind) + " " + path + "\n";
  if (system::Write(file.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    Die("cannot record a fault beside " + control_path_);
  }
}

}  // namespace epic::faultfs
