#include "cache_node/cache_admin_service.h"

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "core/kv_encoding.h"
#include "core/limits.h"
#include "core/status_macros.h"
#include "fmt/format.h"
#include "server/grpc_server.h"
#include "server/server_options.h"

namespace epic {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr size_t kListedPinsMax = 1000;
constexpr size_t kListedFaultsMax = 100;
constexpr milliseconds kVerifyReportPeriod{200};

// A call's deadline, and whose documents it means.
struct Call {
  Deadline deadline;
  v1::RequestContext context;
};

absl::StatusOr<Call> Begin(const grpc::ServerContext& context, const v1::RequestContext& request_context) {
  Call call;
  EPIC_ASSIGN_OR_RETURN(call.deadline, CallDeadline(context, milliseconds(kControlDeadlineMsDefault)));
  call.context = request_context;
  EPIC_RETURN_IF_ERROR(CompleteRequestContext(context, &call.context));
  return call;
}

absl::Status CheckTier(v1::Tier tier) {
  if (v1::Tier_IsValid(tier)) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("tier is {}, expected {} (all), {} (host) or {} (disk)",
                                                static_cast<int>(tier), static_cast<int>(v1::TIER_UNSPECIFIED),
                                                static_cast<int>(v1::TIER_HOST), static_cast<int>(v1::TIER_DISK)));
}

void FillHost(const CacheNode& node, v1::TierStatus* out) {
  const BlockStoreStats stats = node.StoreStats();
  const TieredStoreStats moves = node.tiers().Stats();
  out->set_tier(v1::TIER_HOST);
  out->set_dtype(std::string(KvDtypeName(node.tiers().options().host_dtype)));
  out->set_eviction_policy(node.tiers().host().eviction_policy());
  out->set_capacity_bytes(static_cast<int64_t>(stats.capacity_bytes));
  out->set_used_bytes(static_cast<int64_t>(stats.used_bytes));
  out->set_block_count(static_cast<int64_t>(stats.blocks));
  out->set_pinned_blocks(static_cast<int64_t>(stats.pinned_blocks));
  out->set_pinned_bytes(static_cast<int64_t>(stats.pinned_bytes));
  out->set_lease_count(static_cast<int64_t>(stats.leases));
  out->set_leased_bytes(static_cast<int64_t>(stats.leased_bytes));
  out->set_largest_free_bytes(static_cast<int64_t>(stats.largest_free_bytes));
  out->set_free_ranges(static_cast<int64_t>(stats.free_ranges));
  out->set_hits_total(stats.hits_total);
  out->set_misses_total(stats.misses_total);
  out->set_promotions_total(moves.loads_total);
  out->set_demotions_total(moves.writes_total);
  auto& evictions = *out->mutable_evictions_total();
  evictions["room"] = stats.evictions_for_room_total;
  evictions["run"] = stats.evictions_for_run_total;
  evictions["requested"] = stats.evictions_requested_total;
  evictions["deleted"] = stats.deletions_total;
  evictions["damaged"] = stats.damaged_total;
  out->set_checksum_failures_total(stats.damaged_total + node.CompileStats().damaged_total);
  out->set_queue_length(static_cast<int64_t>(moves.loads_waiting));
}

void FillDisk(const CacheNode& node, v1::TierStatus* out) {
  const BlockTierStats stats = node.tiers().disk()->TierStats();
  const TieredStoreStats moves = node.tiers().Stats();
  out->set_tier(v1::TIER_DISK);
  out->set_dtype(std::string(KvDtypeName(node.tiers().options().disk_dtype)));
  out->set_eviction_policy(node.tiers().host().eviction_policy());
  out->set_capacity_bytes(static_cast<int64_t>(stats.capacity_bytes));
  out->set_used_bytes(static_cast<int64_t>(stats.used_bytes));
  out->set_block_count(static_cast<int64_t>(stats.blocks));
  // A chunk that is not in memory is asked of the disk; what the disk lacked was compiled.
  out->set_hits_total(moves.loads_total);
  out->set_misses_total(node.CompileStats().compiled_chunks_total);
  out->set_promotions_total(moves.loads_total);
  out->set_demotions_total(moves.writes_total);
  auto& evictions = *out->mutable_evictions_total();
  evictions["room"] = stats.evictions_total;
  evictions["deleted"] = stats.deletions_total;
  evictions["damaged"] = stats.checksum_failures_total + stats.read_errors_total;
  out->set_checksum_failures_total(stats.checksum_failures_total);
  out->set_read_errors_total(stats.read_errors_total);
  out->set_write_errors_total(stats.write_errors_total);
  out->set_declined_total(moves.writes_declined_total);
  out->set_queue_length(static_cast<int64_t>(moves.writes_waiting));
  out->set_bytes_read_total(stats.read_bytes_total);
  out->set_bytes_written_total(stats.written_bytes_total);
}

}  // namespace

