// The router's configuration.
#ifndef EPIC_ROUTER_ROUTER_OPTIONS_H_
#define EPIC_ROUTER_ROUTER_OPTIONS_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/config.h"
#include "server/server_options.h"

namespace epic {

struct RouterOptions {
  GrpcServerOptions server{.listen_address = "127.0.0.1:7400"};
  // HOST:PORT of each. The lists are the cluster: every router must be given the same cache nodes, because a document's
  // home is computed from them.
  std::vector<std::string> cache_nodes;
  std::vector<std::string> workers;
  // Name or fingerprint of the model of requests that name none, where workers run several. Empty: such requests are
  // refused.
  std::string default_model;
  // How long a worker's answer about its load is used again. 0 ms to 10 s.
  std::chrono::milliseconds worker_status_age_max{100};
  // How long a member may take to answer about itself. 10 ms to 60 s.
  std::chrono::milliseconds member_status_timeout{5'000};
  // Workers that one request is given to, one after the other, before its first token. 1 to 16.
  int32_t attempts_max = 3;

  // All problems at once, INVALID_ARGUMENT naming field, value and limit.
  absl::Status Validate() const;
};

void DeclareRouterOptions(RouterOptions* options, Config* config);

}  // namespace epic

#endif  // EPIC_ROUTER_ROUTER_OPTIONS_H_
