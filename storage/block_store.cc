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

namespace epic {
namespace {

constexpr size_t kCapacityBytesMin = size_t{1} << 20;
constexpr size_t kCapacityBytesMax = size_t{1} << 46;  // half of what a process can address

}  // namespace

// One range of the arena in use.
struct BlockStore::Lease::Entry {
  enum class State : uint8_t { kReserved, kPublished, kDropped };

  ChunkKey key;  // once published
  size_t offset = 0;
  size_t block_bytes = 0;
  size_t range_bytes = 0;  // as the allocator rounded them
  size_t leases = 0;
  double recompile_cost_us = 0;
  State state = State::kReserved;
  bool pinned = false;

  bool evictable() const { return state == State::kPublished && leases == 0 && !pinned; }
};

struct BlockStore::Impl {
  using Entry = Lease::Entry;

  Impl(const BlockStoreOptions& store_options, std::unique_ptr<HostArena> host_arena,
       std::unique_ptr<EvictionPolicy> eviction_policy)
      : options(store_options),
        arena(std::move(host_arena)),
        policy(std::move(eviction_policy)),
        allocator(store_options.capacity_bytes, kBlockAlignmentBytes) {}

  std::span<std::byte> BytesOf(const Entry& entry) const {
    return arena->bytes().subspan(entry.offset, entry.block_bytes);
  }
  // Room for `rounded` bytes, entered as reserved. Adds what was evicted for it to `evicted`, on failure too.
  absl::StatusOr<Entry*> ReserveRange(size_t rounded, std::vector<ChunkKey>* evicted) EPIC_REQUIRES(mutex);
  absl::Status NoRoom(size_t rounded) const EPIC_REQUIRES(mutex);
  // What the policy would evict next; null where nothing may be evicted.
  Entry* NextVictim() EPIC_REQUIRES(mutex);
  void Evict(Entry& entry, std::vector<ChunkKey>* evicted) EPIC_REQUIRES(mutex);
  void EvictWindow(size_t rounded, std::vector<ChunkKey>* evicted) EPIC_REQUIRES(mutex);
  // Gives the range back. The entry is gone afterwards.
  void FreeEntry(Entry& entry) EPIC_REQUIRES(mutex);
  void AddLease(Entry& entry) EPIC_REQUIRES(mutex);
  void EndLease(Entry& entry) EPIC_EXCLUDES(mutex);
  // Takes a published entry out of sight. The policy has been told. REQUIRES: published.
  void Hide(Entry& entry) EPIC_REQUIRES(mutex);
  void SetPinned(Entry& entry, bool pinned) EPIC_REQUIRES(mutex);
  // Drops the entry unless somebody else has meanwhile.
  void DropDamaged(Entry& entry) EPIC_EXCLUDES(mutex);
  void NotifyRemoved(const std::vector<ChunkKey>& keys) const {
    if (!observer) return;
    for (const ChunkKey& key : keys) observer(key);
  }

  const BlockStoreOptions options;
  const std::unique_ptr<HostArena> arena;
  std::function<void(const ChunkKey&)> observer;
  std::atomic<uint64_t> hits_total{0};