grpc::Status CacheAdminServiceImpl::GetTiers(grpc::ServerContext*, const v1::GetTiersRequest*,
                                             v1::GetTiersResponse* response) {
  const absl::StatusOr<CacheNodeStatus> status = node_->Status();
  if (!status.ok()) return ToGrpcStatus(status.status());
  response->set_version(EpicVersion());
  FillHost(*node_, response->add_tiers());
  if (node_->tiers().disk() != nullptr) FillDisk(*node_, response->add_tiers());
  response->set_document_count(status->documents);
  response->set_pinned_document_count(static_cast<int64_t>(node_->pinned().count()));
  response->set_pinned_bytes_max(static_cast<int64_t>(node_->pinned().bytes_max()));
  response->set_adopted_blocks(node_->adoption().adopted_blocks);
  response->set_orphaned_blocks(node_->adoption().orphaned_blocks);
  for (const PinnedDocuments::Pinned& pinned : node_->pinned().List(kListedPinsMax)) {
    v1::PinnedDocument* out = response->add_pinned_documents();
    out->set_tenant(pinned.name.tenant);
    out->set_document_id(pinned.name.id);
    out->set_bytes(static_cast<int64_t>(pinned.bytes));
  }
  return grpc::Status::OK;
}

grpc::Status CacheAdminServiceImpl::PinDocument(grpc::ServerContext* context, const v1::PinDocumentRequest* request,
                                                v1::PinDocumentResponse* response) {
  const absl::StatusOr<Call> call = Begin(*context, request->context());
  if (!call.ok()) return ToGrpcStatus(call.status());
  const absl::StatusOr<CacheNode::Pinned> pinned =
      node_->PinDocument(call->context.tenant(), request->document_id(), call->deadline);
  if (!pinned.ok()) return ToGrpcStatus(pinned.status());
  response->set_chunk_count(pinned->chunk_count);
  response->set_resident_chunk_count(pinned->resident_chunk_count);
  response->set_bytes(static_cast<int64_t>(pinned->bytes));
  return grpc::Status::OK;
}

grpc::Status CacheAdminServiceImpl::UnpinDocument(grpc::ServerContext* context, const v1::UnpinDocumentRequest* request,
                                                  v1::UnpinDocumentResponse* response) {
  const absl::StatusOr<Call> call = Begin(*context, request->context());
  if (!call.ok()) return ToGrpcStatus(call.status());
  const absl::StatusOr<bool> was_pinned =
      node_->UnpinDocument(call->context.tenant(), request->document_id(), call->deadline);
  if (!was_pinned.ok()) return ToGrpcStatus(was_pinned.status());
  response->set_was_pinned(*was_pinned);
  return grpc::Status::OK;
}

grpc::Status CacheAdminServiceImpl::EvictBlocks(grpc::ServerContext* context, const v1::EvictBlocksRequest* request,
                                                v1::EvictBlocksResponse* response) {
  const absl::StatusOr<Call> call = Begin(*context, request->context());
  if (!call.ok()) return ToGrpcStatus(call.status());
  if (const absl::Status status = CheckTier(request->tier()); !status.ok()) return ToGrpcStatus(status);
  if (static_cast<size_t>(request->document_ids_size()) > kPromptSegmentsMax) {
    return ToGrpcStatus(absl::InvalidArgumentError(
        fmt::format("document_ids has {} entries, the limit is {}", request->document_ids_size(), kPromptSegmentsMax)));
  }
  const std::vector<std::string> ids(request->document_ids().begin(), request->document_ids().end());
  const absl::StatusOr<EvictionReport> report = node_->Evict(
      call->context.tenant(), ids, request->tier() != v1::TIER_DISK, request->tier() != v1::TIER_HOST, call->deadline);
  if (!report.ok()) return ToGrpcStatus(report.status());
  response->set_evicted_host_blocks(report->evicted_host_blocks);
  response->set_evicted_disk_blocks(report->evicted_disk_blocks);
  response->set_kept_blocks(report->kept_blocks);
  return grpc::Status::OK;
}

