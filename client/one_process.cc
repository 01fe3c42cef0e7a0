#include "client/one_process.h"

#include <spdlog/spdlog.h>

#include <filesystem>
#include <utility>

#include "core/status_macros.h"
#include "fmt/format.h"
#include "transfer/in_process_block_source.h"

namespace epic {
namespace {

// Chunks are attended to where the node holds them; the worker's own cache is for what the node cannot keep.
constexpr size_t kWorkerCacheBytes = size_t{256} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<OneProcess>> OneProcess::Start(OneProcessOptions options,
                                                              const std::shared_ptr<Metrics>& metrics) {
  if (!std::filesystem::exists(options.engine.model_path)) {
    return absl::NotFoundError(
        fmt::format("there is no model at {}; scripts/fetch_model.sh gets the default one, --model takes any other",
                    options.engine.model_path));
  }
  if (options.engine.cache_dir.empty()) options.engine.cache_dir = options.node.data_dir;
  spdlog::info("loading {}", options.engine.model_path);
  std::unique_ptr<OneProcess> process(new OneProcess());
  OneProcess& epic = *process;
  EPIC_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, Engine::Create(options.engine));
  epic.engine_ = std::move(engine);

  // The worker listens on a port of the system's choice: only this process' router talks to it.
  EPIC_ASSIGN_OR_RETURN(epic.node_, CacheNodeServer::Create(options.node, epic.engine_, metrics));
  const auto source = std::make_shared<InProcessBlockSource>(epic.node_->provider(), epic.node_->home());
  options.worker.server.listen_address = "127.0.0.1:0";
  options.worker.worker_id = "local";
  options.worker.worker.cache.capacity_bytes = kWorkerCacheBytes;
  EPIC_ASSIGN_OR_RETURN(
      epic.worker_, WorkerServer::Create(
                        options.worker, epic.engine_.get(), [source](const std::string&) { return source; }, metrics));
  options.router.cache_nodes = {epic.node_->address()};
  options.router.workers = {epic.worker_->address()};
  EPIC_ASSIGN_OR_RETURN(
      epic.router_, RouterServer::Create(
                        options.router,
                        [worker = epic.worker_.get(), node = epic.node_.get()](const std::string& address) {
                          return address == worker->address() ? worker->InProcessChannel() : node->InProcessChannel();
                        },
                        metrics));
  return process;
}

const std::string& OneProcess::node_address() const { return node_->address(); }

void OneProcess::Stop(std::chrono::milliseconds grace) {
  router_->Shutdown(grace);
  worker_->Shutdown(grace);
  node_->Shutdown(grace);
}

}  // namespace epic
