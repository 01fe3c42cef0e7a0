#include "storage/block_store.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "core/eviction.h"
#include "core/offset_allocator.h"
#include "core/status_macros.h"
#include "core/sync.h"
#include "fmt/format.h"
#include "storage/host_arena.h"
#include "storage/intrusive_list.h"

namespace epic {
namespace {

constexpr size_t kCapacityBytesMin = size_t{1} << 20;
constexpr size_t kCapacityBytesMax = size_t{1} << 46;  // half of what a process can address

}  // namespace

// One range of the arena in use.
struct BlockStore::Lease::Entry : IntrusiveListNode<BlockStore::Lease::Entry> {
  enum class State { kReserved, kPublished, kDropped };

  State state = State::kReserved;
  size_t offset = 0;
  size_t bytes = 0;  // as the allocator rounded them
  size_t leases = 0;
  std::optional<KvBlockView> view;  // set when published, constant from then on

  const ChunkKey& key() const { return view->info().key; }
  bool evictable() const { return state == State::kPublished && leases == 0; }
};

struct BlockStore::Impl {
  using Entry = Lease::Entry;

  Impl(const BlockStoreOptions& store_options, std::unique_ptr<HostArena> host_arena)
      : options(store_options),
        arena(std::move(host_arena)),
        allocator(store_options.capacity_bytes, kBlockAlignmentBytes) {}

  // Room for `rounded` bytes, entered as reserved. Adds what was evicted for it to `evicted`, on failure too.
  absl::StatusOr<Entry*> ReserveRange(size_t rounded, std::vector<ChunkKey>* evicted) EPIC_REQUIRES(mutex);
  absl::Status NoRoom(size_t rounded) const EPIC_REQUIRES(mutex);
  void Evict(Entry& entry, std::vector<ChunkKey>* evicted) EPIC_REQUIRES(mutex);
  void EvictWindow(size_t rounded, std::vector<ChunkKey>* evicted) EPIC_REQUIRES(mutex);
  // Gives the range back. The entry is gone afterwards.
  void FreeEntry(Entry& entry) EPIC_REQUIRES(mutex);
  void AddLease(Entry& entry) EPIC_REQUIRES(mutex);
  void EndLease(Entry& entry) EPIC_EXCLUDES(mutex);
  // Takes a published entry out of sight. REQUIRES: published.
  void Hide(Entry& entry) EPIC_REQUIRES(mutex);
  void NotifyRemoved(const std::vector<ChunkKey>& keys) const {
    if (!observer) return;
    for (const ChunkKey& key : keys) observer(key);
  }

  const BlockStoreOptions options;
  const std::unique_ptr<HostArena> arena;
  std::function<void(const ChunkKey&)> observer;
  std::atomic<uint64_t> hits_total{0};
  std::atomic<uint64_t> misses_total{0};

