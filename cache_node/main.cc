// epic-cache-node: keeps documents, compiles their chunks, holds and serves their keys and values.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "cache_node/cache_node_options.h"
#include "cache_node/cache_node_server.h"
#include "core/status_macros.h"
#include "engine/engine.h"
#include "server/config.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/shutdown.h"

namespace epic {
namespace {

absl::Status Serve(const CacheNodeServerOptions& options, EngineOptions engine_options, const ProcessOptions& process) {
  EPIC_RETURN_IF_ERROR(options.Validate());
  EPIC_RETURN_IF_ERROR(InitLogging("epic-cache-node", process.log_level));
  EPIC_ASSIGN_OR_RETURN(const auto shutdown, ShutdownSignal::Install());
  const auto metrics = std::make_shared<Metrics>();
  std::unique_ptr<MetricsServer> metrics_server;
  if (!process.metrics_address.empty()) {
    EPIC_ASSIGN_OR_RETURN(metrics_server, MetricsServer::Start(process.metrics_address, metrics));
    spdlog::info("metrics at http://{}/metrics", metrics_server->address());
  }
  std::error_code error;
  std::filesystem::create_directories(options.data_dir, error);
  if (error) {
    return absl::FailedPreconditionError(
        fmt::format("data-dir {} cannot be made: {}", options.data_dir, error.message()));
  }
  engine_options.cache_dir = options.data_dir;
  EPIC_ASSIGN_OR_RETURN(std::shared_ptr<Engine> engine, Engine::Create(engine_options));
  spdlog::info("model {}, fingerprint {}", engine->config().name, engine->fingerprint_hex());
  EPIC_ASSIGN_OR_RETURN(const auto node, CacheNodeServer::Create(options, std::move(engine), metrics));
  spdlog::info("version {} serves on {} as {}", EpicVersion(), node->address(), node->home());
  spdlog::info("{}: stopping; running calls may take {} ms", shutdown->Wait(), process.shutdown_grace.count());
  node->Shutdown(process.shutdown_grace);
  return absl::OkStatus();
}

int Main(int argc, const char* const* argv) {
  CacheNodeServerOptions options;
  ProcessOptions process;
  EngineOptions engine;
  // A node compiles and answers nobody: rows of chunks in work are all that it needs memory for.
  engine.private_kv_bytes = size_t{256} << 20;
  engine.prefix_cache_bytes = 0;
  Config config("epic-cache-node",
                "The cache node: keeps documents, compiles their chunks and serves their keys and values to workers.");
  DeclareCacheNodeServerOptions(&options, &config);
  config.AddString("model", &engine.model_path,
                   "The model: a GGUF file, or a folder with safetensors, config.json and tokenizer.json.");
  config.AddInt32("threads", &engine.threads, {.min = 0, .max = 4096}, "Compute threads. 0: one a core.");
  DeclareProcessOptions(&process, &config);
  if (const std::optional<int> code = ExitCodeOf(config.Parse(argc, argv))) return *code;
  const absl::Status status = Serve(options, engine, process);
  if (status.ok()) return 0;
  fmt::print(stderr, "epic-cache-node: {}\n", std::string(status.message()));
  return 1;
}

}  // namespace
}  // namespace epic

int main(int argc, char** argv) { return epic::Main(argc, argv); }