  mutable Mutex mutex;  // protects which range of the arena is whose; never held while bytes are read or written
  const std::unique_ptr<EvictionPolicy> policy EPIC_GUARDED_BY(mutex);
  OffsetAllocator allocator EPIC_GUARDED_BY(mutex);
  std::map<size_t, std::unique_ptr<Entry>> entries EPIC_GUARDED_BY(mutex);  // by offset
  absl::flat_hash_map<ChunkKey, Entry*> published EPIC_GUARDED_BY(mutex);
  absl::flat_hash_map<ChunkKey, size_t> pins EPIC_GUARDED_BY(mutex);  // also of keys that are not held
  size_t evictable_bytes EPIC_GUARDED_BY(mutex) = 0;
  size_t touched_bytes EPIC_GUARDED_BY(mutex) = 0;  // nothing behind this offset was ever handed out
  BlockStoreStats stats EPIC_GUARDED_BY(mutex);     // but for what the allocator knows
};

absl::StatusOr<BlockStore::Lease::Entry*> BlockStore::Impl::ReserveRange(size_t rounded,
                                                                         std::vector<ChunkKey>* evicted) {
  std::optional<size_t> offset = allocator.Allocate(rounded);
  if (!offset) {
    const auto free_bytes = [this]() EPIC_NO_THREAD_SAFETY_ANALYSIS { return allocator.Stats().free_bytes(); };
    if (free_bytes() + evictable_bytes < rounded) return NoRoom(rounded);
    while (!offset && free_bytes() < rounded) {
      Entry* const victim = NextVictim();
      if (victim == nullptr) break;
      policy->OnEvict(victim->key);
      Evict(*victim, evicted);
      ++stats.evictions_for_room_total;
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
  entry->range_bytes = rounded;
  return entries.emplace(*offset, std::move(entry)).first->second.get();
}

absl::Status BlockStore::Impl::NoRoom(size_t rounded) const {
  const OffsetAllocatorStats used = allocator.Stats();
  return absl::ResourceExhaustedError(
      fmt::format("no room for a block of {} bytes in the host tier of {} bytes: {} bytes are under lease, pinned or "
                  "being written, and what is left does not lie together; try again when requests have ended, unpin "
                  "documents, or enlarge the tier",
                  rounded, used.capacity_bytes, used.used_bytes - evictable_bytes));
}

BlockStore::Impl::Entry* BlockStore::Impl::NextVictim() {
  Entry* victim = nullptr;
  policy->VisitVictims([&](const ChunkKey& key) EPIC_NO_THREAD_SAFETY_ANALYSIS {
    const auto found = published.find(key);
    if (found == published.end() || !found->second->evictable()) return false;
    victim = found->second;
    return true;
  });
  return victim;
}

void BlockStore::Impl::EvictWindow(size_t rounded, std::vector<ChunkKey>* evicted) {
  std::vector<UsedRange> ranges;
  std::vector<Entry*> range_entries;
  ranges.reserve(entries.size());
  range_entries.reserve(entries.size());
  for (const auto& [offset, entry] : entries) {
    ranges.push_back({.offset = offset, .bytes = entry->range_bytes, .evictable = entry->evictable()});
    range_entries.push_back(entry.get());
  }
  const std::optional<EvictionWindow> window = FindEvictionWindow(ranges, allocator.Stats().capacity_bytes, rounded);
  if (!window) return;
  for (size_t i = window->begin; i < window->end; ++i) {
    policy->OnEvict(range_entries[i]->key);
    Evict(*range_entries[i], evicted);
    ++stats.evictions_for_run_total;
  }
}

void BlockStore::Impl::Evict(Entry& entry, std::vector<ChunkKey>* evicted) {
  evicted->push_back(entry.key);
  ++stats.evictions_total;
  Hide(entry);
}

void BlockStore::Impl::Hide(Entry& entry) {
  published.erase(entry.key);
  if (entry.pinned) SetPinned(entry, false);
  if (entry.evictable()) {
    evictable_bytes -= entry.range_bytes;
    FreeEntry(entry);
  } else {
    entry.state = Entry::State::kDropped;
  }
}

void BlockStore::Impl::SetPinned(Entry& entry, bool pinned) {
  if (entry.pinned == pinned) return;
  if (entry.evictable()) evictable_bytes -= entry.range_bytes;
  entry.pinned = pinned;
  if (entry.evictable()) evictable_bytes += entry.range_bytes;
  stats.pinned_blocks = pinned ? stats.pinned_blocks + 1 : stats.pinned_blocks - 1;
  stats.pinned_bytes = pinned ? stats.pinned_bytes + entry.range_bytes : stats.pinned_bytes - entry.range_bytes;
}

void BlockStore::Impl::FreeEntry(Entry& entry) {
  const size_t offset = entry.offset;
  allocator.Free(offset);
  entries.erase(offset);
}

void BlockStore::Impl::AddLease(Entry& entry) {
  if (entry.evictable()) evictable_bytes -= entry.range_bytes;
  if (entry.leases++ == 0) stats.leased_bytes += entry.range_bytes;
  ++stats.leases;
}

void BlockStore::Impl::EndLease(Entry& entry) {
  const MutexLock lock(mutex);
  --stats.leases;
  if (--entry.leases > 0) return;
  stats.leased_bytes -= entry.range_bytes;
  if (entry.state == Entry::State::kDropped) {
    FreeEntry(entry);
  } else if (entry.evictable()) {
    evictable_bytes += entry.range_bytes;
  }
}

void BlockStore::Impl::DropDamaged(Entry& entry) {
  const ChunkKey key = entry.key;
  {
    const MutexLock lock(mutex);
    ++stats.damaged_total;
    // Somebody else may have dropped it meanwhile, and a good block may have come in its place.
    if (entry.state != Entry::State::kPublished) return;
    policy->OnRemove(key);
    Hide(entry);
  }
  NotifyRemoved({key});
}

absl::Status BlockStoreOptions::Validate() const {
  if (capacity_bytes < kCapacityBytesMin || capacity_bytes > kCapacityBytesMax) {
    return absl::InvalidArgumentError(fmt::format("the host tier's capacity is {} bytes, expected {} to {}",
                                                  capacity_bytes, kCapacityBytesMin, kCapacityBytesMax));
  }
  if (arena.reserved_huge_pages && protect_published) {
    return absl::InvalidArgumentError(
        "blocks cannot be protected on reserved huge pages, which are larger than blocks; choose one of the two");
  }
  return MakeEvictionPolicy(eviction_policy, capacity_bytes).status();
}

BlockStore::Lease::Lease(Lease&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)),
      entry_(std::exchange(other.entry_, nullptr)),
      view_(std::move(other.view_)) {}

BlockStore::Lease& BlockStore::Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    Reset();
    store_ = std::exchange(other.store_, nullptr);
    entry_ = std::exchange(other.entry_, nullptr);
    view_ = std::move(other.view_);
  }
  return *this;
}