grpc::Status CacheAdminServiceImpl::VerifyBlocks(grpc::ServerContext* context, const v1::VerifyBlocksRequest* request,
                                                 grpc::ServerWriter<v1::VerifyBlocksResponse>* writer) {
  if (const absl::Status status = CheckTier(request->tier()); !status.ok()) return ToGrpcStatus(status);
  if (verifying_.exchange(true)) {
    return ToGrpcStatus(absl::ResourceExhaustedError("blocks are being verified already; wait until that has ended"));
  }
  const absl::Status status = DoVerify(context, request->tier(), writer);
  verifying_ = false;
  return ToGrpcStatus(status);
}

absl::Status CacheAdminServiceImpl::DoVerify(grpc::ServerContext* context, v1::Tier tier,
                                             grpc::ServerWriter<v1::VerifyBlocksResponse>* writer) {
  v1::VerifyBlocksResponse earlier;  // totals of the tiers that are done
  v1::VerifyBlocksResponse now;
  size_t faults_told = 0;
  size_t faults_listed = 0;
  steady_clock::time_point next_report = steady_clock::now();
  const auto tell = [&](const VerifyProgress& progress) {
    now = earlier;
    now.set_verified_blocks(earlier.verified_blocks() + static_cast<int64_t>(progress.blocks_done));
    now.set_total_blocks(earlier.total_blocks() + static_cast<int64_t>(progress.blocks_total));
    now.set_verified_bytes(earlier.verified_bytes() + static_cast<int64_t>(progress.bytes_done));
    now.set_bad_blocks(earlier.bad_blocks() + static_cast<int64_t>(progress.faults.size()));
    for (; faults_told < progress.faults.size() && faults_listed < kListedFaultsMax; ++faults_told, ++faults_listed) {
      now.add_faults(progress.faults[faults_told]);
    }
    next_report = steady_clock::now() + kVerifyReportPeriod;
    return writer->Write(now);
  };
  const auto progress = [&](const VerifyProgress& done) {
    if (stopping_ || context->IsCancelled()) return false;
    return steady_clock::now() < next_report || tell(done);
  };
  const auto verify = [&](const std::function<absl::StatusOr<VerifyProgress>()>& run) -> absl::Status {
    faults_told = 0;
    EPIC_ASSIGN_OR_RETURN(const VerifyProgress done, run());
    if (!tell(done)) return absl::CancelledError("the client is gone");
    earlier = now;
    earlier.clear_faults();
    return absl::OkStatus();
  };
  if (tier != v1::TIER_DISK) {
    EPIC_RETURN_IF_ERROR(verify([&] { return node_->tiers().VerifyHost(progress); }));
  }
  if (tier != v1::TIER_HOST && node_->tiers().disk() != nullptr) {
    EPIC_RETURN_IF_ERROR(verify([&] { return node_->tiers().disk()->VerifyAll(progress); }));
  }
  return absl::OkStatus();
}

grpc::Status CacheAdminServiceImpl::Compact(grpc::ServerContext*, const v1::CompactRequest*,
                                            v1::CompactResponse* response) {
  absl::StatusOr<std::pair<uint64_t, uint64_t>> bytes = node_->manifest().Compact();
  if (!bytes.ok()) return ToGrpcStatus(bytes.status());
  response->set_bytes_before(static_cast<int64_t>(bytes->first));
  response->set_bytes_after(static_cast<int64_t>(bytes->second));
  if (node_->tiers().disk() == nullptr) return grpc::Status::OK;
  bytes = node_->tiers().disk()->Compact();
  if (!bytes.ok()) return ToGrpcStatus(bytes.status());
  response->set_bytes_before(response->bytes_before() + static_cast<int64_t>(bytes->first));
  response->set_bytes_after(response->bytes_after() + static_cast<int64_t>(bytes->second));
  return grpc::Status::OK;
}

}  // namespace epic