  mutable Mutex mutex;  // protects which range of the arena is whose; never held while bytes are read or written
  OffsetAllocator allocator EPIC_GUARDED_BY(mutex);
  std::map<size_t, std::unique_ptr<Entry>> entries EPIC_GUARDED_BY(mutex);  // by offset
  absl::flat_hash_map<ChunkKey, Entry*> published EPIC_GUARDED_BY(mutex);
  IntrusiveList<Entry> least_recent_first EPIC_GUARDED_BY(mutex);  // the evictable entries
  size_t evictable_bytes EPIC_GUARDED_BY(mutex) = 0;
  size_t touched_bytes EPIC_GUARDED_BY(mutex) = 0;  // nothing behind this offset was ever handed out
  size_t leases EPIC_GUARDED_BY(mutex) = 0;
  uint64_t published_total EPIC_GUARDED_BY(mutex) = 0;
  uint64_t evictions_total EPIC_GUARDED_BY(mutex) = 0;
};

absl::StatusOr<BlockStore::Lease::Entry*> BlockStore::Impl::ReserveRange(size_t rounded,
                                                                         std::vector<ChunkKey>* evicted) {
  std::optional<size_t> offset = allocator.Allocate(rounded);
  if (!offset) {
    const auto free_bytes = [this]() EPIC_NO_THREAD_SAFETY_ANALYSIS { return allocator.Stats().free_bytes(); };
    if (free_bytes() + evictable_bytes < rounded) return NoRoom(rounded);
    while (!offset && free_bytes() < rounded) {
      Evict(*least_recent_first.front(), evicted);
      offset = allocator.Allocate(rounded);
    }
  }
  if (!offset) {
    EvictWindow(rounded, evicted);
    offset = allocator.Allocate(rounded);
  }
  if (!offset) return NoRoom(rounded);
  auto entry = std::make_unique<Entry>();
  entry->offset = *offset;
  entry->bytes = rounded;
  return entries.emplace(*offset, std::move(entry)).first->second.get();
}

absl::Status BlockStore::Impl::NoRoom(size_t rounded) const {
  const OffsetAllocatorStats stats = allocator.Stats();
  return absl::ResourceExhaustedError(
      fmt::format("no room for a block of {} bytes in the host tier of {} bytes: {} bytes are under lease or being "
                  "written, and what "
                  "is left does not lie together; try again when requests have ended, or enlarge the tier",
                  rounded, stats.capacity_bytes, stats.used_bytes - evictable_bytes));
}

void BlockStore::Impl::EvictWindow(size_t rounded, std::vector<ChunkKey>* evicted) {
  std::vector<UsedRange> ranges;
  std::vector<Entry*> range_entries;
  ranges.reserve(entries.size());
  range_entries.reserve(entries.size());
  for (const auto& [offset, entry] : entries) {
    ranges.push_back({.offset = offset, .bytes = entry->bytes, .evictable = entry->evictable()});
    range_entries.push_back(entry.get());
  }
  const std::optional<EvictionWindow> window = FindEvictionWindow(ranges, allocator.Stats().capacity_bytes, rounded);
  if (!window) return;
  for (size_t i = window->begin; i < window->end; ++i) Evict(*range_entries[i], evicted);
}

void BlockStore::Impl::Evict(Entry& entry, std::vector<ChunkKey>* evicted) {
  evicted->push_back(entry.key());
  ++evictions_total;
  Hide(entry);
}

void BlockStore::Impl::Hide(Entry& entry) {
  published.erase(entry.key());
  if (entry.evictable()) {
    least_recent_first.Remove(entry);
    evictable_bytes -= entry.bytes;
    FreeEntry(entry);
  } else {
    entry.state = Entry::State::kDropped;
  }
}

void BlockStore::Impl::FreeEntry(Entry& entry) {
  const size_t offset = entry.offset;
  allocator.Free(offset);
  entries.erase(offset);
}

void BlockStore::Impl::AddLease(Entry& entry) {
  if (entry.evictable()) {
    least_recent_first.Remove(entry);
    evictable_bytes -= entry.bytes;
  }
  ++entry.leases;
  ++leases;
}

void BlockStore::Impl::EndLease(Entry& entry) {
  const MutexLock lock(mutex);
  --leases;
  if (--entry.leases > 0) return;
  if (entry.state == Entry::State::kDropped) {
    FreeEntry(entry);
  } else {
    least_recent_first.PushBack(entry);
    evictable_bytes += entry.bytes;
  }
}

absl::Status BlockStoreOptions::Validate() const {
  if (capacity_bytes >= kCapacityBytesMin && capacity_bytes <= kCapacityBytesMax) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("the host tier's capacity is {} bytes, expected {} to {}",
                                                capacity_bytes, kCapacityBytesMin, kCapacityBytesMax));
}

BlockStore::Lease::Lease(Lease&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)), entry_(std::exchange(other.entry_, nullptr)) {}

BlockStore::Lease& BlockStore::Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    Reset();
    store_ = std::exchange(other.store_, nullptr);
    entry_ = std::exchange(other.entry_, nullptr);
  }
  return *this;
}

BlockStore::Lease::~Lease() { Reset(); }

const KvBlockView& BlockStore::Lease::view() const { return *entry_->view; }

BlockStore::Lease BlockStore::Lease::Share() const {
  Lease lease;
  if (entry_ == nullptr) return lease;
  const MutexLock lock(store_->impl_->mutex);
  store_->impl_->AddLease(*entry_);
  lease.store_ = store_;
  lease.entry_ = entry_;
  return lease;
}

