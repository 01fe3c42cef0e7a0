#include "router/router_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cluster/membership.h"

namespace epic {

absl::Status RouterOptions::Validate() const {
  std::vector<std::string> problems;
  const auto collect = [&](const absl::Status& status) {
    if (!status.ok()) problems.emplace_back(status.message());
  };
  const auto check_range = [&](const char* field, int64_t value, int64_t min, int64_t max) {
    if (value < min || value > max)
      problems.push_back(fmt::format("{} is {}; expected {} to {}", field, value, min, max));
  };
  collect(ValidateHostPort("listen", server.listen_address));
  collect(MakeStaticMembership(cache_nodes, workers).status());
  for (const std::string& address : cache_nodes) collect(ValidateHostPort("cache-nodes", address));
  for (const std::string& address : workers) collect(ValidateHostPort("workers", address));
  check_range("worker-status-age-max (ms)", worker_status_age_max.count(), 0, 10'000);
  check_range("member-status-timeout (ms)", member_status_timeout.count(), 10, 60'000);
  check_range("attempts-max", attempts_max, 1, 16);
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("{}", fmt::join(problems, "\n")));
}

void DeclareRouterOptions(RouterOptions* options, Config* config) {
  DeclareGrpcServerOptions(&options->server, config);
  config->AddStringList("cache-nodes", &options->cache_nodes,
                        "HOST:PORT of every cache node. All routers must be given the same list: a document's home is "
                        "computed from it.");
  config->AddStringList("workers", &options->workers, "HOST:PORT of every inference worker.");
  config->AddString("default-model", &options->default_model,
                    "Name or fingerprint of the model of requests that name none, where workers run several models.");
  config->AddDuration("worker-status-age-max", &options->worker_status_age_max, {.min = 0, .max = 10'000},
                      "How long a worker's answer about its load is used again.");
  config->AddDuration("member-status-timeout", &options->member_status_timeout, {.min = 10, .max = 60'000},
                      "How long a cache node or worker may take to answer about itself.");
  config->AddInt32("attempts-max", &options->attempts_max, {.min = 1, .max = 16},
                   "Workers that one request is given to, one after the other, before its first token.");
}

}  // namespace epic
