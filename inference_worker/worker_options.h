// The worker's configuration. Includes no gRPC.
#ifndef EPIC_INFERENCE_WORKER_WORKER_OPTIONS_H_
#define EPIC_INFERENCE_WORKER_WORKER_OPTIONS_H_

#include <string>

#include "absl/status/status.h"
#include "engine/engine.h"
#include "inference_worker/worker.h"
#include "server/config.h"
#include "server/server_options.h"

namespace epic {

struct WorkerServerOptions {
  GrpcServerOptions server{.listen_address = "127.0.0.1:7402"};
  WorkerOptions worker;
  // Names the worker in answers and reports. Empty: its listen address.
  std::string worker_id;
  // Linkers' verdicts: a file, or a folder of files (engine/linker_gate.h). Empty: none.
  std::string verdicts;
  // Linkers that the operator vouches for whatever the verdicts say: names, or "all".
  std::vector<std::string> allowed_linkers;

  // All problems at once, INVALID_ARGUMENT naming field, value and limit.
  absl::Status Validate() const;
};

// Options "listen" and those of the server, "worker-id", "worker-cache-bytes", "worker-heap-bytes",
// "client-buffer-bytes", "loading-threads", "requests-max", "node-timeout", "linker-verdicts", "allow-linkers",
// "shadow-share".
void DeclareWorkerServerOptions(WorkerServerOptions* options, Config* config);

// Options "linker-verdicts", "allow-linkers" and "shadow-share", which the ones above contain.
void DeclareLinkerGateOptions(WorkerServerOptions* options, Config* config);

// Options "model", "cache-dir", "threads", "private-kv-bytes", "prefix-cache-bytes", "piece-tokens",
// "running-requests-max": an engine's, for every process that has one.
void DeclareEngineOptions(EngineOptions* options, Config* config);

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_WORKER_OPTIONS_H_
