#include "server/grpc_server.h"

#include <fmt/format.h>
#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/impl/server_initializer.h>
#include <grpcpp/resource_quota.h>
#include <spdlog/spdlog.h>

#include <mutex>
#include <random>
#include <utility>

#include "core/identifiers.h"
#include "core/limits.h"
#include "core/status_macros.h"

namespace epic {
namespace {

// Switches of the whole process that must be set before the first server is built.
void PrepareProcessOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    // gRPC's own lines repeat, in its words, errors that we return as sentences.
    gpr_set_log_function([](gpr_log_func_args* line) { spdlog::debug("grpc: {}", line->message); });
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

// gRPC's health service knows the server as a whole only. This tells it each service's name once the server stands.
class HealthOfServices final : public grpc::ServerBuilderPlugin, public grpc::ServerBuilderOption {
 public:
  explicit HealthOfServices(std::vector<std::string>* names) : names_(names) {}
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    plugins->push_back(std::make_unique<HealthOfServices>(names_));
  }
  std::string name() override { return "epic_health_of_services"; }
  void InitServer(grpc::ServerInitializer*) override {}
  void Finish(grpc::ServerInitializer* initializer) override { *names_ = *initializer->GetServiceList(); }
  void ChangeArguments(const std::string&, void*) override {}

 private:
  std::vector<std::string>* const names_;  // outlives the building of the server
};

// 128 random bits: the id names the request in the logs of all services.
std::string MakeRequestId() {
  thread_local std::mt19937_64 generator{std::random_device{}()};
  return fmt::format("req-{:016x}{:016x}", generator(), generator());
}

// A trace header is a short fixed form; a longer value is no trace, and is dropped rather than carried along.
constexpr size_t kTraceBytesMax = 512;

void TakeFromMetadata(const grpc::ServerContext& context, const char* name, std::string* value) {
  if (!value->empty()) return;
  const auto found = context.client_metadata().find(name);
  if (found != context.client_metadata().end() && found->second.size() <= kTraceBytesMax) {
    value->assign(found->second.data(), found->second.size());
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options,
                                                              const std::vector<grpc::Service*>& services) {
  EPIC_RETURN_IF_ERROR(ValidateHostPort("listen", options.listen_address));
  PrepareProcessOnce();

  grpc::ResourceQuota quota("epic_server");
  quota.Resize(static_cast<size_t>(options.message_memory_bytes_max));
  quota.SetMaxThreads(options.threads_max);

  grpc::ServerBuilder builder;
  int port = 0;
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(kGrpcMessageBytesMax);
  builder.SetMaxSendMessageSize(kGrpcMessageBytesMax);
  // With SO_REUSEPORT, two processes would share a port and each would get some of the calls, silently.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Clients may ask whether an idle connection lives as often as our own do (grpc_client.cc).
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddListeningPort(options.listen_address, grpc::InsecureServerCredentials(), &port);
  for (grpc::Service* service : services) builder.RegisterService(service);

  std::vector<std::string> service_names;
  builder.SetOption(std::make_unique<HealthOfServices>(&service_names));

  std::unique_ptr<GrpcServer> server(new GrpcServer());
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || port == 0) {
    return absl::FailedPreconditionError(
        fmt::format("cannot listen on {}: the port is in use or the address is not this machine's; choose another with "
                    "--listen",
                    options.listen_address));
  }
  for (const std::string& name : service_names) {
    server->server_->GetHealthCheckService()->SetServingStatus(name, true);
  }
  server->port_ = port;
  server->address_ = fmt::format("{}:{}", options.listen_address.substr(0, options.listen_address.rfind(':')), port);
  return server;
}

GrpcServer::~GrpcServer() { Shutdown(std::chrono::milliseconds(0)); }

std::shared_ptr<grpc::Channel> GrpcServer::InProcessChannel() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kGrpcMessageBytesMax);
  arguments.SetMaxSendMessageSize(kGrpcMessageBytesMax);
  return server_->InProcessChannel(arguments);
}

void GrpcServer::SetServing(bool serving) { server_->GetHealthCheckService()->SetServingStatus(serving); }

void GrpcServer::Shutdown(std::chrono::milliseconds grace) {
  {
    MutexLock lock(mutex_);
    if (is_shut_down_ || server_ == nullptr) return;
    is_shut_down_ = true;
  }
  server_->GetHealthCheckService()->Shutdown();
  server_->Shutdown(std::chrono::system_clock::now() + grace);
  server_->Wait();
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

absl::StatusOr<std::chrono::steady_clock::time_point> SteadyDeadline(
    std::chrono::system_clock::time_point wall_deadline, std::chrono::system_clock::time_point wall_now,
    std::chrono::steady_clock::time_point steady_now, std::chrono::milliseconds default_budget) {
  if (wall_deadline == std::chrono::system_clock::time_point::max()) return steady_now + default_budget;
  if (wall_deadline <= wall_now) {
    const auto late = std::chrono::duration_cast<std::chrono::milliseconds>(wall_now - wall_deadline);
    return absl::DeadlineExceededError(
        fmt::format("the call's deadline passed {} ms before the server began it; nothing was done", late.count()));
  }
  // A deadline in the far future must not overflow the steady clock; a year is for ever.
  const auto left =
      std::min<std::chrono::system_clock::duration>(wall_deadline - wall_now, std::chrono::hours(24 * 365));
  return steady_now + std::chrono::duration_cast<std::chrono::steady_clock::duration>(left);
}

absl::StatusOr<std::chrono::steady_clock::time_point> CallDeadline(const grpc::ServerContext& context,
                                                                   std::chrono::milliseconds default_budget) {
  absl::StatusOr<std::chrono::steady_clock::time_point> deadline = SteadyDeadline(
      context.deadline(), std::chrono::system_clock::now(), std::chrono::steady_clock::now(), default_budget);
  // The deadline first: a call whose deadline passed is cancelled by gRPC as well, and this is the reason.
  if (deadline.ok() && context.IsCancelled()) {
    return absl::CancelledError("the client cancelled the call before the server began it");
  }
  return deadline;
}

absl::Status CompleteRequestContext(const grpc::ServerContext& context, v1::RequestContext* request_context) {
  if (request_context->tenant().empty()) request_context->set_tenant("default");
  if (request_context->request_id().empty()) request_context->set_request_id(MakeRequestId());
  if (request_context->traceparent().empty()) {
    TakeFromMetadata(context, "traceparent", request_context->mutable_traceparent());
    TakeFromMetadata(context, "tracestate", request_context->mutable_tracestate());
  }
  if (request_context->traceparent().size() > kTraceBytesMax || request_context->tracestate().size() > kTraceBytesMax) {
    return absl::InvalidArgumentError(
        fmt::format("context.traceparent and context.tracestate are {} and {} bytes; the limit of each is {}",
                    request_context->traceparent().size(), request_context->tracestate().size(), kTraceBytesMax));
  }
  EPIC_RETURN_IF_ERROR(ValidateTenant("context.tenant", request_context->tenant()));
  return ValidateRequestId("context.request_id", request_context->request_id());
}

}  // namespace epic
