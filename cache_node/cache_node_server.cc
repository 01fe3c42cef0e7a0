#include "cache_node/cache_node_server.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <thread>
#include <utility>

#include "cache_node/cache_admin_service.h"
#include "cache_node/cache_node.h"
#include "cache_node/cache_service.h"
#include "cache_node/document_service.h"
#include "cache_node/engine_compiler.h"
#include "cache_node/lease_socket.h"
#include "cache_node/node_metrics.h"
#include "core/kv_encoding.h"
#include "core/status_macros.h"
#include "core/sync.h"
#include "engine/linker_gate.h"
#include "server/model_info.h"
#include "spdlog/spdlog.h"
#include "storage/disk_tier.h"
#include "storage/tiered_store.h"

namespace epic {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// How often leases, expired documents and overdue calls are looked after.
constexpr milliseconds kHousekeepingPeriod{1000};

// A compiler that keeps its engine alive.
class OwningEngineCompiler : public EngineCompiler {
 public:
  explicit OwningEngineCompiler(std::shared_ptr<Engine> engine)
      : EngineCompiler(engine.get()), engine_(std::move(engine)) {}

 private:
  const std::shared_ptr<Engine> engine_;
};

}  // namespace

// In the order of dependence: what is declared later uses what is declared earlier.
struct CacheNodeServer::Parts {
  std::shared_ptr<ChunkCompiler> compiler;
  std::shared_ptr<Metrics> metrics;
  std::unique_ptr<CacheNode> node;
  std::unique_ptr<NodeMetrics> node_metrics;
  std::unique_ptr<DocumentServiceImpl> document_service;
  std::unique_ptr<CacheServiceImpl> cache_service;
  std::unique_ptr<CacheAdminServiceImpl> admin_service;
  std::unique_ptr<LeaseSocket> lease_socket;
  std::unique_ptr<GrpcServer> server;
  std::string address;
  std::string home;

  Mutex mutex;
  CondVar wake;
  bool stopping EPIC_GUARDED_BY(mutex) = false;
  std::thread housekeeper;

  void KeepHouse() {
    while (true) {
      cache_service->Tick(steady_clock::now());
      node->SweepExpired(steady_clock::now() + kHousekeepingPeriod);
      if (const absl::StatusOr<CacheNodeStatus> status = node->Status(); status.ok()) {
        node_metrics->SetDocuments(status->documents);
      }
      const steady_clock::time_point next = steady_clock::now() + kHousekeepingPeriod;
      MutexLock lock(mutex);
      bool in_time = true;
      while (!stopping && in_time) in_time = wake.WaitUntil(mutex, next);
      if (stopping) return;
    }
  }

  void StopHousekeeper() EPIC_EXCLUDES(mutex) {
    {
      MutexLock lock(mutex);
      stopping = true;
      wake.NotifyAll();
    }
    if (housekeeper.joinable()) housekeeper.join();
  }
};

absl::StatusOr<std::unique_ptr<CacheNodeServer>> CacheNodeServer::Create(const CacheNodeServerOptions& options,
                                                                         std::shared_ptr<Engine> engine,
                                                                         std::shared_ptr<Metrics> metrics) {
  const v1::ModelInfo model = ModelInfoOf(*engine);
  return Create(options, std::make_shared<OwningEngineCompiler>(std::move(engine)), model, std::move(metrics));
}

namespace {

// What the options say, else what the model's verdicts recommend.
absl::StatusOr<std::string> DefaultRecipe(const CacheNodeServerOptions& options, const ChunkCompiler& compiler) {
  EPIC_ASSIGN_OR_RETURN(const LoadedGate loaded,
                        LoadLinkerGate(options.verdicts, {}, compiler.fingerprint_hex(), EpicVersion()));
  for (const std::string& note : loaded.notes) spdlog::warn("{}", note);
  const std::string recipe = options.default_recipe.empty() ? RecommendedRecipe(loaded.gate) : options.default_recipe;
  spdlog::info("documents that name no recipe are compiled by {}", recipe);
  return recipe;
}

}  // namespace

