#include "inference_worker/chunk_memory.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/kv_encoding.h"
#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {
namespace {

// Members are destroyed last first: the lease ends before the cache that it is of may go.
struct CachedChunk {
  std::shared_ptr<BlockStore> cache;
  BlockStore::Lease lease;
};

bool IsAsExpected(const KvBlockInfo& seen, const KvBlockInfo& expected) {
  return seen.shape.dtype == expected.shape.dtype && CheckSameChunk(seen, expected).ok();
}

ChunkKvPtr FromLease(const std::shared_ptr<BlockStore>& cache, BlockStore::Lease lease) {
  auto chunk = std::make_shared<CachedChunk>(CachedChunk{cache, std::move(lease)});
  const KvBlockView& view = chunk->lease.view();
  return std::make_shared<ChunkKv>(view, chunk);
}

}  // namespace

// One block on the heap; gives its bytes back to the budget when the last user is gone.
struct ChunkMemory::Buffer::Heap {
  Heap(std::byte* block, size_t bytes, size_t charged_bytes, std::shared_ptr<std::atomic<size_t>> budget_used)
      : data(block), size(bytes), charged(charged_bytes), used(std::move(budget_used)) {}
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;
  ~Heap() {
    std::free(data);
    used->fetch_sub(charged);
  }

  std::byte* const data;
  const size_t size;
  const size_t charged;
  const std::shared_ptr<std::atomic<size_t>> used;
};

ChunkMemory::ChunkMemory(std::shared_ptr<BlockStore> cache, size_t heap_bytes_max)
    : cache_(std::move(cache)),
      heap_bytes_max_(heap_bytes_max),
      heap_bytes_(std::make_shared<std::atomic<size_t>>(0)) {}

std::span<std::byte> ChunkMemory::Buffer::bytes() const {
  if (reservation_.has_value()) return reservation_->bytes();
  return {heap_->data, heap_->size};
}

absl::StatusOr<ChunkMemory::Buffer> ChunkMemory::Reserve(size_t bytes) {
  Buffer buffer;
  absl::StatusOr<BlockStore::Reservation> reservation = cache_->Reserve(bytes);
  if (reservation.ok()) {
    buffer.reservation_ = *std::move(reservation);
    return buffer;
  }
  const size_t charged = (bytes + kBlockAlignmentBytes - 1) / kBlockAlignmentBytes * kBlockAlignmentBytes;
  if (heap_bytes_->fetch_add(charged) + charged > heap_bytes_max_) {
    heap_bytes_->fetch_sub(charged);
    return absl::ResourceExhaustedError(fmt::format(
        "no room for a chunk of {} bytes: the worker's cache says \"{}\", and chunks outside it may take {} "
        "bytes; retry later, or give the worker a larger cache",
        bytes, std::string(reservation.status().message()), heap_bytes_max_));
  }
  auto* data = static_cast<std::byte*>(std::aligned_alloc(kBlockAlignmentBytes, charged));
  if (data == nullptr) {
    heap_bytes_->fetch_sub(charged);
    return absl::ResourceExhaustedError(fmt::format("the system has no {} bytes of memory for a chunk", bytes));
  }
  std::memset(data, 0, charged);
  buffer.heap_ = std::make_shared<Buffer::Heap>(data, bytes, charged, heap_bytes_);
  return buffer;
}

absl::StatusOr<ChunkKvPtr> ChunkMemory::Finish(Buffer buffer, const KvBlockInfo& expected,
                                               std::optional<uint64_t> edition) {
  EPIC_ASSIGN_OR_RETURN(KvBlockView view, KvBlockView::Parse(buffer.bytes()));
  // Before it is published: a block under a wrong name would answer other requests.
  EPIC_RETURN_IF_ERROR(CheckSameChunk(view.info(), expected));
  if (edition.has_value() && view.edition() != *edition) {
    return absl::DataLossError(
        fmt::format("the block is edition {:016x}; {:016x} was leased", view.edition(), *edition));
  }
  if (view.info().shape.dtype != expected.shape.dtype) return Decode(view, expected);
  if (buffer.reservation_.has_value()) {
    EPIC_ASSIGN_OR_RETURN(BlockStore::Lease lease, cache_->Publish(*std::move(buffer.reservation_)));
    return FromLease(cache_, std::move(lease));
  }
  EPIC_RETURN_IF_ERROR(view.VerifyPayload());
  auto chunk = std::make_shared<const ChunkKv>(std::move(view), std::move(buffer.heap_));
  MutexLock lock(mutex_);
  absl::erase_if(on_heap_, [](const auto& entry) { return entry.second.expired(); });  // few: the heap is the exception
  on_heap_[expected.key] = chunk;
  return chunk;
}

absl::StatusOr<ChunkKvPtr> ChunkMemory::Decode(const KvBlockView& block, const KvBlockInfo& expected) {
  EPIC_RETURN_IF_ERROR(CheckSameChunk(block.info(), expected));
  EPIC_ASSIGN_OR_RETURN(Buffer buffer, Reserve(KvBlockBytes(expected)));
  EPIC_RETURN_IF_ERROR(EncodeKvBlock(block, expected.shape.dtype, buffer.bytes()));
  return Finish(std::move(buffer), expected, std::nullopt);
}

ChunkKvPtr ChunkMemory::Find(const KvBlockInfo& expected) {
  absl::StatusOr<BlockStore::Lease> lease = cache_->Acquire(expected.key, expected.token_ids);
  if (!lease.ok()) return FindOnHeap(expected);
  if (!IsAsExpected(lease->view().info(), expected)) {
    lease->Reset();
    cache_->Drop(expected.key);
    return nullptr;
  }
  return FromLease(cache_, *std::move(lease));
}

ChunkKvPtr ChunkMemory::FindOnHeap(const KvBlockInfo& expected) {
  MutexLock lock(mutex_);
  const auto found = on_heap_.find(expected.key);
  if (found == on_heap_.end()) return nullptr;
  ChunkKvPtr chunk = found->second.lock();
  return chunk != nullptr && IsAsExpected(chunk->view().info(), expected) ? chunk : nullptr;
}

absl::Status CheckSameChunk(const KvBlockInfo& seen, const KvBlockInfo& expected) {
  if (seen.key != expected.key) {
    return absl::DataLossError(
        fmt::format("the block is of chunk {}; {} was asked for", seen.key.Hex(), expected.key.Hex()));
  }
  if (seen.model_fingerprint_hex != expected.model_fingerprint_hex) {
    return absl::DataLossError(fmt::format("the block is of model {}; this worker runs {}", seen.model_fingerprint_hex,
                                           expected.model_fingerprint_hex));
  }
  if (seen.recipe_id != expected.recipe_id || seen.first_position != expected.first_position) {
    return absl::DataLossError(
        fmt::format("the block is of recipe \"{}\" from position {}; \"{}\" from position {} was asked for",
                    seen.recipe_id, seen.first_position, expected.recipe_id, expected.first_position));
  }
  KvShape shape = seen.shape;
  shape.dtype = expected.shape.dtype;
  if (shape != expected.shape) {
    return absl::DataLossError(fmt::format(
        "the block has {} layers, {} KV heads, head size {}; the model has {}, {}, {}", shape.layers, shape.kv_heads,
        shape.head_dim, expected.shape.layers, expected.shape.kv_heads, expected.shape.head_dim));
  }
  if (seen.token_ids != expected.token_ids) {
    return absl::DataLossError(
        fmt::format("the block holds other token ids ({} of them) than the chunk that was asked for ({})",
                    seen.token_ids.size(), expected.token_ids.size()));
  }
  return absl::OkStatus();
}

}  // namespace epic