void BlockStore::Lease::Reset() {
  if (entry_ == nullptr) return;
  store_->impl_->EndLease(*std::exchange(entry_, nullptr));
  store_ = nullptr;
}

BlockStore::Reservation::Reservation(Reservation&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)), offset_(other.offset_), bytes_(std::exchange(other.bytes_, {})) {}

BlockStore::Reservation& BlockStore::Reservation::operator=(Reservation&& other) noexcept {
  if (this != &other) {
    // The other takes what this one held and frees it when it ends.
    std::swap(store_, other.store_);
    std::swap(offset_, other.offset_);
    std::swap(bytes_, other.bytes_);
  }
  return *this;
}

BlockStore::Reservation::~Reservation() {
  if (store_ == nullptr) return;
  const MutexLock lock(store_->impl_->mutex);
  store_->impl_->FreeEntry(*store_->impl_->entries.at(offset_));
}

absl::StatusOr<std::unique_ptr<BlockStore>> BlockStore::Create(const BlockStoreOptions& options) {
  EPIC_RETURN_IF_ERROR(options.Validate());
  EPIC_ASSIGN_OR_RETURN(std::unique_ptr<HostArena> arena, HostArena::Create(options.capacity_bytes));
  return std::unique_ptr<BlockStore>(new BlockStore(std::make_unique<Impl>(options, std::move(arena))));
}

BlockStore::BlockStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

BlockStore::~BlockStore() {
  const MutexLock lock(impl_->mutex);
  const size_t reserved_or_leased = static_cast<size_t>(std::count_if(
      impl_->entries.begin(), impl_->entries.end(), [](const auto& entry) { return !entry.second->evictable(); }));
  if (reserved_or_leased == 0) return;
  // To unmap memory that somebody reads or writes would fail later and elsewhere.
  std::fprintf(stderr, "BlockStore destroyed while %zu blocks are leased or being written\n", reserved_or_leased);
  std::abort();
}

absl::StatusOr<BlockStore::Reservation> BlockStore::Reserve(size_t bytes) {
  if (bytes == 0) return absl::InvalidArgumentError("a block of 0 bytes cannot be reserved");
  if (bytes > impl_->options.capacity_bytes) {
    return absl::ResourceExhaustedError(
        fmt::format("a block of {} bytes is larger than the host tier of {} bytes; enlarge "
                    "the tier",
                    bytes, impl_->options.capacity_bytes));
  }
  std::vector<ChunkKey> evicted;
  size_t dirty_bytes = 0;
  size_t rounded = 0;
  Reservation reservation;
  const absl::Status status = [&]() -> absl::Status {
    const MutexLock lock(impl_->mutex);
    rounded = impl_->allocator.RoundedBytes(bytes);
    EPIC_ASSIGN_OR_RETURN(const Impl::Entry* entry, impl_->ReserveRange(rounded, &evicted));
    dirty_bytes = std::min(rounded, impl_->touched_bytes - std::min(impl_->touched_bytes, entry->offset));
    impl_->touched_bytes = std::max(impl_->touched_bytes, entry->offset + rounded);
    reservation.store_ = this;
    reservation.offset_ = entry->offset;
    reservation.bytes_ = impl_->arena->bytes().subspan(entry->offset, bytes);
    return absl::OkStatus();
  }();
  impl_->NotifyRemoved(evicted);
  EPIC_RETURN_IF_ERROR(status);
  if (impl_->options.protect_published) {
    EPIC_RETURN_IF_ERROR(impl_->arena->Protect(reservation.offset_, rounded, HostArena::Access::kReadWrite));
  }
  std::memset(impl_->arena->bytes().data() + reservation.offset_, 0, dirty_bytes);
  return reservation;
}

