#include "server/grpc_client.h"

#include <fmt/format.h>

#include "core/limits.h"
#include "epic/v1/health.grpc.pb.h"

namespace epic {

std::shared_ptr<grpc::Channel> CreateNetworkChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kGrpcMessageBytesMax);
  arguments.SetMaxSendMessageSize(kGrpcMessageBytesMax);
  // A peer that vanished without closing is noticed within half a minute, while a long prefill is silent.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // A process that was restarted is found again soon: gRPC's own upper bound is two minutes.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  // What this bounds, despite its name, is one attempt to connect: a peer on a machine with more work than cores takes
  // its time to shake hands and is not lost for that.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 3'000);
  // Our retries know which calls may be repeated; gRPC's do not.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

std::unique_ptr<grpc::ClientContext> MakeClientContext(std::chrono::steady_clock::time_point deadline,
                                                       const v1::RequestContext& request_context,
                                                       const grpc::ServerContext* parent) {
  std::unique_ptr<grpc::ClientContext> context;
  if (parent != nullptr) {
    // Only cancellation: the deadline is ours, which may be earlier, and census has no use here.
    grpc::PropagationOptions propagation;
    propagation.disable_deadline_propagation().disable_census_stats_propagation().disable_census_tracing_propagation();
    context = grpc::ClientContext::FromServerContext(*parent, propagation);
  } else {
    context = std::make_unique<grpc::ClientContext>();
  }
  if (deadline != std::chrono::steady_clock::time_point::max()) {
    const auto left = deadline - std::chrono::steady_clock::now();
    context->set_deadline(std::chrono::system_clock::now() +
                          std::chrono::duration_cast<std::chrono::system_clock::duration>(left));
  }
  if (!request_context.traceparent().empty()) {
    context->AddMetadata("traceparent", request_context.traceparent());
    if (!request_context.tracestate().empty()) context->AddMetadata("tracestate", request_context.tracestate());
  }
  return context;
}

absl::Status CheckHealth(grpc::Channel* channel, const std::string& service,
                         std::chrono::steady_clock::time_point deadline) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  grpc::health::v1::HealthCheckResponse response;
  const auto context = MakeClientContext(deadline);
  const auto borrowed = std::shared_ptr<grpc::Channel>(channel, [](grpc::Channel*) {});
  const grpc::Status status = grpc::health::v1::Health::NewStub(borrowed)->Check(context.get(), request, &response);
  if (!status.ok()) {
    return absl::UnavailableError(fmt::format("not reached: {}", status.error_message()));
  }
  if (response.status() != grpc::health::v1::HealthCheckResponse::SERVING) {
    return absl::UnavailableError("reached, and not serving now");
  }
  return absl::OkStatus();
}

}  // namespace epic
