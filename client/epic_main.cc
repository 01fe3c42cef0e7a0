// The `epic` command.
#include <cstdlib>
#include <iostream>
#include <limits>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "client/cache_command.h"
#include "client/commands.h"
#include "client/eval_command.h"
#include "client/model_files.h"
#include "client/offline_verify.h"
#include "client/up.h"
#include "engine/files/synthetic_model.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/server_options.h"

namespace epic::client {
namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;

int Report(const absl::Status& status) {
  if (status.ok()) return 0;
  std::cerr << "epic: " << std::string(status.message()) << "\n";
  return kExitFailure;
}

// Declares everything on `app`; the chosen command is in `run` after parsing.
struct Commands {
  explicit Commands(CLI::App& app) {
    app.require_subcommand(1);
    app.set_version_flag("--version", EpicVersion());
    app.fallthrough();
    app.add_option("--server", common.client.server, "router to talk to, HOST:PORT")
        ->envname("EPIC_SERVER")
        ->capture_default_str();
    app.add_option("--tenant", common.client.tenant, "whose documents; empty: default")->envname("EPIC_TENANT");
    app.add_option("--timeout-ms", timeout_ms, "for everything but answers and waiting")
        ->check(CLI::Range(1, 86'400'000))
        ->capture_default_str();
    app.add_option("--format", format, "table or json")->check(CLI::IsMember({"table", "json"}))->capture_default_str();
    // Listed for --help; its options are parsed by the roles' own configuration.
    app.add_subcommand("up", "start EPIC: all three roles in this process (epic up --help)")->prefix_command();
    AddRegister(app);
    AddAsk(app);
    AddDocuments(app);
    CLI::App* status = app.add_subcommand("status", "what EPIC is made of and how busy it is");
    status->callback([this] { run = [this] { return RunStatus(common); }; });
    AddModels(app);
    AddEval(app);
    DeclareCacheCommand(app, &cache_options,
                        [this] { run = [this] { return RunCache(common, cache_options, VerifyOffline); }; });
  }

