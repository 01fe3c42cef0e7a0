// The options that every server process has, and how they are declared. Includes no gRPC.
#ifndef EPIC_SERVER_SERVER_OPTIONS_H_
#define EPIC_SERVER_SERVER_OPTIONS_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "core/limits.h"
#include "server/config.h"

namespace epic {

struct GrpcServerOptions {
  // HOST:PORT. Port 0 lets the system choose; GrpcServer::address() then says which.
  std::string listen_address = "127.0.0.1:0";
  // Threads that serve calls. A call that finds none free is refused with RESOURCE_EXHAUSTED. In [4, 4096].
  int32_t threads_max = 256;
  // Memory for messages in flight; beyond it connections are made to wait. At least 32 MiB.
  int64_t message_memory_bytes_max = int64_t{512} << 20;
};

struct ProcessOptions {
  // trace, debug, info, warning, error.
  std::string log_level = "info";
  // HOST:PORT of the Prometheus endpoint /metrics. Empty: none.
  std::string metrics_address = "127.0.0.1:0";
  // How long running calls may finish after SIGTERM before they are cancelled.
  std::chrono::milliseconds shutdown_grace{kShutdownGraceMs};
};

// Options "listen", "server-threads-max", "message-memory-bytes-max".
void DeclareGrpcServerOptions(GrpcServerOptions* options, Config* config);
// Options "log-level", "metrics-listen", "shutdown-grace".
void DeclareProcessOptions(ProcessOptions* options, Config* config);

// INVALID_ARGUMENT unless `address` is HOST:PORT with a port in [0, 65535]; the message begins with `field`.
absl::Status ValidateHostPort(const std::string& field, const std::string& address);

// The release, as --version and the status answers say it.
std::string EpicVersion();

}  // namespace epic

#endif  // EPIC_SERVER_SERVER_OPTIONS_H_
