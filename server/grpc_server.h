// The server side of gRPC, the same for every role: listening, health, reflection, limits, shutdown, and the few things
// that every handler needs (status conversion, the call's deadline, the request's context).
//
//     EPIC_ASSIGN_OR_RETURN(server, GrpcServer::Start(options, {&document_service, &cache_service}));
//     ...
//     server->Shutdown(std::chrono::seconds(10));
//
// The services are the caller's and must outlive the server. All methods are thread-safe.
#ifndef EPIC_SERVER_GRPC_SERVER_H_
#define EPIC_SERVER_GRPC_SERVER_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/sync.h"
#include "epic/v1/common.pb.h"
#include "server/server_options.h"

namespace epic {

class GrpcServer {
 public:
  // Starts serving. INVALID_ARGUMENT: the address is not HOST:PORT. FAILED_PRECONDITION: the port is in use, or the
  // address is not this machine's; the sentence names it. Every service, and the server as a whole (""), is SERVING in
  // the standard health service; reflection is on.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options,
                                                           const std::vector<grpc::Service*>& services);
  // Shuts down without grace where Shutdown was not called.
  ~GrpcServer();
  GrpcServer(const GrpcServer&) = delete;
  GrpcServer& operator=(const GrpcServer&) = delete;

  // HOST:PORT as given, with the port that was chosen where 0 was given.
  const std::string& address() const { return address_; }
  int port() const { return port_; }

  // Reaches the services without a socket. Must not be used after Shutdown.
  std::shared_ptr<grpc::Channel> InProcessChannel();

  // What the health service answers for every service. A role that cannot take requests (yet) says so here.
  void SetServing(bool serving);

  // Answers NOT_SERVING and refuses new calls at once, lets running calls finish for `grace`, then cancels them.
  // Returns when all have ended. Further calls do nothing.
  void Shutdown(std::chrono::milliseconds grace) EPIC_EXCLUDES(mutex_);

 private:
  GrpcServer() = default;

  std::string address_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  Mutex mutex_;
  bool is_shut_down_ EPIC_GUARDED_BY(mutex_) = false;
};

// The codes of both are equal by number.
grpc::Status ToGrpcStatus(const absl::Status& status);

// When the call must be answered: what its client asked for, or `default_budget` from now where it asked for nothing.
// DEADLINE_EXCEEDED when that has passed already, so that no work starts for a client that is gone; CANCELLED likewise.
absl::StatusOr<std::chrono::steady_clock::time_point> CallDeadline(const grpc::ServerContext& context,
                                                                   std::chrono::milliseconds default_budget);
// The arithmetic of it. `wall_deadline` is system_clock's max() where the client set none.
absl::StatusOr<std::chrono::steady_clock::time_point> SteadyDeadline(
    std::chrono::system_clock::time_point wall_deadline, std::chrono::system_clock::time_point wall_now,
    std::chrono::steady_clock::time_point steady_now, std::chrono::milliseconds default_budget);

// Fills what the client left out: tenant "default", a random request id, and the trace from the call's metadata
// (traceparent, tracestate) where the body has none. Then checks: INVALID_ARGUMENT names the field, its value and the
// limit.
absl::Status CompleteRequestContext(const grpc::ServerContext& context, v1::RequestContext* request_context);

}  // namespace epic

#endif  // EPIC_SERVER_GRPC_SERVER_H_
