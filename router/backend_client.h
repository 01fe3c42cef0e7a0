// The router's backends over gRPC: one channel a member, made when it is first needed and kept.
#ifndef EPIC_ROUTER_BACKEND_CLIENT_H_
#define EPIC_ROUTER_BACKEND_CLIENT_H_

#include <memory>

#include "router/backends.h"
#include "server/grpc_client.h"

namespace epic {

std::unique_ptr<Backends> MakeGrpcBackends(ChannelFactory channels);

}  // namespace epic

#endif  // EPIC_ROUTER_BACKEND_CLIENT_H_
