// The calling side of gRPC, the same for everyone who calls: channels, deadlines, status conversion, health.
#ifndef EPIC_SERVER_GRPC_CLIENT_H_
#define EPIC_SERVER_GRPC_CLIENT_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "epic/v1/common.pb.h"

namespace epic {

// How a process reaches others: by address over the network, or in process where tests and `epic up` say so. Must be
// thread-safe and never answer null.
using ChannelFactory = std::function<std::shared_ptr<grpc::Channel>(const std::string& address)>;

// A channel with our message limits, keepalive and quick reconnection. Connects on first use.
std::shared_ptr<grpc::Channel> CreateNetworkChannel(const std::string& address);

// The codes of both are equal by number. The message is kept, so that it reads the same at any distance.
absl::Status FromGrpcStatus(const grpc::Status& status);

// A context for one outgoing call. With `parent`, the call on whose behalf it is made, its cancellation cancels this
// call too; `parent` must then outlive it. The trace of `request_context` travels as metadata.
std::unique_ptr<grpc::ClientContext> MakeClientContext(std::chrono::steady_clock::time_point deadline,
                                                       const v1::RequestContext& request_context = {},
                                                       const grpc::ServerContext* parent = nullptr);

// Asks the standard health service. OK: serving. UNAVAILABLE: reached and not serving, or not reached; the sentence
// says.
absl::Status CheckHealth(grpc::Channel* channel, const std::string& service,
                         std::chrono::steady_clock::time_point deadline);

}  // namespace epic

#endif  // EPIC_SERVER_GRPC_CLIENT_H_
