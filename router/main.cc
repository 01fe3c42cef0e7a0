// epic-router: the one address that clients know.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "core/status_macros.h"
#include "router/router_options.h"
#include "router/router_server.h"
#include "server/config.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/shutdown.h"

namespace epic {
namespace {

absl::Status Serve(const RouterOptions& options, const ProcessOptions& process) {
  EPIC_RETURN_IF_ERROR(options.Validate());
  EPIC_RETURN_IF_ERROR(InitLogging("epic-router", process.log_level));
  EPIC_ASSIGN_OR_RETURN(const auto shutdown, ShutdownSignal::Install());
  const auto metrics = std::make_shared<Metrics>();
  std::unique_ptr<MetricsServer> metrics_server;
  if (!process.metrics_address.empty()) {
    EPIC_ASSIGN_OR_RETURN(metrics_server, MetricsServer::Start(process.metrics_address, metrics));
    spdlog::info("metrics at http://{}/metrics", metrics_server->address());
  }
  EPIC_ASSIGN_OR_RETURN(const auto router, RouterServer::Create(options, CreateNetworkChannel, metrics));
  spdlog::info("version {} serves on {}", EpicVersion(), router->address());
  spdlog::info("{}: stopping; running calls may take {} ms", shutdown->Wait(), process.shutdown_grace.count());
  router->Shutdown(process.shutdown_grace);
  return absl::OkStatus();
}

int Main(int argc, const char* const* argv) {
  RouterOptions options;
  ProcessOptions process;
  Config config("epic-router",
                "The router: the one address that clients know. It finds documents and places requests.");
  DeclareRouterOptions(&options, &config);
  DeclareProcessOptions(&process, &config);
  if (const std::optional<int> code = ExitCodeOf(config.Parse(argc, argv))) return *code;
  const absl::Status status = Serve(options, process);
  if (status.ok()) return 0;
  fmt::print(stderr, "epic-router: {}\n", std::string(status.message()));
  return 1;
}

}  // namespace
}  // namespace epic

int main(int argc, char** argv) { return epic::Main(argc, argv); }
