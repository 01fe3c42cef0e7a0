#include "client/up.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "cache_node/cache_node_server.h"
#include "client/table.h"
#include "core/status_macros.h"
#include "engine/engine.h"
#include "inference_worker/worker_server.h"
#include "router/router_server.h"
#include "server/config.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/shutdown.h"
#include "transfer/in_process_block_source.h"

namespace epic {
namespace {

struct UpOptions {
  RouterOptions router;
  CacheNodeServerOptions node;
  WorkerServerOptions worker;
  EngineOptions engine;
  ProcessOptions process;
};

void Declare(UpOptions* options, Config* config) {
  options->engine.model_path = "models/SmolLM2-135M-Instruct.Q4_1.gguf";
  options->node.data_dir = ".epic/data";
  DeclareGrpcServerOptions(&options->router.server, config);
  config->AddString("data-dir", &options->node.data_dir,
                    "Folder of what is durable; made where it is not there. One process at a time.");
  config->AddBytes("kv-capacity-bytes", &options->node.kv_capacity_bytes, {.min = 1 << 20},
                   "Memory for the KV of compiled chunks, a hard limit in bytes.");
  config->AddInt32("chunk-tokens", &options->node.chunk_tokens, {16, 4096}, "Tokens that a chunk is meant to have.");
  config->AddBool("protect-blocks", &options->node.protect_blocks,
                  "Make compiled blocks read-only memory, so that a stray write ends the process.");
  DeclareEngineOptions(&options->engine, config);
  DeclareProcessOptions(&options->process, config);
}

// The roles over one engine. Members are declared in the order of their making: what is used outlives its users.
class OneProcess {
 public:
  absl::Status Start(UpOptions options, const std::shared_ptr<Metrics>& metrics) {
    if (!std::filesystem::exists(options.engine.model_path)) {
      return absl::NotFoundError(
          fmt::format("there is no model at {}; scripts/fetch_model.sh gets the default one, --model takes any other",
                      options.engine.model_path));
    }
    if (options.engine.cache_dir.empty()) options.engine.cache_dir = options.node.data_dir;
    spdlog::info("loading {}", options.engine.model_path);
    EPIC_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, Engine::Create(options.engine));
    engine_ = std::move(engine);

    // Cache node and worker listen on ports of the system's choice: only this process' router talks to them.
    options.node.server.listen_address = "127.0.0.1:0";
    EPIC_ASSIGN_OR_RETURN(node_, CacheNodeServer::Create(options.node, engine_, metrics));
    const auto source = std::make_shared<InProcessBlockSource>(node_->provider(), node_->home());
    options.worker.server.listen_address = "127.0.0.1:0";
    options.worker.worker_id = "local";
    // Chunks are attended to where the node holds them; the worker's own cache is for what the node cannot keep.
    options.worker.worker.cache.capacity_bytes = kWorkerCacheBytes;
    EPIC_ASSIGN_OR_RETURN(worker_,
                          WorkerServer::Create(
                              options.worker, engine_.get(), [source](const std::string&) { return source; }, metrics));
    options.router.cache_nodes = {node_->address()};
    options.router.workers = {worker_->address()};
    EPIC_ASSIGN_OR_RETURN(router_, RouterServer::Create(
                                       options.router,
                                       [this](const std::string& address) {
                                         return address == worker_->address() ? worker_->InProcessChannel()
                                                                              : node_->InProcessChannel();
                                       },
                                       metrics));
    return absl::OkStatus();
  }

  void Stop(std::chrono::milliseconds grace) {
    router_->Shutdown(grace);
    worker_->Shutdown(grace);
    node_->Shutdown(grace);
  }

  const std::string& address() const { return router_->address(); }
  const Engine& engine() const { return *engine_; }

 private:
  static constexpr size_t kWorkerCacheBytes = size_t{256} << 20;

  std::shared_ptr<Engine> engine_;
  std::unique_ptr<CacheNodeServer> node_;
  std::unique_ptr<WorkerServer> worker_;
  std::unique_ptr<RouterServer> router_;
};

absl::Status Serve(const UpOptions& options) {
  EPIC_RETURN_IF_ERROR(InitLogging("epic", options.process.log_level));
  EPIC_ASSIGN_OR_RETURN(const auto shutdown, ShutdownSignal::Install());
  const auto metrics = std::make_shared<Metrics>();
  std::unique_ptr<MetricsServer> metrics_server;
  if (!options.process.metrics_address.empty()) {
    EPIC_ASSIGN_OR_RETURN(metrics_server, MetricsServer::Start(options.process.metrics_address, metrics));
    spdlog::info("metrics at http://{}/metrics", metrics_server->address());
  }
  OneProcess epic;
  EPIC_RETURN_IF_ERROR(epic.Start(options, metrics));
  spdlog::info("{} ({} of weights) serves on {}; documents are kept in {}", epic.engine().config().name,
               client::HumanBytes(static_cast<int64_t>(epic.engine().weight_bytes())), epic.address(),
               options.node.data_dir);
  spdlog::info("{}: stopping; running calls may take {} ms", shutdown->Wait(), options.process.shutdown_grace.count());
  epic.Stop(options.process.shutdown_grace);
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
