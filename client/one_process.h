// The three roles in one process, over one engine and one copy of the weights, on loopback: what `epic up` serves and
// what `epic eval` measures where it is not told of a running cluster.
//
// Not thread-safe. Everything stops when it is destroyed; Stop gives running calls time first.
#ifndef EPIC_CLIENT_ONE_PROCESS_H_
#define EPIC_CLIENT_ONE_PROCESS_H_

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cache_node/cache_node_server.h"
#include "engine/engine.h"
#include "inference_worker/worker_server.h"
#include "router/router_server.h"
#include "server/metrics.h"

namespace epic {

struct OneProcessOptions {
  RouterOptions router;  // members are filled in
  CacheNodeServerOptions node;
  WorkerServerOptions worker;
  EngineOptions engine;
};

class OneProcess {
 public:
  // Loads the model and serves. NOT_FOUND where there is no model at engine.model_path; else the error of the role that
  // did not start.
  static absl::StatusOr<std::unique_ptr<OneProcess>> Start(OneProcessOptions options,
                                                           const std::shared_ptr<Metrics>& metrics);

  // Refuses new calls, lets running ones go on for `grace`, then cancels them.
  void Stop(std::chrono::milliseconds grace);

  const std::string& address() const { return router_->address(); }  // HOST:PORT of the router
  const std::string& node_address() const;                           // HOST:PORT of the cache node
  const Engine& engine() const { return *engine_; }

 private:
  OneProcess() = default;

  // In the order of their making: what is used outlives its users.
  std::shared_ptr<Engine> engine_;
  std::unique_ptr<CacheNodeServer> node_;
  std::unique_ptr<WorkerServer> worker_;
  std::unique_ptr<RouterServer> router_;
};

}  // namespace epic

#endif  // EPIC_CLIENT_ONE_PROCESS_H_
