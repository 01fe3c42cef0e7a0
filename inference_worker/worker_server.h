// A worker, whole: logic, service, metrics and the server around them. A process has one by main.cc; `epic up` and
// tests make one inside their own process, over an engine that others use too.
#ifndef EPIC_INFERENCE_WORKER_WORKER_SERVER_H_
#define EPIC_INFERENCE_WORKER_WORKER_SERVER_H_

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "inference_worker/block_sources.h"
#include "inference_worker/worker_options.h"
#include "server/grpc_client.h"
#include "server/grpc_server.h"
#include "server/metrics.h"

namespace epic {

class Worker;

// Cache nodes over gRPC, by the channels that `channels` makes.
BlockSourceFactory NetworkBlockSources(ChannelFactory channels);

// Thread-safe.
class WorkerServer {
 public:
  // Starts serving. `engine` must outlive the server. `sources` reaches cache nodes by their addresses: over the
  // network (NetworkBlockSources), or in process. `metrics` may be shared with other roles, or null. INVALID_ARGUMENT
  // with all problems of the options; FAILED_PRECONDITION where the port is in use; RESOURCE_EXHAUSTED where the cache
  // cannot be mapped.
  static absl::StatusOr<std::unique_ptr<WorkerServer>> Create(const WorkerServerOptions& options, Engine* engine,
                                                              BlockSourceFactory sources,
                                                              std::shared_ptr<Metrics> metrics);
  // Shuts down without grace where Shutdown was not called, ends every request, and gives back every chunk: what the
  // sources refer to must live until then.
  ~WorkerServer();

  // Where routers reach it.
  const std::string& address() const;
  // Not to be used after Shutdown.
  std::shared_ptr<grpc::Channel> InProcessChannel();
  Worker* worker();
  // Refuses new calls, gives running ones `grace`, then cancels them.
  void Shutdown(std::chrono::milliseconds grace);

 private:
  struct Parts;
  explicit WorkerServer(std::unique_ptr<Parts> parts);
  const std::unique_ptr<Parts> parts_;
};

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_WORKER_SERVER_H_
