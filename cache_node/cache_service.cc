#include "cache_node/cache_service.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/limits.h"
#include "core/status_macros.h"
#include "fmt/format.h"
#include "server/grpc_server.h"
#include "server/server_options.h"

namespace epic {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

v1::LocatedChunk::Source SourceOf(BlockOrigin origin) {
  switch (origin) {
    case BlockOrigin::kHeld:
      return v1::LocatedChunk::SOURCE_HELD;
    case BlockOrigin::kCompiled:
      return v1::LocatedChunk::SOURCE_COMPILED;
    case BlockOrigin::kAbsent:
      break;
  }
  return v1::LocatedChunk::SOURCE_ABSENT;
}

absl::StatusOr<LocateQuery> QueryOf(const v1::LocateRequest& request, const v1::RequestContext& context) {
  if (static_cast<size_t>(request.chunks_size()) > kLocateChunksMax) {
    return absl::InvalidArgumentError(
        fmt::format("chunks has {} entries, the limit is {}", request.chunks_size(), kLocateChunksMax));
  }
  LocateQuery query;
  query.tenant = context.tenant();
  query.request_id = context.request_id();
  query.traceparent = context.traceparent();
  query.model_fingerprint_hex = request.model_fingerprint();
  query.recipe.id = request.recipe().id();
  query.recipe.prefix_tokens.assign(request.recipe().prefix_token_ids().begin(),
                                    request.recipe().prefix_token_ids().end());
  query.compile_missing = request.compile_missing();
  for (int i = 0; i < request.chunks_size(); ++i) {
    const v1::ChunkRef& chunk = request.chunks(i);
    absl::StatusOr<ChunkKey> key = ChunkKey::FromBytes(chunk.key());
    if (!key.ok()) {
      return absl::InvalidArgumentError(fmt::format("chunks[{}].key has {} bytes, expected 32", i, chunk.key().size()));
    }
    query.chunks.push_back({*key,
                            {chunk.token_ids().begin(), chunk.token_ids().end()},
                            {chunk.context_token_ids().begin(), chunk.context_token_ids().end()}});
  }
  return query;
}

}  // namespace

// Ends the call when its deadline has passed: gRPC does so only where the client gave one, and a client that does not
// read would otherwise hold the block and the thread for ever.
class CacheServiceImpl::ActiveRead {
 public:
  ActiveRead(CacheServiceImpl* service, grpc::ServerContext* context, Deadline deadline)
      : service_(service), context_(context) {
    MutexLock lock(service_->mutex_);
    service_->reads_[context_] = deadline;
  }
  ~ActiveRead() {
    MutexLock lock(service_->mutex_);
    service_->reads_.erase(context_);
  }

 private:
  CacheServiceImpl* const service_;
  grpc::ServerContext* const context_;
};

CacheServiceImpl::CacheServiceImpl(CacheNode* node, v1::ModelInfo model)
    : node_(node), model_(std::move(model)), leases_(kLeasesMax, SystemRandom64) {}

void CacheServiceImpl::Tick(steady_clock::time_point now) {
  leases_.Sweep(now);
  MutexLock lock(mutex_);
  for (const auto& [context, deadline] : reads_) {
    if (deadline <= now) context->TryCancel();
  }
}

grpc::Status CacheServiceImpl::Locate(grpc::ServerContext* context, const v1::LocateRequest* request,
                                      v1::LocateResponse* response) {
  return ToGrpcStatus(DoLocate(context, *request, response));
}

absl::Status CacheServiceImpl::DoLocate(grpc::ServerContext* context, const v1::LocateRequest& request,
                                        v1::LocateResponse* response) {
  EPIC_ASSIGN_OR_RETURN(const Deadline deadline, CallDeadline(*context, milliseconds(kTransferDeadlineMsDefault)));
  v1::RequestContext request_context = request.context();
  EPIC_RETURN_IF_ERROR(CompleteRequestContext(*context, &request_context));
  if (request.lease_ms() < 0 || request.lease_ms() > kLeaseMsMax) {
    return absl::InvalidArgumentError(
        fmt::format("lease_ms is {}, expected 0 (for {}) to {}", request.lease_ms(), kLeaseMsDefault, kLeaseMsMax));
  }
  const milliseconds ttl(request.lease_ms() == 0 ? kLeaseMsDefault : request.lease_ms());
  EPIC_ASSIGN_OR_RETURN(const LocateQuery query, QueryOf(request, request_context));
  EPIC_ASSIGN_OR_RETURN(std::vector<CacheNode::LeasedChunk> leased, node_->LocateLeases(query, deadline));
  if (context->IsCancelled()) return absl::CancelledError("the client cancelled the call");
  const steady_clock::time_point now = steady_clock::now();
  for (CacheNode::LeasedChunk& chunk : leased) {
    v1::LocatedChunk* located = response->add_chunks();
    located->set_source(SourceOf(chunk.origin));
    located->set_compile_us(chunk.compile_us);
    if (!chunk.lease) continue;
    located->set_edition(chunk.lease.edition());
    located->set_block_bytes(static_cast<int64_t>(chunk.lease.view().bytes().size()));
    const absl::StatusOr<uint64_t> lease_id = request.session_id() != 0
                                                  ? leases_.GrantInSession(std::move(chunk.lease), request.session_id())
                                                  : leases_.Grant(std::move(chunk.lease), now, ttl);
    if (!lease_id.ok()) {
      for (const v1::LocatedChunk& granted : response->chunks()) leases_.Release(granted.lease_id());
      return lease_id.status();
    }
    located->set_lease_id(*lease_id);
  }
  response->set_lease_socket(lease_socket_);
  response->set_instance_id(instance_id_);
  return absl::OkStatus();
}

