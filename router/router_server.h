// A router, whole: membership, backends, logic, services and the server around them. A process has one by main.cc;
// `epic up` and tests make one inside their own process.
#ifndef EPIC_ROUTER_ROUTER_SERVER_H_
#define EPIC_ROUTER_ROUTER_SERVER_H_

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "router/router_options.h"
#include "server/grpc_client.h"
#include "server/grpc_server.h"
#include "server/metrics.h"

namespace epic {

// Thread-safe.
class RouterServer {
 public:
  // Starts serving. `channels` reaches cache nodes and workers by the addresses of `options`: CreateNetworkChannel, or
  // in-process channels. `metrics` may be shared with other roles, or null. Members need not be up yet.
  // INVALID_ARGUMENT with all problems of the options; FAILED_PRECONDITION where the port is in use.
  static absl::StatusOr<std::unique_ptr<RouterServer>> Create(const RouterOptions& options, ChannelFactory channels,
                                                              std::shared_ptr<Metrics> metrics);
  ~RouterServer();

  // Where clients reach it.
  const std::string& address() const;
  // Not to be used after Shutdown.
  std::shared_ptr<grpc::Channel> InProcessChannel();
  // Refuses new calls, gives running ones `grace`, then cancels them.
  void Shutdown(std::chrono::milliseconds grace);

 private:
  struct Parts;
  explicit RouterServer(std::unique_ptr<Parts> parts);
  const std::unique_ptr<Parts> parts_;
};

}  // namespace epic

#endif  // EPIC_ROUTER_ROUTER_SERVER_H_
