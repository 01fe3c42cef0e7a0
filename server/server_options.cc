#include "server/server_options.h"

#include <fmt/format.h>

#include "server/config_values.h"

namespace epic {

void DeclareGrpcServerOptions(GrpcServerOptions* options, Config* config) {
  config->AddString("listen", &options->listen_address,
                    "HOST:PORT where calls are served. Port 0 lets the system choose; the log says which.");
  config->AddInt32("server-threads-max", &options->threads_max, {.min = 4, .max = 4096},
                   "Threads that serve calls. A call that finds none free is refused with RESOURCE_EXHAUSTED.");
  config->AddBytes("message-memory-bytes-max", &options->message_memory_bytes_max, {.min = int64_t{32} << 20},
                   "Memory for messages in flight. Beyond it connections wait.");
}

void DeclareProcessOptions(ProcessOptions* options, Config* config) {
  config->AddChoice("log-level", &options->log_level, {"trace", "debug", "info", "warning", "error"},
                    "From which level on events are written to standard error.");
  config->AddString("metrics-listen", &options->metrics_address,
                    "HOST:PORT of the Prometheus endpoint /metrics. Empty: none.");
  config->AddDuration("shutdown-grace", &options->shutdown_grace, {.min = 0, .max = 3'600'000},
                      "How long running calls may finish after SIGTERM before they are cancelled.");
}

absl::Status ValidateHostPort(const std::string& field, const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon != std::string::npos && colon > 0) {
    const absl::StatusOr<int64_t> port = ParseInteger(address.substr(colon + 1));
    if (port.ok() && *port >= 0 && *port <= 65535) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(fmt::format(
      "{} is \"{}\"; expected HOST:PORT with a port in [0, 65535], such as 127.0.0.1:7400", field, address));
}

std::string EpicVersion() { return EPIC_VERSION; }

}  // namespace epic