grpc::Status CacheServiceImpl::ReadBlock(grpc::ServerContext* context, const v1::ReadBlockRequest* request,
                                         grpc::ServerWriter<v1::ReadBlockResponse>* writer) {
  return ToGrpcStatus(DoReadBlock(context, *request, writer));
}

absl::Status CacheServiceImpl::DoReadBlock(grpc::ServerContext* context, const v1::ReadBlockRequest& request,
                                           grpc::ServerWriter<v1::ReadBlockResponse>* writer) {
  EPIC_ASSIGN_OR_RETURN(const Deadline deadline, CallDeadline(*context, milliseconds(kTransferDeadlineMsDefault)));
  if (request.offset() < 0 || request.length() < 0) {
    return absl::OutOfRangeError(
        fmt::format("{} bytes at offset {}, expected none below 0", request.length(), request.offset()));
  }
  EPIC_ASSIGN_OR_RETURN(const std::shared_ptr<const BlockStore::Lease> lease,
                        leases_.Find(request.lease_id(), request.edition(), steady_clock::now()));
  EPIC_ASSIGN_OR_RETURN(const ByteSpan span,
                        ResolveRange(lease->view(), {.first_layer = request.first_layer(),
                                                     .layer_count = request.layer_count(),
                                                     .offset = static_cast<size_t>(request.offset()),
                                                     .length = static_cast<size_t>(request.length())}));
  const ActiveRead active(this, context, deadline);
  const std::span<const std::byte> bytes = lease->view().bytes();
  v1::ReadBlockResponse piece;
  for (size_t begin = span.begin; begin < span.end; begin += kTransferPieceBytes) {
    const size_t length = std::min(kTransferPieceBytes, span.end - begin);
    piece.set_offset(static_cast<int64_t>(begin));
    piece.set_data(bytes.data() + begin, length);
    // A write fails when the client has gone, and when Tick has cancelled the call.
    if (!writer->Write(piece)) return absl::CancelledError("the reader is gone, or its time is over");
  }
  return absl::OkStatus();
}

grpc::Status CacheServiceImpl::Release(grpc::ServerContext*, const v1::ReleaseRequest* request, v1::ReleaseResponse*) {
  for (const uint64_t lease_id : request->lease_ids()) leases_.Release(lease_id);
  return grpc::Status::OK;
}

grpc::Status CacheServiceImpl::GetNodeStatus(grpc::ServerContext* context, const v1::GetNodeStatusRequest*,
                                             v1::GetNodeStatusResponse* response) {
  const absl::StatusOr<Deadline> deadline = CallDeadline(*context, milliseconds(kControlDeadlineMsDefault));
  if (!deadline.ok()) return ToGrpcStatus(deadline.status());
  const absl::StatusOr<CacheNodeStatus> status = node_->Status();
  if (!status.ok()) return ToGrpcStatus(status.status());
  response->set_version(EpicVersion());
  *response->mutable_model() = model_;
  response->set_document_count(status->documents);
  response->set_block_count(static_cast<int64_t>(status->store.blocks));
  response->set_used_bytes(static_cast<int64_t>(status->store.used_bytes));
  response->set_capacity_bytes(static_cast<int64_t>(status->store.capacity_bytes));
  response->set_lease_count(static_cast<int64_t>(status->store.leases));
  response->set_compile_queue_length(status->chunks_waiting +
                                     static_cast<int64_t>(status->compile.waiting + status->compile.running));
  response->set_uptime_ms(std::chrono::duration_cast<milliseconds>(steady_clock::now() - started_at_).count());
  response->set_hits_total(status->store.hits_total);
  response->set_misses_total(status->store.misses_total);
  response->set_evictions_total(status->store.evictions_total);
  response->set_compiled_chunks_total(status->compile.compiled_chunks_total);
  response->set_compiled_tokens_total(status->compile.compiled_tokens_total);
  return grpc::Status::OK;
}

}  // namespace epic
