#include "eval/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/status_macros.h"
#include "eval/json_members.h"
#include "eval/whole_file.h"
#include "fmt/format.h"

namespace epic::eval {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr char kIdentityFile[] = "run.json";
constexpr char kOutcomesFile[] = "outcomes.jsonl";
constexpr char kFormat[] = "epic-eval-1";

// Calls `visit` with the name and the member of everything that makes a run what it is, in this order.
template <typename Identity, typename Visit>
void VisitMembers(Identity& identity, const Visit& visit) {
  visit("task", identity.task);
  visit("data_digest", identity.data_digest);
  visit("prompt_template", identity.prompt_template);
  visit("metric", identity.metric);
  visit("output_tokens_max", identity.output_tokens_max);
  visit("seed", identity.seed);
  visit("model", identity.model);
  visit("fingerprint", identity.fingerprint);
  visit("engine_version", identity.engine_version);
  visit("processor", identity.processor);
  visit("via", identity.via);
}

Json ToJson(const RunIdentity& identity) {
  Json json{{"format", kFormat}};
  VisitMembers(identity, [&](const char* name, const auto& member) { json[name] = member; });
  return json;
}

absl::StatusOr<RunIdentity> ReadIdentity(const std::string& folder) {
  const std::string path = folder + "/" + kIdentityFile;
  if (!fs::exists(path)) {
    return absl::InvalidArgumentError(
        fmt::format("{} has no {}: it is not the folder of a run of epic eval", folder, kIdentityFile));
  }
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonFile(path));
  const JsonObject object(json, path);
  std::string format;
  if (!TakeMember(object, "format", format).ok() || format != kFormat) {
    return absl::FailedPreconditionError(
        fmt::format("{} is not of format {}: it is damaged, or of another version of EPIC", path, kFormat));
  }
  RunIdentity identity;
  absl::Status status;
  VisitMembers(identity, [&](const char* name, auto& member) { status.Update(TakeMember(object, name, member)); });
  if (!status.ok()) return status;
  return identity;
}

// The first member in which two runs differ, in words; empty where they are the same.
std::string Difference(const RunIdentity& held, const RunIdentity& wanted) {
  const Json ours = ToJson(held);
  std::string difference;
  VisitMembers(wanted, [&](const char* name, const auto& member) {
    const Json value = member;
    if (difference.empty() && ours[name] != value) {
      difference = fmt::format("its {} is {}, this run's is {}", name, ours[name].dump(), value.dump());
    }
  });
  return difference;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunFolder>> RunFolder::Open(const std::string& path, const RunIdentity& identity) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return absl::UnavailableError(fmt::format("cannot make folder {}: {}", path, error.message()));
  if (fs::is_empty(path, error)) {
    EPIC_RETURN_IF_ERROR(WriteFileWhole(path + "/" + kIdentityFile, ToJson(identity).dump(2) + "\n"));
  }
  EPIC_ASSIGN_OR_RETURN(const RunIdentity held, ReadIdentity(path));
  if (const std::string difference = Difference(held, identity); !difference.empty()) {
    return absl::FailedPreconditionError(
        fmt::format("{} holds another run: {}; give this run a folder of its own with --out", path, difference));
  }
  std::unique_ptr<RunFolder> folder(new RunFolder(path, identity));
  const std::string outcomes = path + "/" + kOutcomesFile;
  folder->file_ = open(outcomes.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (folder->file_ < 0) return FileError("open", outcomes);
  if (flock(folder->file_, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(fmt::format("another process writes to {}", outcomes));
  }
  EPIC_RETURN_IF_ERROR(folder->ReadOutcomes(true));
  return folder;
}

absl::StatusOr<std::unique_ptr<RunFolder>> RunFolder::Read(const std::string& path) {
  if (!fs::is_directory(path)) return absl::NotFoundError(fmt::format("there is no folder {}", path));
  EPIC_ASSIGN_OR_RETURN(RunIdentity identity, ReadIdentity(path));
  std::unique_ptr<RunFolder> folder(new RunFolder(path, std::move(identity)));
  EPIC_RETURN_IF_ERROR(folder->ReadOutcomes(false));
  return folder;
}

RunFolder::~RunFolder() {
  if (file_ >= 0) close(file_);
}

absl::Status RunFolder::ReadOutcomes(bool mend) {
  const std::string path = path_ + "/" + kOutcomesFile;
  if (!fs::exists(path)) return absl::OkStatus();
  std::ifstream file(path, std::ios::binary);
  if (!file) return FileError("open", path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  size_t begin = 0;
  for (int line = 1; begin < text.size(); ++line) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) {
      // The process ended while it wrote this line.
      if (mend && ftruncate(file_, static_cast<off_t>(begin)) != 0) return FileError("shorten", path);
      return absl::OkStatus();
    }
    const absl::Status read =
        ReadLine(std::string_view(text).substr(begin, end - begin), fmt::format("{}, line {}", path, line));
    if (!read.ok()) return absl::FailedPreconditionError(fmt::format("damaged: {}", std::string(read.message())));
    begin = end + 1;
  }
  return absl::OkStatus();
}

absl::Status RunFolder::ReadLine(std::string_view text, const std::string& place) {
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, place));
  if (!json.is_object()) return absl::InvalidArgumentError(fmt::format("{}: it is no JSON object", place));
  const JsonObject line(json, place);
  if (IsSkip(line)) {
    EPIC_ASSIGN_OR_RETURN(Skip skip, SkipFromJson(line));
    Take(std::move(skip));
  } else {
    EPIC_ASSIGN_OR_RETURN(Outcome outcome, OutcomeFromJson(line));
    Take(std::move(outcome));
  }
  return absl::OkStatus();
}

void RunFolder::Take(Outcome outcome) {
  index_[{outcome.example, outcome.linker}] = outcomes_.size();
  outcomes_.push_back(std::move(outcome));
}

void RunFolder::Take(Skip skip) {
  skipped_ids_.insert(skip.id);
  skipped_.push_back(std::move(skip));
}

absl::Status RunFolder::Append(const Json& json) {
  // An answer may end within a character; what is not UTF-8 is replaced, token_ids say what it was.
  return WriteAndSync(file_, json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n",
                      path_ + "/" + kOutcomesFile);
}

absl::Status RunFolder::Add(const Outcome& outcome) {
  EPIC_RETURN_IF_ERROR(Append(eval::ToJson(outcome)));
  Take(outcome);
  return absl::OkStatus();
}

absl::Status RunFolder::Add(const Skip& skip) {
  EPIC_RETURN_IF_ERROR(Append(eval::ToJson(skip)));
  Take(skip);
  return absl::OkStatus();
}

const Outcome* RunFolder::Find(const std::string& example, const std::string& linker) const {
  const auto it = index_.find({example, linker});
  return it == index_.end() ? nullptr : &outcomes_[it->second];
}

}  // namespace epic::eval
