#include "client/eval_command.h"

#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <iostream>
#include <memory>
#include <utility>

#include "client/compare.h"
#include "client/eval_subject.h"
#include "client/one_process.h"
#include "client/progress_line.h"
#include "core/status_macros.h"
#include "eval/gate.h"
#include "eval/run_folder.h"
#include "eval/runner.h"
#include "eval/summary.h"
#include "eval/whole_file.h"
#include "fmt/format.h"
#include "server/logging.h"
#include "server/shutdown.h"

namespace epic::client {
namespace {

namespace fs = std::filesystem;

// A folder that is gone with this object.
class TemporaryFolder {
 public:
  static absl::StatusOr<std::unique_ptr<TemporaryFolder>> Make() {
    std::string path = (fs::temp_directory_path() / "epic-eval-XXXXXX").string();
    if (mkdtemp(path.data()) == nullptr) {
      return absl::UnavailableError(
          fmt::format("cannot make a folder {}; set TMPDIR to one that can be written", path));
    }
    return std::unique_ptr<TemporaryFolder>(new TemporaryFolder(path));
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}
  const std::string path_;
};

// An EPIC of this process' own, for as long as this object lives.
struct OwnProcess {
  std::unique_ptr<TemporaryFolder> data;
  std::unique_ptr<OneProcess> epic;
};

absl::StatusOr<OwnProcess> StartOwnProcess(const EvalSubjectOptions& options) {
  EPIC_RETURN_IF_ERROR(InitLogging("epic eval", "warning"));
  OwnProcess own;
  EPIC_ASSIGN_OR_RETURN(own.data, TemporaryFolder::Make());
  OneProcessOptions process;
  process.router.server.listen_address = "127.0.0.1:0";
  process.node.data_dir = own.data->path();
  process.node.server.listen_address = "127.0.0.1:0";
  process.node.kv_dtype = options.kv_dtype;
  process.node.disk_capacity_bytes = 0;  // its folder is gone with it
  process.node.lease_socket = kNoLeaseSocket;
  process.engine.model_path = options.model;
  process.engine.threads = options.threads;
  process.worker.allowed_linkers = {"all"};  // what is to be measured cannot wait for a verdict
  process.worker.worker.shadow_share = 0;    // nothing runs beside what is timed
  EPIC_ASSIGN_OR_RETURN(own.epic, OneProcess::Start(process, nullptr));
  return own;
}

std::string TimeText(double seconds) {
  const int64_t whole = std::llround(seconds);
  return fmt::format("{:02}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

// An EPIC to ask and the means to be stopped; everything ends with it.
class Session {
 public:
  static absl::StatusOr<std::unique_ptr<Session>> Open(const CommonOptions& common, const EvalSubjectOptions& options) {
    std::unique_ptr<Session> session(new Session());
    EPIC_ASSIGN_OR_RETURN(session->shutdown_, ShutdownSignal::Install());
    ClientOptions client = common.client;
    const bool is_own = options.via == "process";
    if (is_own) {
      session->progress_.Show(fmt::format("loading {}", options.model));
      EPIC_ASSIGN_OR_RETURN(session->own_, StartOwnProcess(options));
      client.server = session->own_.epic->address();
    }
    // A run in another encoding is another run.
    const std::string own_name =
        options.kv_dtype == "bf16" ? "this process" : fmt::format("this process, chunks in {}", options.kv_dtype);
    EPIC_ASSIGN_OR_RETURN(session->subject_,
                          EvalSubject::Create(client, is_own ? "" : options.model, is_own ? own_name : client.server));
    return session;
  }

  const eval::SubjectDescription& description() const { return subject_->description(); }

  // Runs what the folder `out` lacks of the task.
  absl::StatusOr<std::unique_ptr<eval::RunFolder>> Run(const eval::Task& task, uint64_t seed,
                                                       const std::vector<eval::EvalLinker>& linkers,
                                                       const std::string& out) {
    const eval::SubjectDescription& what = description();
    EPIC_ASSIGN_OR_RETURN(
        std::unique_ptr<eval::RunFolder> folder,
        eval::RunFolder::Open(out, {task.name, task.data_digest, task.prompt_template, eval::MetricName(task.metric),
                                    task.output_tokens_max, seed, what.model, what.fingerprint, what.engine_version,
                                    ProcessorName(), what.via}));
    eval::RunHooks hooks;
    hooks.progress = [&](const eval::RunProgress& at) { return ShowProgress(task, at); };
    hooks.pause = [&](std::chrono::milliseconds pause) { shutdown_->WaitFor(pause); };
    EPIC_RETURN_IF_ERROR(eval::RunEvaluation(task, linkers, *subject_, *folder, hooks));
    progress_.Clear();
    return folder;
  }

 private:
  absl::Status ShowProgress(const eval::Task& task, const eval::RunProgress& at) {
    if (shutdown_->WaitFor(std::chrono::milliseconds(0))) {
      return absl::CancelledError(fmt::format("stopped by {} after {} of {} examples; the same command goes on",
                                              shutdown_->Wait(), at.examples_done, at.examples));
    }
    progress_.Show(fmt::format("{}: example {} of {}, {}{}", task.name, at.examples_done + 1, at.examples, at.linker,
                               at.seconds_left < 0 ? "" : ", about " + TimeText(at.seconds_left) + " left"));
    return absl::OkStatus();
  }

  // In the order of their making: what is used outlives its users.
  std::unique_ptr<ShutdownSignal> shutdown_;
  ProgressLine progress_;
  OwnProcess own_;
  std::unique_ptr<EvalSubject> subject_;
};

std::vector<std::string> Names(const std::vector<eval::EvalLinker>& linkers) {
  std::vector<std::string> names;
  for (const eval::EvalLinker& linker : linkers) names.push_back(linker.name);
  return names;
}

// A model's name as a file's.
std::string FileName(const std::string& model) {
  std::string name;
  for (const char c : model) {
    const bool is_kept = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.';
    name += is_kept ? c : '-';
  }
  return name.empty() || name.front() == '.' ? "model" + name : name;
}

absl::Status Print(const CommonOptions& common, const std::vector<eval::RunSummary>& summaries) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const eval::RunSummary& summary : summaries) {
    if (common.json) {
      json.push_back(eval::SummaryJson(summary));
    } else {
      std::cout << eval::SummaryMarkdown(summary) << "\n";
    }
  }
  if (common.json) std::cout << json.dump(2) << "\n";
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string> DefaultEvalLinkers() {
  return {"full",
          "prefix",
          "naive",
          "naive-last",
          "cacheblend:5",
          "cacheblend:15",
          "legolink:0",
          "legolink:1",
          "legolink:2",
          "legolink:4",
          "legolink:8",
          "legolink:16",
          "legolink:32",
          "random:15",
          "random:=legolink:16",
          "cacheblend:=legolink:16",
          "naive@document",
          "legolink:16@document",
          "random:=legolink:16@document",
          "cacheblend:=legolink:16@document"};
}

std::vector<std::string> DefaultGateLinkers() {
  return {"legolink:16",   "legolink:16@document",   "legolink:64", "legolink:64@document",
          "cacheblend:15", "cacheblend:15@document", "legolink:2",  "legolink:0",
          "naive",         "naive@document"};
}

absl::Status RunEval(const CommonOptions& common, const EvalOptions& options) {
  // What can be refused is refused before a model is loaded.
  EPIC_ASSIGN_OR_RETURN(const std::vector<eval::EvalLinker> linkers, eval::ParseEvalLinkers(options.linkers));
  EPIC_ASSIGN_OR_RETURN(const eval::Task task, eval::LoadTask(options.task));
  EPIC_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, Session::Open(common, options.subject));
  const std::string out = options.out.empty()
                              ? fmt::format(".epic/eval/{}/{}", FileName(session->description().model), task.name)
                              : options.out;
  EPIC_ASSIGN_OR_RETURN(const std::unique_ptr<eval::RunFolder> folder,
                        session->Run(task, options.task.seed, linkers, out));
  EPIC_ASSIGN_OR_RETURN(const eval::RunSummary summary, eval::Summarize(*folder, Names(linkers)));
  EPIC_RETURN_IF_ERROR(eval::WriteSummary(summary, out));
  EPIC_RETURN_IF_ERROR(Print(common, {summary}));
  std::cerr << fmt::format("written to {}: outcomes.jsonl, summary.md, summary.json and plots\n", out);
  return absl::OkStatus();
}

absl::Status RunEvalGate(const CommonOptions& common, const GateOptions& options) {
  EPIC_ASSIGN_OR_RETURN(const std::vector<eval::EvalLinker> linkers, eval::ParseEvalLinkers(options.linkers));
  EPIC_ASSIGN_OR_RETURN(const eval::Task task, eval::LoadGateTask(options.data));
  EPIC_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session, Session::Open(common, options.subject));
  const std::string name = FileName(session->description().model);
  EPIC_ASSIGN_OR_RETURN(
      const std::unique_ptr<eval::RunFolder> folder,
      session->Run(task, 0, linkers, options.run.empty() ? fmt::format(".epic/eval/{}/gate", name) : options.run));
  EPIC_ASSIGN_OR_RETURN(const ModelVerdicts verdicts, eval::JudgeRun(*folder, linkers, VerdictThresholds()));
  const std::string out = options.out.empty() ? fmt::format("quality/verdicts/{}.json", name) : options.out;
  std::error_code error;
  fs::create_directories(fs::absolute(out).parent_path(), error);  // where it fails, writing says so
  EPIC_RETURN_IF_ERROR(eval::WriteFileWhole(out, VerdictsToJson(verdicts)));
  std::cout << (common.json ? VerdictsToJson(verdicts) : eval::VerdictTable(verdicts));
  std::cerr << fmt::format("written to {}\n", out);
  return absl::OkStatus();
}

absl::Status RunEvalReport(const CommonOptions& common, const std::vector<std::string>& folders) {
  std::vector<eval::RunSummary> summaries;
  for (const std::string& path : folders) {
    EPIC_ASSIGN_OR_RETURN(const std::unique_ptr<eval::RunFolder> folder, eval::RunFolder::Read(path));
    EPIC_ASSIGN_OR_RETURN(eval::RunSummary summary, eval::Summarize(*folder, {}));
    summaries.push_back(std::move(summary));
  }
  return Print(common, summaries);
}

}  // namespace epic::client