BlockStore::Lease::~Lease() { Reset(); }

const KvBlockView& BlockStore::Lease::view() const { return *view_; }

double BlockStore::Lease::recompile_cost_us() const { return entry_->recompile_cost_us; }

BlockStore::Lease BlockStore::Lease::Share() const {
  Lease lease;
  if (entry_ == nullptr) return lease;
  const MutexLock lock(store_->impl_->mutex);
  store_->impl_->AddLease(*entry_);
  lease.store_ = store_;
  lease.entry_ = entry_;
  lease.view_ = view_;
  return lease;
}

void BlockStore::Lease::Reset() {
  if (entry_ == nullptr) return;
  view_.reset();
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

std::span<std::byte> BlockStore::Reservation::padded_bytes() const {
  return {bytes_.data(), (bytes_.size() + kBlockAlignmentBytes - 1) / kBlockAlignmentBytes * kBlockAlignmentBytes};
}

BlockStore::Reservation::~Reservation() {
  if (store_ == nullptr) return;
  const MutexLock lock(store_->impl_->mutex);
  store_->impl_->FreeEntry(*store_->impl_->entries.at(offset_));
}

absl::StatusOr<std::unique_ptr<BlockStore>> BlockStore::Create(const BlockStoreOptions& options) {
  EPIC_RETURN_IF_ERROR(options.Validate());
  EPIC_ASSIGN_OR_RETURN(std::unique_ptr<HostArena> arena, HostArena::Create(options.capacity_bytes, options.arena));
  EPIC_ASSIGN_OR_RETURN(std::unique_ptr<EvictionPolicy> policy,
                        MakeEvictionPolicy(options.eviction_policy, options.capacity_bytes));
  return std::unique_ptr<BlockStore>(
      new BlockStore(std::make_unique<Impl>(options, std::move(arena), std::move(policy))));
}

BlockStore::BlockStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

BlockStore::~BlockStore() {
  const MutexLock lock(impl_->mutex);
  const size_t reserved_or_leased =
      static_cast<size_t>(std::count_if(impl_->entries.begin(), impl_->entries.end(), [](const auto& entry) {
        return entry.second->state != Impl::Entry::State::kPublished || entry.second->leases > 0;
      }));
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

absl::StatusOr<BlockStore::Lease> BlockStore::Publish(Reservation reservation, double recompile_cost_us) {
  if (reservation.store_ != this) {
    return absl::InvalidArgumentError("Publish needs a reservation of the same store that was not published before");
  }
  EPIC_ASSIGN_OR_RETURN(KvBlockView view, KvBlockView::Parse(reservation.bytes()));
  EPIC_RETURN_IF_ERROR(view.VerifyPayload());
  if (impl_->options.protect_published) {
    EPIC_RETURN_IF_ERROR(
        impl_->arena->Protect(reservation.offset_, reservation.padded_bytes().size(), HostArena::Access::kRead));
  }
  const ChunkKey key = view.info().key;
  while (true) {
    {
      const MutexLock lock(impl_->mutex);
      Impl::Entry& entry = *impl_->entries.at(reservation.offset_);
      if (impl_->published.try_emplace(key, &entry).second) {
        entry.key = key;
        entry.block_bytes = reservation.bytes().size();
        entry.recompile_cost_us = recompile_cost_us;
        entry.state = Impl::Entry::State::kPublished;
        impl_->evictable_bytes += entry.range_bytes;
        impl_->AddLease(entry);
        impl_->policy->OnInsert({.key = key, .bytes = entry.range_bytes, .cost_us = recompile_cost_us});
        if (impl_->pins.contains(key)) impl_->SetPinned(entry, true);
        ++impl_->stats.published_total;
        reservation.store_ = nullptr;
        Lease lease;
        lease.store_ = this;
        lease.entry_ = &entry;
        lease.view_ = std::make_shared<const KvBlockView>(std::move(view));
        return lease;
      }
    }
    // Somebody was faster. Where that block is gone or bad by now, this one takes its place after all.
    absl::StatusOr<Lease> held = Peek(key);
    if (held.ok() && *held) return held;
  }
}

absl::StatusOr<BlockStore::Lease> BlockStore::LeaseOf(const ChunkKey& key, bool is_request) {
  Lease lease;
  {
    const MutexLock lock(impl_->mutex);
    const auto found = impl_->published.find(key);
    if (found == impl_->published.end()) {
      if (is_request) {
        impl_->policy->OnMiss(key);
        ++impl_->stats.misses_total;
      }
      return lease;
    }
    if (is_request) impl_->policy->OnAccess(key);
    impl_->AddLease(*found->second);
    lease.store_ = this;
    lease.entry_ = found->second;
  }
  // Outside the lock: under the lease nobody changes the bytes or the entry's key and place.
  absl::StatusOr<KvBlockView> view = KvBlockView::Parse(impl_->BytesOf(*lease.entry_));
  if (!view.ok()) {
    impl_->DropDamaged(*lease.entry_);
    return view.status();
  }
  lease.view_ = std::make_shared<const KvBlockView>(*std::move(view));
  return lease;
}

absl::StatusOr<BlockStore::Lease> BlockStore::Peek(const ChunkKey& key) { return LeaseOf(key, false); }

absl::StatusOr<BlockStore::Lease> BlockStore::Acquire(const ChunkKey& key, std::span<const int32_t> expected_tokens) {
  EPIC_ASSIGN_OR_RETURN(Lease lease, LeaseOf(key, true));
  if (!lease) return absl::NotFoundError(fmt::format("the host tier does not hold chunk {}", key.Hex()));
  const std::vector<int32_t>& held_tokens = lease.view().info().token_ids;
  const bool is_same = expected_tokens.empty() || std::equal(expected_tokens.begin(), expected_tokens.end(),
                                                             held_tokens.begin(), held_tokens.end());
  if (!is_same) {
    impl_->DropDamaged(*lease.entry_);
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

std::vector<ChunkKey> BlockStore::Keys() const {
  std::vector<ChunkKey> keys;
  const MutexLock lock(impl_->mutex);
  keys.reserve(impl_->published.size());
  for (const auto& [key, entry] : impl_->published) keys.push_back(key);
  return keys;
}

void BlockStore::SetCost(const ChunkKey& key, std::optional<double> cost_us) {
  const MutexLock lock(impl_->mutex);
  const auto found = impl_->published.find(key);
  if (found == impl_->published.end()) return;
  impl_->policy->SetCost(key, cost_us.value_or(found->second->recompile_cost_us));
}

void BlockStore::Drop(const ChunkKey& key, DropReason reason) {
  {
    const MutexLock lock(impl_->mutex);
    const auto found = impl_->published.find(key);
    if (found == impl_->published.end()) return;
    impl_->policy->OnRemove(key);
    impl_->Hide(*found->second);
    ++(reason == DropReason::kDeleted ? impl_->stats.deletions_total : impl_->stats.damaged_total);
  }
  impl_->NotifyRemoved({key});
}

bool BlockStore::Evict(const ChunkKey& key) {
  std::vector<ChunkKey> evicted;
  {
    const MutexLock lock(impl_->mutex);
    const auto found = impl_->published.find(key);
    if (found == impl_->published.end() || !found->second->evictable()) return false;
    impl_->policy->OnEvict(key);
    impl_->Evict(*found->second, &evicted);
    ++impl_->stats.evictions_requested_total;
  }
  impl_->NotifyRemoved(evicted);
  return true;
}

void BlockStore::Pin(const ChunkKey& key) {
  const MutexLock lock(impl_->mutex);
  ++impl_->pins[key];
  if (const auto found = impl_->published.find(key); found != impl_->published.end()) {
    impl_->SetPinned(*found->second, true);
  }
}

void BlockStore::Unpin(const ChunkKey& key) {
  const MutexLock lock(impl_->mutex);
  const auto pin = impl_->pins.find(key);
  if (pin == impl_->pins.end() || --pin->second > 0) return;
  impl_->pins.erase(pin);
  if (const auto found = impl_->published.find(key); found != impl_->published.end()) {
    impl_->SetPinned(*found->second, false);
  }
}

void BlockStore::SetRemovalObserver(std::function<void(const ChunkKey&)> observer) {
  impl_->observer = std::move(observer);
}

BlockStoreStats BlockStore::Stats() const {
  const MutexLock lock(impl_->mutex);
  const OffsetAllocatorStats allocated = impl_->allocator.Stats();
  BlockStoreStats stats = impl_->stats;
  stats.capacity_bytes = impl_->options.capacity_bytes;
  stats.used_bytes = allocated.used_bytes;
  stats.largest_free_bytes = allocated.largest_free_bytes;
  stats.free_ranges = allocated.free_ranges;
  stats.blocks = impl_->published.size();
  stats.hits_total = impl_->hits_total.load(std::memory_order_relaxed);
  return stats;
}

const std::string& BlockStore::eviction_policy() const { return impl_->options.eviction_policy; }

int BlockStore::memfd() const { return impl_->arena->memfd(); }

std::shared_ptr<const KvBlockView> SharedView(BlockStore::Lease lease) {
  auto held = std::make_shared<BlockStore::Lease>(std::move(lease));
  return {held, &held->view()};
}

}  // namespace epic
