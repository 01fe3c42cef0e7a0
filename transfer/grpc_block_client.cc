#include "transfer/grpc_block_client.h"

#include <cstring>
#include <limits>
#include <utility>

#include "core/status_macros.h"
#include "core/sync.h"
#include "fmt/format.h"

namespace epic {
namespace {

using std::chrono::steady_clock;

// Leases that may wait to be released. Beyond it they are left to end by themselves.
constexpr size_t kPendingReleasesMax = 1 << 16;

// gRPC counts deadlines on the wall clock. A year is for ever, and does not overflow it.
absl::Status SetDeadline(Deadline deadline, grpc::ClientContext* context) {
  const auto left = std::min<steady_clock::duration>(deadline - steady_clock::now(), std::chrono::hours(24 * 365));
  if (left <= steady_clock::duration::zero()) {
    return absl::DeadlineExceededError("the deadline had passed before the call was begun");
  }
  context->set_deadline(std::chrono::system_clock::now() +
                        std::chrono::duration_cast<std::chrono::system_clock::duration>(left));
  return absl::OkStatus();
}

// Codes are equal by number. The node's sentence is kept, and its address said where the network is to blame.
absl::Status ToStatus(const grpc::Status& status, const std::string& address) {
  if (status.ok()) return absl::OkStatus();
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  if (code != absl::StatusCode::kUnavailable) return absl::Status(code, status.error_message());
  return absl::UnavailableError(fmt::format("cache node {}: {}", address, status.error_message()));
}

BlockOrigin OriginOf(v1::LocatedChunk::Source source) {
  switch (source) {
    case v1::LocatedChunk::SOURCE_HELD:
      return BlockOrigin::kHeld;
    case v1::LocatedChunk::SOURCE_COMPILED:
      return BlockOrigin::kCompiled;
    default:
      return BlockOrigin::kAbsent;
  }
}

}  // namespace

// Ends leases behind their owners' backs: one call at a time, with all that came together meanwhile. Keeps itself alive
// while a call is out.
class GrpcBlockClient::Releaser : public std::enable_shared_from_this<Releaser> {
 public:
  Releaser(std::shared_ptr<v1::CacheService::Stub> stub, std::chrono::milliseconds budget)
      : stub_(std::move(stub)), budget_(budget) {}

  void Add(uint64_t lease_id) EPIC_EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      if (pending_.size() < kPendingReleasesMax) pending_.push_back(lease_id);
      if (is_calling_) return;
      is_calling_ = true;
    }
    CallWithPending();
  }

 private:
  struct Call {
    grpc::ClientContext context;
    v1::ReleaseRequest request;
    v1::ReleaseResponse response;
  };

  // REQUIRES: is_calling_ was set by the caller.
  void CallWithPending() EPIC_EXCLUDES(mutex_) {
    auto call = std::make_shared<Call>();
    {
      MutexLock lock(mutex_);
      if (pending_.empty()) {
        is_calling_ = false;
        return;
      }
      for (const uint64_t lease_id : pending_) call->request.add_lease_ids(lease_id);
      pending_.clear();
    }
    call->context.set_deadline(std::chrono::system_clock::now() + budget_);
    stub_->async()->Release(&call->context, &call->request, &call->response,
                            [self = shared_from_this(), call](const grpc::Status&) { self->CallWithPending(); });
  }

  const std::shared_ptr<v1::CacheService::Stub> stub_;
  const std::chrono::milliseconds budget_;
  Mutex mutex_;
  std::vector<uint64_t> pending_ EPIC_GUARDED_BY(mutex_);
  bool is_calling_ EPIC_GUARDED_BY(mutex_) = false;
};

class GrpcBlockClient::LeasedBlock : public LocatedBlock {
 public:
  LeasedBlock(const v1::LocatedChunk& chunk, std::shared_ptr<Releaser> releaser, std::shared_ptr<LeaseSession> session)
      : lease_id(chunk.lease_id()), releaser_(std::move(releaser)), session_(std::move(session)) {
    origin = OriginOf(chunk.source());
    edition = chunk.edition();
    block_bytes = static_cast<size_t>(chunk.block_bytes());
    compile_us = chunk.compile_us();
  }
  ~LeasedBlock() override {
    if (lease_id != 0) releaser_->Add(lease_id);
  }

  const uint64_t lease_id;

 private:
  const std::shared_ptr<Releaser> releaser_;
  const std::shared_ptr<LeaseSession> session_;  // under which the lease was granted: stays open as long as it
};

GrpcBlockClient::GrpcBlockClient(const std::shared_ptr<grpc::Channel>& channel, std::string address,
                                 const Options& options)
    : address_(std::move(address)),
      options_(options),
      stub_(v1::CacheService::NewStub(channel)),
      releaser_(std::make_shared<Releaser>(stub_, options.release_budget)) {}

GrpcBlockClient::~GrpcBlockClient() = default;

std::shared_ptr<LeaseSession> GrpcBlockClient::Session() {
  MutexLock lock(mutex_);
  // The node went away, with its leases. The next answer says whether there is a new one.
  if (session_ != nullptr && !session_->IsOpen()) session_.reset();
  return session_;
}

