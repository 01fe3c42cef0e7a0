// epic-inference-worker: links the chunks of a request, decodes, and streams tokens to the router.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "core/status_macros.h"
#include "engine/engine.h"
#include "inference_worker/worker_options.h"
#include "inference_worker/worker_server.h"
#include "server/config.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/shutdown.h"

namespace epic {
namespace {

absl::Status Serve(const EngineOptions& engine_options, const WorkerServerOptions& options,
                   const ProcessOptions& process) {
  EPIC_RETURN_IF_ERROR(InitLogging("epic-inference-worker", process.log_level));
  EPIC_RETURN_IF_ERROR(options.Validate());
  EPIC_ASSIGN_OR_RETURN(const auto shutdown, ShutdownSignal::Install());
  const auto metrics = std::make_shared<Metrics>();
  std::unique_ptr<MetricsServer> metrics_server;
  if (!process.metrics_address.empty()) {
    EPIC_ASSIGN_OR_RETURN(metrics_server, MetricsServer::Start(process.metrics_address, metrics));
    spdlog::info("metrics at http://{}/metrics", metrics_server->address());
  }
  spdlog::info("loading {}", engine_options.model_path);
  EPIC_ASSIGN_OR_RETURN(const auto engine, Engine::Create(engine_options));
  EPIC_ASSIGN_OR_RETURN(const auto server, WorkerServer::Create(options, engine.get(),
                                                                NetworkBlockSources(CreateNetworkChannel), metrics));
  spdlog::info("version {} serves {} on {}", EpicVersion(), engine->config().name, server->address());
  spdlog::info("{}: stopping; running requests may take {} ms", shutdown->Wait(), process.shutdown_grace.count());
  server->Shutdown(process.shutdown_grace);
  return absl::OkStatus();
}

int Main(int argc, const char* const* argv) {
  EngineOptions engine;
  WorkerServerOptions options;
  ProcessOptions process;
  Config config("epic-inference-worker",
                "The inference worker: brings the KV of a request's chunks, links it, decodes and streams tokens.");
  DeclareEngineOptions(&engine, &config);
  DeclareWorkerServerOptions(&options, &config);
  DeclareProcessOptions(&process, &config);
  if (const std::optional<int> code = ExitCodeOf(config.Parse(argc, argv))) return *code;
  if (engine.model_path.empty()) {
    fmt::print(stderr,
               "epic-inference-worker: --model is not given; it names a GGUF file or a directory with "
               "safetensors (scripts/fetch_model.sh fetches the default one)\n");
    return 2;
  }
  const absl::Status status = Serve(engine, options, process);
  if (status.ok()) return 0;
  fmt::print(stderr, "epic-inference-worker: {}\n", std::string(status.message()));
  return 1;
}

}  // namespace
}  // namespace epic

int main(int argc, char** argv) { return epic::Main(argc, argv); }