  void AddRegister(CLI::App& app) {
    CLI::App* command =
        app.add_subcommand("register", "register text files as documents and wait until they are compiled");
    command->add_option("files", register_options.files, "text files (UTF-8)")->required();
    command->add_option("--id", register_options.id,
                        "document id (one file only); default: the file's name without extension");
    command->add_option("--label", register_options.labels, "KEY=VALUE, may be repeated");
    command
        ->add_option("--ttl-seconds", register_options.time_to_live_seconds,
                     "forget the document after this time; 0: never")
        ->check(CLI::Range(int64_t{0}, int64_t{3'153'600'000}));
    command->add_option("--recipe", register_options.recipe,
                        "how it is compiled: plain, each chunk alone, or document, each chunk in sight of those before "
                        "it; default: the node's");
    command->add_flag("--wait,!--no-wait", register_options.wait, "wait until compiled (default)");
    command->callback([this] { run = [this] { return RunRegister(common, register_options); }; });
  }

  void AddAsk(CLI::App& app) {
    CLI::App* command = app.add_subcommand("ask", "ask a question over registered documents");
    Question& question = ask_options.question;
    command->add_option("question", question.text, "the question")->required();
    command->add_option("--doc", question.document_ids, "document id; repeat in the order wanted in the prompt");
    command->add_option(
        "--linker", question.linker,
        "full, prefix, naive, naive-last, cacheblend:<percent>, legolink:<k> or random:<percent>, with @plain or "
        "@document behind it for chunks of that recipe; default: the "
        "cheapest of legolink:16, legolink:64 and cacheblend:15 that the model bears, else full");
    CLI::Option* system = command->add_option("--system", question.system, "system message; default: the model's own");
    command
        ->add_flag(
            "--raw", question.raw,
            "no chat layout: the documents and the text, as they are, are the prompt that the model goes on from")
        ->excludes(system);
    command->add_option("--model", question.model, "model name or fingerprint; default: the only one");
    command->add_option("--max-tokens", question.output_tokens_max, "longest answer in tokens")
        ->check(CLI::Range(1, 1 << 20))
        ->capture_default_str();
    command->add_option("--temperature", question.temperature, "0: greedy")->capture_default_str();
    command->add_option("--top-p", question.top_p)->capture_default_str();
    command->add_option("--top-k", question.top_k, "0: every token")->capture_default_str();
    command->add_option("--seed", question.seed)->capture_default_str();
    command->add_option("--stop", question.stop, "end the answer before this text, may be repeated");
    command->add_flag("--explain", question.explain, "show what was done with each chunk");
    command->add_flag(
        "--afresh", question.afresh,
        "run every row that the linker chooses, also where an earlier request ran it; always with --compare");
    command->add_flag("--compare", ask_options.compare,
                      "ask by full, cacheblend:15, legolink:16, legolink:2 and naive and print one table");
    command->add_option("--runs", ask_options.runs, "rounds of --compare")
        ->check(CLI::Range(5, 1000))
        ->capture_default_str();
    command->callback([this] { run = [this] { return RunAsk(common, ask_options); }; });
  }

  void AddModels(CLI::App& app) {
    CLI::App* models =
        app.add_subcommand("models", "the models that can be asked; or look at a model file, or make one");
    models->require_subcommand(0, 1);
    models->fallthrough();
    models->callback([this, models] {
      if (models->get_subcommands().empty()) run = [this] { return RunModels(common); };
    });
    CLI::App* inspect = models->add_subcommand("inspect", "what a model file is and whether EPIC runs it");
    inspect->add_option("file", model_path, "GGUF file, or folder with config.json and safetensors")->required();
    inspect->callback([this] { run = [this] { return RunModelsInspect(model_path, common.json); }; });
    CLI::App* synth =
        models->add_subcommand("synth", "write a model of a published shape with random weights, to measure speed");
    const auto names = SyntheticShapeNames();
    synth->add_option("--shape", synth_options.shape, fmt::format("one of {}", fmt::join(names, ", ")))->required();
    synth->add_option("--layers", synth_options.layers, "only the first so many; 0: all")
        ->check(CLI::Range(0, 1024))
        ->capture_default_str();
    synth->add_option("--seed", synth_options.seed, "equal seeds give equal weights")
        ->check(CLI::Range(int64_t{0}, std::numeric_limits<int64_t>::max()))
        ->capture_default_str();
    synth->add_option("--output", synth_options.folder, "folder to make; default: models/synthetic-...");
    synth->callback([this] { run = [this] { return RunModelsSynth(synth_options, common.json); }; });
  }

  // Whom to ask; returns the option --model.
  static CLI::Option* AddEvalSubject(CLI::App& command, EvalSubjectOptions& options) {
    command.add_option("--via", options.via, "process: an EPIC of this process' own; router: the one at --server")
        ->check(CLI::IsMember({"process", "router"}))
        ->capture_default_str();
    command.add_option("--kv-dtype", options.kv_dtype, "how the own process keeps chunks: bf16, fp16 or int8")
        ->check(CLI::IsMember({"bf16", "fp16", "int8"}))
        ->capture_default_str();
    command.add_option("--threads", options.threads, "compute threads of the own process; 0: one a core")
        ->check(CLI::Range(0, 4096))
        ->capture_default_str();
    return command.add_option("--model", options.model, "GGUF file or model folder; through a router a model's name");
  }

  void AddGate(CLI::App& eval) {
    CLI::App* gate = eval.add_subcommand("gate", "judge linkers on a model by a self-test of minutes, write verdicts");
    CLI::Option* model = AddEvalSubject(*gate, gate_options.subject);
    gate->add_option("--data", gate_options.data, "folder with questions.json and documents/")->capture_default_str();
    gate_options.linkers = DefaultGateLinkers();
    gate->add_option("--linkers", gate_options.linkers, "comma-separated")->delimiter(',')->capture_default_str();
    gate->add_option("--run", gate_options.run, "folder of the run, made or continued; default: .epic/eval/MODEL/gate");
    gate->add_option("--out", gate_options.out, "file of verdicts; default: quality/verdicts/MODEL.json");
    gate->callback([this, model] {
      if (gate_options.subject.via == "process" && model->count() == 0) throw CLI::RequiredError("--model");
      run = [this] { return RunEvalGate(common, gate_options); };
    });
  }

  void AddEval(CLI::App& app) {
    CLI::App* command = app.add_subcommand("eval", "measure what linkers do to answers, on a data set");
    command->require_subcommand(0, 1);
    command->fallthrough();
    CLI::Option* model = AddEvalSubject(*command, eval_options.subject);
    CLI::Option* task =
        command->add_option("--task", eval_options.task.name, fmt::format("{}", fmt::join(eval::TaskNames(), ", ")));
    CLI::Option* data =
        command->add_option("--data", eval_options.task.data, "the data set's file; for needle a folder of texts");
    command->add_option("--examples", eval_options.task.examples_max, "how many; 0: all")
        ->check(CLI::Range(0, 1'000'000))
        ->capture_default_str();
    command->add_option("--seed", eval_options.task.seed, "which examples, in which order, and the needles' places")
        ->capture_default_str();
    command->add_option("--needle-words", eval_options.task.needle_words, "lengths of the haystack, comma-separated")
        ->delimiter(',')
        ->check(CLI::Range(50, 1'000'000))
        ->capture_default_str();
    command
        ->add_option("--needle-depths", eval_options.task.needle_depths_percent,
                     "where the needle stands, per cent from the start, comma-separated")
        ->delimiter(',')
        ->check(CLI::Range(0, 100))
        ->capture_default_str();
    eval_options.linkers = DefaultEvalLinkers();
    command
        ->add_option("--linkers", eval_options.linkers,
                     "comma-separated; random:=legolink:16 and cacheblend:=legolink:16 choose as many rows as that one")
        ->delimiter(',')
        ->capture_default_str();
    command->add_option("--out", eval_options.out,
                        "folder of the run, made or continued; default: .epic/eval/MODEL/TASK");
    AddGate(*command);
    CLI::App* report = command->add_subcommand("report", "print the summaries of runs");
    report->add_option("folders", eval_folders, "folders that epic eval wrote")->required();
    report->callback([this] { run = [this] { return RunEvalReport(common, eval_folders); }; });
    command->callback([this, command, model, task, data] {
      if (!command->get_subcommands().empty()) return;
      if (task->count() == 0) throw CLI::RequiredError("--task");
      if (data->count() == 0) throw CLI::RequiredError("--data");
      if (eval_options.subject.via == "process" && model->count() == 0) throw CLI::RequiredError("--model");
      run = [this] { return RunEval(common, eval_options); };
    });
  }

  void AddDocuments(CLI::App& app) {
    CLI::App* documents = app.add_subcommand("documents", "list, get or delete documents");
    documents->require_subcommand(1);
    documents->fallthrough();
    CLI::App* list = documents->add_subcommand("list", "all documents, or a page of them");
    list->add_option("--page-size", list_options.page_size, "0: every page")->check(CLI::Range(0, 1000));
    list->add_option("--page-token", list_options.page_token, "where the previous page ended");
    list->callback([this] { run = [this] { return RunDocumentsList(common, list_options); }; });
    CLI::App* get = documents->add_subcommand("get", "one document");
    get->add_option("id", document_id)->required();
    get->add_flag("--text", with_text, "its text too");
    get->callback([this] { run = [this] { return RunDocumentsGet(common, document_id, with_text); }; });
    CLI::App* remove = documents->add_subcommand("delete", "forget documents");
    remove->add_option("ids", document_ids)->required();
    remove->callback([this] { run = [this] { return RunDocumentsDelete(common, document_ids); }; });
  }

  CommonOptions common;
  std::string format = "table";
  int64_t timeout_ms = 10'000;
  RegisterOptions register_options;
  AskOptions ask_options;
  ListOptions list_options;
  std::string model_path;
  SynthOptions synth_options;
  EvalOptions eval_options;
  GateOptions gate_options;
  std::vector<std::string> eval_folders;
  std::string document_id;
  std::vector<std::string> document_ids;
  bool with_text = false;
  CacheOptions cache_options;
  std::function<absl::Status()> run;
};

int Main(int argc, char** argv) {
  if (argc >= 2 && std::string(argv[1]) == "up") return RunUp(argc - 1, argv + 1);
  CLI::App app("EPIC: register documents once, link them into any prompt at any position.", "epic");
  Commands commands(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::cerr << "epic: " << error.what() << " (epic --help lists commands and options)\n";
    return kExitUsage;
  }
  commands.common.json = commands.format == "json";
  commands.common.client.control_timeout = std::chrono::milliseconds(commands.timeout_ms);
  return Report(commands.run());
}

}  // namespace
}  // namespace epic::client

int main(int argc, char** argv) { return epic::client::Main(argc, argv); }