void GrpcBlockClient::NoteSocket(const std::string& path, uint64_t instance_id) {
  if (path.empty() || instance_id == 0) return;
  {
    MutexLock lock(mutex_);
    if (tried_instance_id_ == instance_id) return;
    tried_instance_id_ = instance_id;
  }
  absl::StatusOr<std::unique_ptr<LeaseSession>> session = LeaseSession::Connect(path, instance_id);
  // Usually because the node is on another host: its leases last by the clock.
  MutexLock lock(mutex_);
  if (session.ok()) {
    session_ = *std::move(session);
  } else if (absl::IsUnavailable(session.status())) {
    tried_instance_id_ = 0;  // it was too busy to answer: the next answer tries again
  }
}

absl::StatusOr<std::vector<std::unique_ptr<LocatedBlock>>> GrpcBlockClient::Locate(const LocateQuery& query,
                                                                                   Deadline deadline) {
  v1::LocateRequest request;
  request.mutable_context()->set_tenant(query.tenant);
  request.mutable_context()->set_request_id(query.request_id);
  request.mutable_context()->set_traceparent(query.traceparent);
  request.set_model_fingerprint(query.model_fingerprint_hex);
  request.mutable_recipe()->set_id(query.recipe.id);
  request.mutable_recipe()->mutable_prefix_token_ids()->Add(query.recipe.prefix_tokens.begin(),
                                                            query.recipe.prefix_tokens.end());
  for (const LocateQuery::Chunk& chunk : query.chunks) {
    v1::ChunkRef* reference = request.add_chunks();
    reference->set_key(std::string(chunk.key.AsBytes()));
    reference->mutable_token_ids()->Add(chunk.token_ids.begin(), chunk.token_ids.end());
    reference->mutable_context_token_ids()->Add(chunk.context_token_ids.begin(), chunk.context_token_ids.end());
  }
  request.set_compile_missing(query.compile_missing);
  request.set_lease_ms(options_.lease.count());
  std::shared_ptr<LeaseSession> session = Session();
  v1::LocateResponse response;
  const auto call = [&]() -> absl::Status {
    grpc::ClientContext context;
    EPIC_RETURN_IF_ERROR(SetDeadline(deadline, &context));
    request.set_session_id(session == nullptr ? 0 : session->id());
    return ToStatus(stub_->Locate(&context, request, &response), address_);
  };
  absl::Status located = call();
  if (absl::IsFailedPrecondition(located) && session != nullptr && !session->IsOpen()) {
    // The node was started anew between the look at the session and the call.
    session = nullptr;
    located = call();
  }
  EPIC_RETURN_IF_ERROR(located);
  NoteSocket(response.lease_socket(), response.instance_id());
  // Made before the answer is judged, so that a wrong answer's leases end too.
  std::vector<std::unique_ptr<LocatedBlock>> blocks;
  for (const v1::LocatedChunk& chunk : response.chunks()) {
    blocks.push_back(std::make_unique<LeasedBlock>(chunk, releaser_, session));
  }
  if (blocks.size() != query.chunks.size()) {
    return absl::InternalError(fmt::format("cache node {} answered {} chunks, {} were asked for", address_,
                                           blocks.size(), query.chunks.size()));
  }
  return blocks;
}

absl::Status GrpcBlockClient::Read(const LocatedBlock& block, const BlockRange& range, std::span<std::byte> out,
                                   Deadline deadline) {
  const auto* leased = dynamic_cast<const LeasedBlock*>(&block);
  if (leased == nullptr) return absl::InvalidArgumentError("the block was located by another source");
  if (leased->lease_id == 0) return absl::NotFoundError("no lease: the chunk was absent when it was located");
  constexpr size_t kMost = std::numeric_limits<int64_t>::max();
  if (range.offset > kMost || range.length > kMost) {
    return absl::OutOfRangeError(
        fmt::format("{} bytes at offset {} of a block of {} bytes", range.length, range.offset, block.block_bytes));
  }
  const auto wrong_buffer = [&] {
    return absl::OutOfRangeError(
        fmt::format("a buffer of {} bytes is not as long as the range of block {:016x}", out.size(), block.edition));
  };
  if (range.length != 0 && range.length != out.size()) return wrong_buffer();
  grpc::ClientContext context;
  EPIC_RETURN_IF_ERROR(SetDeadline(deadline, &context));
  v1::ReadBlockRequest request;
  request.set_lease_id(leased->lease_id);
  request.set_edition(leased->edition);
  request.set_first_layer(range.first_layer);
  request.set_layer_count(range.layer_count);
  request.set_offset(static_cast<int64_t>(range.offset));
  request.set_length(static_cast<int64_t>(range.length));
  const std::unique_ptr<grpc::ClientReader<v1::ReadBlockResponse>> reader = stub_->ReadBlock(&context, request);
  v1::ReadBlockResponse piece;
  size_t filled = 0;
  int64_t next_offset = -1;
  absl::Status fault;
  while (fault.ok() && reader->Read(&piece)) {
    if (next_offset >= 0 && piece.offset() != next_offset) {
      fault = absl::InternalError(
          fmt::format("cache node {} sent a piece at offset {}, expected {}", address_, piece.offset(), next_offset));
    } else if (piece.data().size() > out.size() - filled) {
      fault = wrong_buffer();
    } else {
      std::memcpy(out.data() + filled, piece.data().data(), piece.data().size());
      filled += piece.data().size();
      next_offset = piece.offset() + static_cast<int64_t>(piece.data().size());
    }
  }
  if (!fault.ok()) context.TryCancel();
  const grpc::Status status = reader->Finish();
  EPIC_RETURN_IF_ERROR(fault);
  EPIC_RETURN_IF_ERROR(ToStatus(status, address_));
  return filled == out.size() ? absl::OkStatus() : wrong_buffer();
}

}  // namespace epic
