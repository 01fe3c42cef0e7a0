#include "router/router_server.h"

#include <utility>

#include "core/status_macros.h"
#include "router/backend_client.h"
#include "router/router_service.h"

namespace epic {

// In the order of construction: each refers to those above it, and the server, which calls them all, goes first.
struct RouterServer::Parts {
  Parts(const RouterOptions& options, std::unique_ptr<Membership> members, ChannelFactory channels,
        std::shared_ptr<Metrics> shared_metrics)
      : membership(std::move(members)),
        backends(MakeGrpcBackends(std::move(channels))),
        metrics(std::move(shared_metrics)),
        workers(membership.get(), backends.get(),
                WorkerPoolOptions{.status_age_max = options.worker_status_age_max,
                                  .status_timeout = options.member_status_timeout}),
        documents(membership.get(), backends.get()),
        generate(options, &documents, &workers, backends.get(), &metrics),
        document_service(&documents, &metrics),
        generate_service(&generate, membership.get(), backends.get(), options.member_status_timeout) {}

  const std::unique_ptr<Membership> membership;
  const std::unique_ptr<Backends> backends;
  RouterMetrics metrics;
  WorkerPool workers;
  DocumentRouter documents;
  GenerateRouter generate;
  RouterDocumentService document_service;
  RouterGenerateService generate_service;
  std::unique_ptr<GrpcServer> server;
};

RouterServer::RouterServer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
RouterServer::~RouterServer() = default;

absl::StatusOr<std::unique_ptr<RouterServer>> RouterServer::Create(const RouterOptions& options,
                                                                   ChannelFactory channels,
                                                                   std::shared_ptr<Metrics> metrics) {
  EPIC_RETURN_IF_ERROR(options.Validate());
  EPIC_ASSIGN_OR_RETURN(auto membership, MakeStaticMembership(options.cache_nodes, options.workers));
  auto parts = std::make_unique<Parts>(options, std::move(membership), std::move(channels), std::move(metrics));
  EPIC_ASSIGN_OR_RETURN(parts->server,
                        GrpcServer::Start(options.server, {&parts->document_service, &parts->generate_service}));
  return std::unique_ptr<RouterServer>(new RouterServer(std::move(parts)));
}

const std::string& RouterServer::address() const { return parts_->server->address(); }
std::shared_ptr<grpc::Channel> RouterServer::InProcessChannel() { return parts_->server->InProcessChannel(); }
void RouterServer::Shutdown(std::chrono::milliseconds grace) { parts_->server->Shutdown(grace); }

}  // namespace epic
