// A whole cache node with a fake compiler behind a real socket, for the tests of its services.
#ifndef EPIC_CACHE_NODE_HARNESS_SERVER_H_
#define EPIC_CACHE_NODE_HARNESS_SERVER_H_

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "cache_node/cache_node_server.h"
#include "cache_node/fake_compiler.h"
#include "cache_node/node_harness.h"
#include "epic/v1/cache.grpc.pb.h"
#include "epic/v1/document.grpc.pb.h"
#include "gtest/gtest.h"
#include "server/grpc_client.h"

namespace epic {

class ServiceHarness {
 public:
  explicit ServiceHarness(FakeCompiler::Options compiler = {.shape = kSyntheticShape})
      : folder_(FreshFolder()), compiler_(std::make_shared<FakeCompiler>(std::move(compiler))) {
    v1::ModelInfo model;
    model.set_name("synthetic");
    absl::StatusOr<std::unique_ptr<CacheNodeServer>> server =
        CacheNodeServer::Create(OptionsFor(folder_), compiler_, model, metrics_);
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = CreateNetworkChannel(server_->address());
    documents_ = v1::DocumentService::NewStub(channel_);
    cache_ = v1::CacheService::NewStub(channel_);
  }
  ~ServiceHarness() {
    server_.reset();
    compiler_.reset();
    std::filesystem::remove_all(folder_);
  }

  static CacheNodeServerOptions OptionsFor(const std::string& folder) {
    CacheNodeServerOptions options;
    options.server.listen_address = "127.0.0.1:0";
    options.data_dir = folder;
    options.kv_capacity_bytes = size_t{64} << 20;
    options.chunk_tokens = 16;
    return options;
  }

  const std::string& folder() const { return folder_; }
  FakeCompiler& compiler() { return *compiler_; }
  Metrics& metrics() { return *metrics_; }
  CacheNodeServer& server() { return *server_; }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  v1::DocumentService::Stub& documents() { return *documents_; }
  v1::CacheService::Stub& cache() { return *cache_; }

 private:
  const std::string folder_;
  std::shared_ptr<FakeCompiler> compiler_;
  const std::shared_ptr<Metrics> metrics_ = std::make_shared<Metrics>();
  std::unique_ptr<CacheNodeServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::DocumentService::Stub> documents_;
  std::unique_ptr<v1::CacheService::Stub> cache_;
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_HARNESS_SERVER_H_