namespace {

absl::StatusOr<std::unique_ptr<TieredStore>> OpenTiers(const CacheNodeServerOptions& options) {
  TieredStoreOptions tiers;
  EPIC_ASSIGN_OR_RETURN(tiers.host_dtype, ParseKvDtype(options.kv_dtype));
  EPIC_ASSIGN_OR_RETURN(tiers.disk_dtype, ParseKvDtype(options.disk_kv_dtype));
  EPIC_ASSIGN_OR_RETURN(std::unique_ptr<BlockStore> host,
                        BlockStore::Create({.capacity_bytes = options.kv_capacity_bytes,
                                            .protect_published = options.protect_blocks,
                                            .eviction_policy = options.eviction_policy,
                                            .arena = {.reserved_huge_pages = options.reserved_huge_pages,
                                                      .lock_memory = options.lock_memory}}));
  std::unique_ptr<DiskTier> disk;
  if (options.disk_capacity_bytes > 0) {
    EPIC_ASSIGN_OR_RETURN(std::unique_ptr<EvictionPolicy> policy,
                          MakeEvictionPolicy(options.eviction_policy, options.disk_capacity_bytes));
    DiskTierOptions disk_options;
    disk_options.folder =
        options.disk_dir.empty() ? (std::filesystem::path(options.data_dir) / "blocks").string() : options.disk_dir;
    disk_options.capacity_bytes = options.disk_capacity_bytes;
    disk_options.segment_bytes = std::min(disk_options.segment_bytes, options.disk_capacity_bytes / 4);
    disk_options.free_bytes_min = options.disk_free_bytes_min;
    EPIC_ASSIGN_OR_RETURN(disk, DiskTier::Open(disk_options, std::move(policy)));
  }
  return std::make_unique<TieredStore>(tiers, std::move(host), std::move(disk));
}

// Null where there is to be none.
absl::StatusOr<std::unique_ptr<LeaseSocket>> OpenLeaseSocket(const CacheNodeServerOptions& options,
                                                             CacheServiceImpl* service) {
  if (options.lease_socket == kNoLeaseSocket) return nullptr;
  LeaseSocketOptions socket_options;
  std::error_code error;
  socket_options.path =
      options.lease_socket.empty()
          ? std::filesystem::absolute(std::filesystem::path(options.data_dir) / "leases.sock", error).string()
          : options.lease_socket;
  socket_options.allowed_uids = {geteuid()};
  for (const std::string& uid : options.lease_socket_uids) {
    EPIC_ASSIGN_OR_RETURN(const uid_t id, ParseUserId(uid));
    socket_options.allowed_uids.push_back(id);
  }
  absl::StatusOr<std::unique_ptr<LeaseSocket>> socket =
      LeaseSocket::Open(socket_options, service->instance_id(), &service->leases());
  if (!socket.ok() && options.lease_socket.empty()) {
    // Nobody asked for it by name: readers on this host do as those on others.
    spdlog::warn("no lease socket: {}", std::string(socket.status().message()));
    return nullptr;
  }
  if (socket.ok()) service->SetLeaseSocket((*socket)->path());
  return socket;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CacheNodeServer>> CacheNodeServer::Create(const CacheNodeServerOptions& options,
                                                                         std::shared_ptr<ChunkCompiler> compiler,
                                                                         const v1::ModelInfo& model,
                                                                         std::shared_ptr<Metrics> metrics) {
  EPIC_RETURN_IF_ERROR(options.Validate());
  EPIC_RETURN_IF_ERROR(options.ValidateFor(*compiler));
  // First what can be refused at once: the folder may belong to another process.
  const std::filesystem::path data_dir = options.data_dir;
  ManifestOptions manifest_options;
  manifest_options.folder = (data_dir / "manifest").string();
  manifest_options.copy_folder = options.manifest_copy_dir;
  manifest_options.free_bytes_min = options.disk_free_bytes_min;
  EPIC_ASSIGN_OR_RETURN(std::unique_ptr<Manifest> manifest, Manifest::Open(std::move(manifest_options)));
  EPIC_ASSIGN_OR_RETURN(std::unique_ptr<TieredStore> store, OpenTiers(options));

  auto parts = std::make_unique<Parts>();
  parts->compiler = std::move(compiler);
  parts->metrics = metrics == nullptr ? std::make_shared<Metrics>() : std::move(metrics);
  CacheNodeOptions node_options;
  EPIC_ASSIGN_OR_RETURN(node_options.default_recipe_id, DefaultRecipe(options, *parts->compiler));
  node_options.pinned_bytes_max =
      options.pinned_bytes_max == 0 ? options.kv_capacity_bytes / 2 : options.pinned_bytes_max;
  node_options.chunker.target_tokens = options.chunk_tokens;
  node_options.chunker.tail_tokens_min = std::min(node_options.chunker.tail_tokens_min, options.chunk_tokens / 4);
  const std::vector<double> bounds = {0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3};
  const auto observe = [&](const char* name, const char* help) {
    prometheus::Histogram& histogram = parts->metrics->Histogram(name, help, bounds);
    return [&histogram](double seconds) { histogram.Observe(seconds); };
  };
  store->SetLatencyObservers(
      observe("epic_cache_node_tier_load_seconds", "Time that loading a block from disk took, verification included."),
      observe("epic_cache_node_tier_write_seconds", "Time that copying a block to disk took."));
  EPIC_ASSIGN_OR_RETURN(parts->node,
                        CacheNode::Create(node_options, std::move(manifest), std::move(store), parts->compiler.get()));
  parts->node_metrics = std::make_unique<NodeMetrics>(parts->metrics.get(), parts->node.get());
  parts->document_service = std::make_unique<DocumentServiceImpl>(parts->node.get());
  parts->cache_service = std::make_unique<CacheServiceImpl>(parts->node.get(), model);
  EPIC_ASSIGN_OR_RETURN(parts->lease_socket, OpenLeaseSocket(options, parts->cache_service.get()));
  parts->admin_service = std::make_unique<CacheAdminServiceImpl>(parts->node.get());
  EPIC_ASSIGN_OR_RETURN(parts->server,
                        GrpcServer::Start(options.server, {parts->document_service.get(), parts->cache_service.get(),
                                                           parts->admin_service.get()}));
  parts->address = parts->server->address();
  parts->home = options.advertise_address.empty() ? parts->address : options.advertise_address;
  parts->document_service->SetHome(parts->home);
  parts->housekeeper = std::thread([raw = parts.get()] { raw->KeepHouse(); });
  return std::unique_ptr<CacheNodeServer>(new CacheNodeServer(std::move(parts)));
}

CacheNodeServer::CacheNodeServer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

CacheNodeServer::~CacheNodeServer() { Shutdown(milliseconds(0)); }

const std::string& CacheNodeServer::address() const { return parts_->address; }
const std::string& CacheNodeServer::home() const { return parts_->home; }
BlockProvider* CacheNodeServer::provider() { return parts_->node.get(); }
CacheNode& CacheNodeServer::node() { return *parts_->node; }
std::shared_ptr<grpc::Channel> CacheNodeServer::InProcessChannel() { return parts_->server->InProcessChannel(); }

void CacheNodeServer::Shutdown(milliseconds grace) {
  const steady_clock::time_point deadline = steady_clock::now() + grace;
  parts_->document_service->StopWatches();
  // Calls that wait for a chunk may still get it within the grace.
  parts_->admin_service->Stop();
  parts_->server->Shutdown(grace);
  // What is in memory is on disk for the next start, also what found no room there at first.
  parts_->node->tiers().QueueMissingCopies();
  parts_->node->tiers().WaitForWrites(deadline);
  parts_->node->Shutdown();
  parts_->StopHousekeeper();
}

}  // namespace epic
