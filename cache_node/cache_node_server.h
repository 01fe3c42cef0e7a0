// A cache node, whole: node, services, server, metrics and housekeeping. A process has one by main.cc; `epic up` and
// tests make one inside their own process.
#ifndef EPIC_CACHE_NODE_CACHE_NODE_SERVER_H_
#define EPIC_CACHE_NODE_CACHE_NODE_SERVER_H_

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "cache_node/cache_node_options.h"
#include "cache_node/compiler.h"
#include "engine/engine.h"
#include "epic/v1/common.pb.h"
#include "server/grpc_server.h"
#include "server/metrics.h"
#include "transfer/block_source.h"

namespace epic {

class CacheNode;

// Thread-safe.
class CacheNodeServer {
 public:
  // Opens the data directory, begins to compile what it holds and starts serving. The engine is shared with others of
  // the process. `metrics` may be shared with other roles, or null. INVALID_ARGUMENT with all problems of the options;
  // FAILED_PRECONDITION: the port is in use, the directory belongs to a running process or to a newer version.
  static absl::StatusOr<std::unique_ptr<CacheNodeServer>> Create(const CacheNodeServerOptions& options,
                                                                 std::shared_ptr<Engine> engine,
                                                                 std::shared_ptr<Metrics> metrics);
  // The same with any compiler.
  static absl::StatusOr<std::unique_ptr<CacheNodeServer>> Create(const CacheNodeServerOptions& options,
                                                                 std::shared_ptr<ChunkCompiler> compiler,
                                                                 const v1::ModelInfo& model,
                                                                 std::shared_ptr<Metrics> metrics);
  // Shuts down without grace where Shutdown was not called. REQUIRES: no block that was located through provider() is
  // alive.
  ~CacheNodeServer();

  // Where it listens.
  const std::string& address() const;
  // What it calls itself to workers: the home of its chunks.
  const std::string& home() const;
  // The node's blocks for a worker in this process, as long as this object lives.
  BlockProvider* provider();
  CacheNode& node();
  // Not to be used after Shutdown.
  std::shared_ptr<grpc::Channel> InProcessChannel();
  // Refuses new calls and ends watches, gives running calls `grace`, then cancels them and ends compilation.
  void Shutdown(std::chrono::milliseconds grace);

 private:
  struct Parts;
  explicit CacheNodeServer(std::unique_ptr<Parts> parts);
  const std::unique_ptr<Parts> parts_;
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_CACHE_NODE_SERVER_H_
