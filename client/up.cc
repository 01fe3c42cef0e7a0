#include "client/up.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <memory>
#include <string>

#include "client/one_process.h"
#include "client/table.h"
#include "core/status_macros.h"
#include "server/config.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/shutdown.h"

namespace epic {
namespace {

// Where epic eval gate writes, and where the verdicts of the default models are in a clone.
constexpr char kVerdictsFolder[] = "quality/verdicts";

struct UpOptions : OneProcessOptions {
  ProcessOptions process;
};

void Declare(UpOptions* options, Config* config) {
  options->engine.model_path = "models/SmolLM2-135M-Instruct.Q4_1.gguf";
  options->node.data_dir = ".epic/data";
  options->node.server.listen_address = "127.0.0.1:0";
  options->worker.verdicts = kVerdictsFolder;
  DeclareGrpcServerOptions(&options->router.server, config);
  config->AddString("data-dir", &options->node.data_dir,
                    "Folder of what is durable; made where it is not there. One process at a time.");
  config->AddString("node-listen", &options->node.server.listen_address,
                    "HOST:PORT where the cache node listens, for epic cache. Port 0: one of the system's choice.");
  DeclareTierOptions(&options->node, config);
  config->AddInt32("chunk-tokens", &options->node.chunk_tokens, {16, 4096}, "Tokens that a chunk is meant to have.");
  DeclareDefaultRecipe(&options->node, config);
  config->AddBool("protect-blocks", &options->node.protect_blocks,
                  "Make compiled blocks read-only memory, so that a stray write ends the process.");
  DeclareLinkerGateOptions(&options->worker, config);
  DeclareEngineOptions(&options->engine, config);
  DeclareProcessOptions(&options->process, config);
}

absl::Status Serve(UpOptions options) {
  EPIC_RETURN_IF_ERROR(InitLogging("epic", options.process.log_level));
  if (options.worker.verdicts == kVerdictsFolder && !std::filesystem::exists(kVerdictsFolder)) {
    spdlog::info("there are no verdicts at {}: questions that name no linker are answered by full", kVerdictsFolder);
    options.worker.verdicts.clear();
  }
  options.node.verdicts = options.worker.verdicts;
  EPIC_ASSIGN_OR_RETURN(const auto shutdown, ShutdownSignal::Install());
  const auto metrics = std::make_shared<Metrics>();
  std::unique_ptr<MetricsServer> metrics_server;
  if (!options.process.metrics_address.empty()) {
    EPIC_ASSIGN_OR_RETURN(metrics_server, MetricsServer::Start(options.process.metrics_address, metrics));
    spdlog::info("metrics at http://{}/metrics", metrics_server->address());
  }
  EPIC_ASSIGN_OR_RETURN(const std::unique_ptr<OneProcess> epic, OneProcess::Start(options, metrics));
  spdlog::info("the cache node listens on {}", epic->node_address());
  spdlog::info("{} ({} of weights) serves on {}; documents are kept in {}", epic->engine().config().name,
               client::HumanBytes(static_cast<int64_t>(epic->engine().weight_bytes())), epic->address(),
               options.node.data_dir);
  spdlog::info("{}: stopping; running calls may take {} ms", shutdown->Wait(), options.process.shutdown_grace.count());
  epic->Stop(options.process.shutdown_grace);
  return absl::OkStatus();
}

}  // namespace

int RunUp(int argc, char** argv) {
  UpOptions options;
  Config config("epic up",
                "EPIC in one process: router, cache node and worker over one engine and one copy of the weights.");
  Declare(&options, &config);
  if (const std::optional<int> code = ExitCodeOf(config.Parse(argc, argv))) return *code;
  const absl::Status status = Serve(options);
  if (status.ok()) return 0;
  fmt::print(stderr, "epic up: {}\n", std::string(status.message()));
  return 1;
}

}  // namespace epic