absl::StatusOr<BlockStore::Lease> BlockStore::Publish(Reservation reservation) {
  if (reservation.store_ != this) {
    return absl::InvalidArgumentError("Publish needs a reservation of the same store that was not published before");
  }
  EPIC_ASSIGN_OR_RETURN(KvBlockView view, KvBlockView::Parse(reservation.bytes()));
  EPIC_RETURN_IF_ERROR(view.VerifyPayload());
  if (impl_->options.protect_published) {
    const size_t whole_pages =
        (reservation.bytes().size() + kBlockAlignmentBytes - 1) / kBlockAlignmentBytes * kBlockAlignmentBytes;
    EPIC_RETURN_IF_ERROR(impl_->arena->Protect(reservation.offset_, whole_pages, HostArena::Access::kRead));
  }
  Lease lease;
  lease.store_ = this;
  const MutexLock lock(impl_->mutex);
  Impl::Entry& entry = *impl_->entries.at(reservation.offset_);
  const auto [position, inserted] = impl_->published.try_emplace(view.info().key, &entry);
  if (inserted) {
    entry.view = std::move(view);
    entry.state = Impl::Entry::State::kPublished;
    entry.leases = 1;
    ++impl_->leases;
    ++impl_->published_total;
    reservation.store_ = nullptr;
  } else {
    impl_->AddLease(*position->second);
  }
  lease.entry_ = position->second;
  return lease;
}

absl::StatusOr<BlockStore::Lease> BlockStore::Acquire(const ChunkKey& key, std::span<const int32_t> expected_tokens) {
  Lease lease;
  {
    const MutexLock lock(impl_->mutex);
    const auto found = impl_->published.find(key);
    if (found != impl_->published.end()) {
      impl_->AddLease(*found->second);
      lease.store_ = this;
      lease.entry_ = found->second;
    }
  }
  if (!lease) {
    impl_->misses_total.fetch_add(1, std::memory_order_relaxed);
    return absl::NotFoundError(fmt::format("the host tier does not hold chunk {}", key.Hex()));
  }
  const std::vector<int32_t>& held_tokens = lease.view().info().token_ids;
  if (!expected_tokens.empty() &&
      !std::equal(expected_tokens.begin(), expected_tokens.end(), held_tokens.begin(), held_tokens.end())) {
    impl_->misses_total.fetch_add(1, std::memory_order_relaxed);
    bool dropped = false;
    {
      const MutexLock lock(impl_->mutex);
      // Somebody else may have dropped it meanwhile, and a good block may have come in its place.
      dropped = lease.entry_->state == Impl::Entry::State::kPublished;
      if (dropped) impl_->Hide(*lease.entry_);
    }
    if (dropped) impl_->NotifyRemoved({key});
    return absl::DataLossError(
        fmt::format("chunk {} holds {} tokens that are not the {} tokens asked for; it was dropped", key.Hex(),
                    held_tokens.size(), expected_tokens.size()));
  }
  impl_->hits_total.fetch_add(1, std::memory_order_relaxed);
  return lease;
}

bool BlockStore::Contains(const ChunkKey& key) const {
  const MutexLock lock(impl_->mutex);
  return impl_->published.contains(key);
}

void BlockStore::Drop(const ChunkKey& key) {
  {
    const MutexLock lock(impl_->mutex);
    const auto found = impl_->published.find(key);
    if (found == impl_->published.end()) return;
    impl_->Hide(*found->second);
  }
  impl_->NotifyRemoved({key});
}

void BlockStore::SetRemovalObserver(std::function<void(const ChunkKey&)> observer) {
  impl_->observer = std::move(observer);
}

BlockStoreStats BlockStore::Stats() const {
  BlockStoreStats stats;
  const MutexLock lock(impl_->mutex);
  stats.capacity_bytes = impl_->options.capacity_bytes;
  stats.used_bytes = impl_->allocator.Stats().used_bytes;
  stats.blocks = impl_->published.size();
  stats.leases = impl_->leases;
  stats.hits_total = impl_->hits_total.load(std::memory_order_relaxed);
  stats.misses_total = impl_->misses_total.load(std::memory_order_relaxed);
  stats.published_total = impl_->published_total;
  stats.evictions_total = impl_->evictions_total;
  return stats;
}

int BlockStore::memfd() const { return impl_->arena->memfd(); }

std::shared_ptr<const KvBlockView> SharedView(BlockStore::Lease lease) {
  auto held = std::make_shared<BlockStore::Lease>(std::move(lease));
  return {held, &held->view()};
}

}  // namespace epic
