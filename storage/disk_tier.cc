#include "storage/disk_tier.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "core/status_macros.h"
#include "core/sync.h"
#include "fmt/format.h"
#include "storage/disk_adoption.h"
#include "storage/disk_folder.h"
#include "storage/disk_index.h"
#include "storage/disk_space.h"

namespace epic {
namespace {

constexpr size_t kCapacityBytesMin = size_t{4} << 20;
constexpr size_t kCapacityBytesMax = size_t{1} << 50;
constexpr size_t kSegmentBytesMin = size_t{1} << 20;
// Each is an open file.
constexpr size_t kSegmentsMax = 512;
// What the index may take: an eighth of a small tier, little of a large one.
constexpr size_t kIndexBytesFixed = size_t{64} << 20;
constexpr size_t kIndexShare = 256;
constexpr size_t kIndexShareMin = 8;
// Of a block's entry, with what RocksDB holds beside it while it compacts: its table twice, the log, deletions.
constexpr size_t kIndexBytesPerBlock = 384;
constexpr size_t kIndexWriteBufferBytesMin = size_t{64} << 10;
constexpr size_t kIndexWriteBufferBytesMax = size_t{4} << 20;
// A disk that is nearly full is not filled up in small pieces.
constexpr size_t kSmallestSegmentShare = 16;

size_t RoundDown(size_t bytes) { return bytes / kDiskAlignmentBytes * kDiskAlignmentBytes; }

size_t IndexBytesMax(size_t capacity_bytes) {
  return std::min(capacity_bytes / kIndexShareMin, kIndexBytesFixed + capacity_bytes / kIndexShare);
}
size_t SegmentBytesMax(size_t capacity_bytes) { return RoundDown(capacity_bytes - IndexBytesMax(capacity_bytes)); }

size_t IndexWriteBufferBytes(size_t capacity_bytes) {
  return std::clamp(IndexBytesMax(capacity_bytes) / 16, kIndexWriteBufferBytesMin, kIndexWriteBufferBytesMax);
}

}  // namespace

absl::Status DiskTierOptions::Validate() const {
  std::string faults;
  if (folder.empty()) faults += " folder is empty, expected a directory;";
  if (capacity_bytes < kCapacityBytesMin || capacity_bytes > kCapacityBytesMax) {
    faults +=
        fmt::format(" capacity_bytes is {}, expected {} to {};", capacity_bytes, kCapacityBytesMin, kCapacityBytesMax);
  }
  if (segment_bytes < kSegmentBytesMin || segment_bytes > kCapacityBytesMax) {
    faults +=
        fmt::format(" segment_bytes is {}, expected {} to {};", segment_bytes, kSegmentBytesMin, kCapacityBytesMax);
  }
  if (faults.empty()) return absl::OkStatus();
  faults.pop_back();
  return absl::InvalidArgumentError(fmt::format("disk tier:{}", faults));
}

struct DiskTier::Impl {
  enum class State { kWriting, kHeld, kLeaving };
  // One block. In `blocks` from the moment when somebody begins to write it until the index has forgotten it.
  struct Record {
    ChunkKey key;
    State state = State::kWriting;
    Entry entry;
    uint64_t header_checksum = 0;
    DiskRange range;
    SegmentFile* file = nullptr;
    bool owns_range = false;
    uint32_t users = 0;  // reads in progress, and the removal itself
  };
  using RecordPointer = std::shared_ptr<Record>;

  Impl(const DiskTierOptions& tier_options, std::unique_ptr<EvictionPolicy> eviction_policy)
      : options(tier_options),
        segment_bytes(RoundDown(std::max(tier_options.segment_bytes, tier_options.capacity_bytes / kSegmentsMax))),
        segments_bytes_max(SegmentBytesMax(tier_options.capacity_bytes)),
        blocks_max(IndexBytesMax(tier_options.capacity_bytes) / kIndexBytesPerBlock),
        policy(std::move(eviction_policy)),
        space(kDiskAlignmentBytes) {}

  absl::Status Start();
  void Adopt(std::vector<AdoptedBlock> adopted, std::map<uint32_t, std::unique_ptr<SegmentFile>> files);

  // Waits until nobody writes or removes the block.
  void WaitForKey(const ChunkKey& key) EPIC_REQUIRES(mutex);
  // A record with a range, entered as being written; nullptr where the block is there. What had to go for it is in
  // `evicted`, on failure too, and must be given to Forget.
  absl::StatusOr<RecordPointer> Reserve(const KvBlockView& block, double recompile_cost_us,
                                        std::vector<RecordPointer>* evicted) EPIC_REQUIRES(mutex);
  absl::Status FindRoom(Record& record, std::vector<RecordPointer>* evicted) EPIC_REQUIRES(mutex);
  // One more segment that holds a range of `bytes`, or the one that another thread was making. Lets go of the lock
  // meanwhile. False where the tier may not or cannot grow.
  bool Grow(size_t bytes) EPIC_REQUIRES(mutex);
  size_t BytesOfNextSegment(size_t bytes, size_t total_bytes, bool* disk_is_full) const;
  bool MayGo(const Record& record) const EPIC_REQUIRES(mutex);
  RecordPointer NextVictim() const EPIC_REQUIRES(mutex);
  void Evict(const RecordPointer& record, std::vector<RecordPointer>* evicted) EPIC_REQUIRES(mutex);
  // The cheapest neighbours in one of these segments, where there are some whose going makes room.
  void EvictWindow(const std::set<uint32_t>& among, size_t bytes, std::vector<RecordPointer>* evicted)
      EPIC_REQUIRES(mutex);
  absl::Status WriteAndIndex(const KvBlockView& block, const Record& record, uint64_t sequence);

  RecordPointer FindHeld(const ChunkKey& key) const EPIC_REQUIRES(mutex);
  void EndUse(Record& record) EPIC_REQUIRES(mutex);
  // Takes the block out of sight. Forget must follow.
  void Hide(Record& record) EPIC_REQUIRES(mutex);
  // Erases hidden and evicted blocks from the index, then lets others write their keys, and ranges, again.
  void Forget(const std::vector<RecordPointer>& leaving) EPIC_EXCLUDES(mutex);
  // Reads into memory of DiskPaddedBytes(block_bytes) and verifies. REQUIRES: the caller is one of the record's users.
  static absl::Status ReadAndVerify(const Record& record, std::span<std::byte> padded_out);
  // Ends the use for a read, counts its outcome, and drops the block where it failed.
  void FinishRead(const RecordPointer& record, const absl::Status& status) EPIC_EXCLUDES(mutex);
  std::vector<RecordPointer> HeldRecords() const EPIC_EXCLUDES(mutex);

  const DiskTierOptions options;
  const size_t segment_bytes;
  const size_t segments_bytes_max;
  const size_t blocks_max;
  std::function<void(const ChunkKey&)> observer;
  std::function<bool(const ChunkKey&)> may_evict;
  std::unique_ptr<DiskFolder> folder;
  std::unique_ptr<DiskIndex> index;

  mutable Mutex mutex;  // protects which range is whose; never held over I/O
  CondVar changed;      // a block's state, or `growing`
  const std::unique_ptr<EvictionPolicy> policy EPIC_GUARDED_BY(mutex);
  std::map<uint32_t, std::unique_ptr<SegmentFile>> segments EPIC_GUARDED_BY(mutex);
  DiskSpace space EPIC_GUARDED_BY(mutex);
  absl::flat_hash_map<ChunkKey, RecordPointer> blocks EPIC_GUARDED_BY(mutex);
  size_t held EPIC_GUARDED_BY(mutex) = 0;
  size_t writing EPIC_GUARDED_BY(mutex) = 0;
  bool growing EPIC_GUARDED_BY(mutex) = false;
  uint64_t next_sequence EPIC_GUARDED_BY(mutex) = 1;
  DiskTierStats stats EPIC_GUARDED_BY(mutex);  // the counters
};

absl::Status DiskTier::Impl::Start() {
  EPIC_ASSIGN_OR_RETURN(folder, DiskFolder::Open(options.folder));
  EPIC_ASSIGN_OR_RETURN(DiskIndex::Contents contents,
                        DiskIndex::Open(folder->IndexPath(), IndexWriteBufferBytes(options.capacity_bytes)));
  index = std::move(contents.index);
  if (!contents.damage.empty()) {
    spdlog::error("disk tier: the index in {} was damaged and thrown away, starting empty: {}", folder->IndexPath(),
                  contents.damage);
  }
  EPIC_ASSIGN_OR_RETURN(auto files, folder->OpenSegments(segments_bytes_max, options.direct_io));
  std::map<uint32_t, size_t> bytes_by_segment;
  for (const auto& [number, file] : files) bytes_by_segment[number] = file->bytes();
  DiskAdoption adoption = AdoptBlocks(contents.entries, bytes_by_segment);
  const size_t dropped_count = adoption.dropped.size() + contents.unreadable_entries;
  if (dropped_count > 0) {
    spdlog::warn("disk tier: {} of {} entries in {} named ranges that are not there or belong to others; dropped",
                 dropped_count, contents.entries.size() + contents.unreadable_entries, folder->IndexPath());
    // Where that fails, they are dropped again at the next start.
    index->Erase(adoption.dropped).IgnoreError();
  }
  {
    const MutexLock lock(mutex);
    stats.index_resets_total = contents.damage.empty() ? 0 : 1;
    stats.dropped_at_start_total = dropped_count;
  }
  Adopt(std::move(adoption.blocks), std::move(files));
  return absl::OkStatus();
}

void DiskTier::Impl::Adopt(std::vector<AdoptedBlock> adopted, std::map<uint32_t, std::unique_ptr<SegmentFile>> files) {
  const MutexLock lock(mutex);
  segments = std::move(files);
  auto begin = adopted.begin();
  for (const auto& [number, file] : segments) {
    std::vector<DiskSpace::Owned> owned;
    for (; begin != adopted.end() && begin->owned.range.segment == number; ++begin) owned.push_back(begin->owned);
    space.AddSegment(number, file->bytes(), owned);
  }
  std::sort(adopted.begin(), adopted.end(),
            [](const AdoptedBlock& a, const AdoptedBlock& b) { return a.entry.sequence < b.entry.sequence; });
  blocks.reserve(adopted.size());
  for (const AdoptedBlock& item : adopted) {
    auto record = std::make_shared<Record>();
    record->key = item.owned.key;
    record->state = State::kHeld;
    record->entry = {item.entry.block_bytes, item.entry.edition, item.entry.recompile_cost_us};
    record->header_checksum = item.entry.header_checksum;
    record->range = item.owned.range;
    record->file = segments.at(item.entry.segment).get();
    record->owns_range = true;
    policy->OnInsert({record->key, record->range.bytes, record->entry.recompile_cost_us});
    blocks.emplace(record->key, std::move(record));
    next_sequence = item.entry.sequence + 1;
  }
  held = blocks.size();
}

void DiskTier::Impl::WaitForKey(const ChunkKey& key) {
  while (true) {
    const auto found = blocks.find(key);
    if (found == blocks.end() || found->second->state == State::kHeld) return;
    changed.Wait(mutex);
  }
}

absl::StatusOr<DiskTier::Impl::RecordPointer> DiskTier::Impl::Reserve(const KvBlockView& block,
                                                                      double recompile_cost_us,
                                                                      std::vector<RecordPointer>* evicted) {
  const ChunkKey& key = block.info().key;
  WaitForKey(key);
  if (blocks.contains(key)) return RecordPointer();
  auto record = std::make_shared<Record>();
  record->key = key;
  record->entry = {block.bytes().size(), block.edition(), recompile_cost_us};
  blocks.emplace(key, record);
  ++writing;
  absl::Status status = FindRoom(*record, evicted);
  if (status.ok()) return record;
  blocks.erase(key);
  --writing;
  changed.NotifyAll();
  return status;
}

absl::Status DiskTier::Impl::FindRoom(Record& record, std::vector<RecordPointer>* evicted) {
  const size_t bytes = DiskPaddedBytes(record.entry.block_bytes);
  const auto no_room = [&](const std::string& reason) EPIC_NO_THREAD_SAFETY_ANALYSIS {
    return absl::ResourceExhaustedError(
        fmt::format("no room for a block of {} bytes in the disk tier of {} bytes ({} in segments, {} in blocks): {}",
                    bytes, options.capacity_bytes, space.capacity_bytes(), space.used_bytes(), reason));
  };
  bool may_grow = true;
  bool admitted = false;
  size_t evicted_bytes = 0;
  std::set<uint32_t> evicted_from;
  while (true) {
    if (held + writing <= blocks_max) {
      if (const std::optional<DiskRange> range = space.Allocate(bytes, record.key)) {
        record.range = *range;
        record.owns_range = true;
        record.file = segments.at(range->segment).get();
        return absl::OkStatus();
      }
      may_grow = may_grow && Grow(bytes);
      if (may_grow) continue;
      if (bytes > space.largest_segment_bytes()) {
        return no_room(fmt::format("the largest segment has {}; enlarge the segments, the tier or its disk",
                                   space.largest_segment_bytes()));
      }
    }
    if (!admitted && !policy->Admits({record.key, bytes, record.entry.recompile_cost_us})) {
      return no_room("the eviction policy prefers what is there");
    }
    admitted = true;
    const RecordPointer victim = NextVictim();
    if (victim == nullptr) return no_room("the rest is being read or written, or may not be evicted; try again later");
    evicted_bytes += victim->range.bytes;
    evicted_from.insert(victim->range.segment);
    Evict(victim, evicted);
    // What came free lies scattered: neighbours go instead of ever more blocks.
    if (evicted_bytes >= bytes && space.largest_free_bytes() < bytes) EvictWindow(evicted_from, bytes, evicted);
  }
}

bool DiskTier::Impl::Grow(size_t bytes) {
  if (growing) {
    while (growing) changed.Wait(mutex);
    return true;
  }
  growing = true;
  const size_t total_bytes = space.capacity_bytes();
  const uint32_t number = segments.empty() ? 1 : segments.rbegin()->first + 1;
  mutex.Unlock();
  bool disk_is_full = false;
  const size_t new_bytes = BytesOfNextSegment(bytes, total_bytes, &disk_is_full);
  absl::StatusOr<std::unique_ptr<SegmentFile>> file = nullptr;
  if (new_bytes > 0) file = SegmentFile::Create(folder->SegmentPath(number), new_bytes, options.direct_io);
  if (!file.ok()) spdlog::warn("disk tier: cannot grow: {}", std::string(file.status().message()));
  mutex.Lock();
  growing = false;
  changed.NotifyAll();
  if (disk_is_full || absl::IsResourceExhausted(file.status())) ++stats.no_space_total;
  if (!file.ok() && !absl::IsResourceExhausted(file.status())) ++stats.write_errors_total;
  if (!file.ok() || *file == nullptr) return false;
  space.AddSegment(number, new_bytes);
  segments.emplace(number, *std::move(file));
  return true;
}

size_t DiskTier::Impl::BytesOfNextSegment(size_t bytes, size_t total_bytes, bool* disk_is_full) const {
  const size_t wanted = std::min(std::max(segment_bytes, bytes), segments_bytes_max - total_bytes);
  if (wanted < bytes) return 0;
  // The index has to live as well.
  const size_t index_bytes = 2 * DiskIndex::FreeBytesMin(IndexWriteBufferBytes(options.capacity_bytes));
  const size_t available = RoundDown(folder->BytesToGrow(std::max(options.free_bytes_min, index_bytes)));
  if (available >= wanted) return wanted;
  *disk_is_full = true;
  return available >= std::max(bytes, segment_bytes / kSmallestSegmentShare) ? available : 0;
}

bool DiskTier::Impl::MayGo(const Record& record) const {
  return record.state == State::kHeld && record.users == 0 && (!may_evict || may_evict(record.key));
}

DiskTier::Impl::RecordPointer DiskTier::Impl::NextVictim() const {
  RecordPointer victim;
  policy->VisitVictims([&](const ChunkKey& key) EPIC_NO_THREAD_SAFETY_ANALYSIS {
    const auto found = blocks.find(key);
    if (found == blocks.end() || !MayGo(*found->second)) return false;
    victim = found->second;
    return true;
  });
  return victim;
}

void DiskTier::Impl::Evict(const RecordPointer& record, std::vector<RecordPointer>* evicted) {
  record->state = State::kLeaving;
  record->owns_range = false;
  space.Free(record->range);
  policy->OnEvict(record->key);
  --held;
  ++stats.evictions_total;
  evicted->push_back(record);
}

void DiskTier::Impl::EvictWindow(const std::set<uint32_t>& among, size_t bytes, std::vector<RecordPointer>* evicted) {
  std::vector<DiskSpace::Owned> best;
  size_t best_bytes = 0;
  for (const uint32_t segment : among) {
    // A block that was dropped under its readers has left its key to another one.
    std::vector<DiskSpace::Owned> window =
        space.FindWindow(segment, bytes, [&](const DiskSpace::Owned& owned) EPIC_NO_THREAD_SAFETY_ANALYSIS {
          const auto found = blocks.find(owned.key);
          return found != blocks.end() && found->second->range == owned.range && MayGo(*found->second);
        });
    size_t window_bytes = 0;
    for (const DiskSpace::Owned& owned : window) window_bytes += owned.range.bytes;
    if (window.empty() || (!best.empty() && window_bytes >= best_bytes)) continue;
    best = std::move(window);
    best_bytes = window_bytes;
  }
  for (const DiskSpace::Owned& owned : best) Evict(blocks.at(owned.key), evicted);
}

absl::Status DiskTier::Impl::WriteAndIndex(const KvBlockView& block, const Record& record, uint64_t sequence) {
  EPIC_RETURN_IF_ERROR(record.file->Write(record.range.offset, block.bytes()));
  return index->Put(record.key, {.segment = record.range.segment,
                                 .offset = record.range.offset,
                                 .block_bytes = record.entry.block_bytes,
                                 .edition = record.entry.edition,
                                 .header_checksum = record.header_checksum,
                                 .recompile_cost_us = record.entry.recompile_cost_us,
                                 .sequence = sequence});
}

DiskTier::Impl::RecordPointer DiskTier::Impl::FindHeld(const ChunkKey& key) const {
  const auto found = blocks.find(key);
  return found == blocks.end() || found->second->state != State::kHeld ? nullptr : found->second;
}

void DiskTier::Impl::EndUse(Record& record) {
  if (--record.users > 0 || record.state != State::kLeaving) return;
  space.Free(record.range);
  record.owns_range = false;
}

void DiskTier::Impl::Hide(Record& record) {
  record.state = State::kLeaving;
  ++record.users;
  --held;
  policy->OnRemove(record.key);
}

void DiskTier::Impl::Forget(const std::vector<RecordPointer>& leaving) {
  if (leaving.empty()) return;
  std::vector<ChunkKey> keys;
  for (const RecordPointer& record : leaving) keys.push_back(record->key);
  const absl::Status status = index->Erase(keys);
  if (!status.ok()) {
    // An entry that stays behind is told from a sound one by the checks of the next start and of every read.
    spdlog::warn("disk tier: {} entries stay in the index: {}", keys.size(), std::string(status.message()));
  }
  {
    const MutexLock lock(mutex);
    if (!status.ok()) ++stats.write_errors_total;
    for (const RecordPointer& record : leaving) {
      blocks.erase(record->key);
      if (record->owns_range) EndUse(*record);
    }
    changed.NotifyAll();
  }
  if (!observer) return;
  for (const ChunkKey& key : keys) observer(key);
}

absl::Status DiskTier::Impl::ReadAndVerify(const Record& record, std::span<std::byte> padded_out) {
  EPIC_RETURN_IF_ERROR(record.file->Read(record.range.offset, padded_out));
  return CheckStoredBlock(padded_out.first(record.entry.block_bytes), record.key, record.entry.edition,
                          record.header_checksum);
}

void DiskTier::Impl::FinishRead(const RecordPointer& record, const absl::Status& status) {
  bool dropped = false;
  {
    const MutexLock lock(mutex);
    if (status.ok()) {
      ++stats.reads_total;
      stats.read_bytes_total += record->range.bytes;
    } else {
      ++(absl::IsDataLoss(status) ? stats.checksum_failures_total : stats.read_errors_total);
      dropped = record->state == State::kHeld;
      if (dropped) Hide(*record);
    }
    EndUse(*record);
  }
  if (!status.ok()) {
    spdlog::error("disk tier: chunk {} at byte {} of {} was dropped: {}", record->key.Hex(), record->range.offset,
                  record->file->path(), std::string(status.message()));
  }
  if (dropped) Forget({record});
}

std::vector<DiskTier::Impl::RecordPointer> DiskTier::Impl::HeldRecords() const {
  std::vector<RecordPointer> records;
  const MutexLock lock(mutex);
  records.reserve(held);
  for (const auto& [key, record] : blocks) {
    if (record->state == State::kHeld) records.push_back(record);
  }
  return records;
}

absl::StatusOr<std::unique_ptr<DiskTier>> DiskTier::Open(const DiskTierOptions& options,
                                                         std::unique_ptr<EvictionPolicy> policy) {
  EPIC_RETURN_IF_ERROR(options.Validate());
  auto impl = std::make_unique<Impl>(options, std::move(policy));
  EPIC_RETURN_IF_ERROR(impl->Start());
  return std::unique_ptr<DiskTier>(new DiskTier(std::move(impl)));
}

DiskTier::DiskTier(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DiskTier::~DiskTier() = default;

void DiskTier::SetRemovalObserver(std::function<void(const ChunkKey&)> observer) {
  impl_->observer = std::move(observer);
}
void DiskTier::SetEvictionFilter(std::function<bool(const ChunkKey&)> may_evict) {
  impl_->may_evict = std::move(may_evict);
}

absl::StatusOr<bool> DiskTier::Write(const KvBlockView& block, double recompile_cost_us) {
  std::vector<Impl::RecordPointer> evicted;
  absl::StatusOr<Impl::RecordPointer> reserved;
  uint64_t sequence = 0;
  {
    const MutexLock lock(impl_->mutex);
    reserved = impl_->Reserve(block, recompile_cost_us, &evicted);
    sequence = impl_->next_sequence++;
  }
  // Before their ranges are written again: after kill -9 no entry points at another block's bytes.
  impl_->Forget(evicted);
  EPIC_RETURN_IF_ERROR(reserved.status());
  if (*reserved == nullptr) return false;
  Impl::Record& record = **reserved;
  record.header_checksum = HeaderChecksum(block);
  absl::Status status = impl_->WriteAndIndex(block, record, sequence);

  const MutexLock lock(impl_->mutex);
  --impl_->writing;
  impl_->changed.NotifyAll();
  if (!status.ok()) {
    ++(absl::IsResourceExhausted(status) ? impl_->stats.no_space_total : impl_->stats.write_errors_total);
    impl_->space.Free(record.range);
    impl_->blocks.erase(record.key);
    return status;
  }
  ++impl_->held;
  ++impl_->stats.writes_total;
  impl_->stats.written_bytes_total += record.range.bytes;
  record.state = Impl::State::kHeld;
  impl_->policy->OnInsert({record.key, record.range.bytes, recompile_cost_us});
  return true;
}

std::optional<DiskTier::Entry> DiskTier::Find(const ChunkKey& key) const {
  const MutexLock lock(impl_->mutex);
  const Impl::RecordPointer record = impl_->FindHeld(key);
  if (record == nullptr) return std::nullopt;
  return record->entry;
}

void DiskTier::NoteMiss(const ChunkKey& key) {
  const MutexLock lock(impl_->mutex);
  impl_->policy->OnMiss(key);
}

absl::Status DiskTier::Read(const ChunkKey& key, std::span<std::byte> padded_out) {
  Impl::RecordPointer record;
  {
    const MutexLock lock(impl_->mutex);
    record = impl_->FindHeld(key);
    if (record == nullptr) return absl::NotFoundError(fmt::format("the disk tier does not hold chunk {}", key.Hex()));
    if (padded_out.size() != record->range.bytes ||
        reinterpret_cast<uintptr_t>(padded_out.data()) % kDiskAlignmentBytes != 0) {
      return absl::InvalidArgumentError(fmt::format(
          "chunk {} needs {} bytes of memory at a multiple of {}, was given {} at {}", key.Hex(), record->range.bytes,
          kDiskAlignmentBytes, padded_out.size(), static_cast<const void*>(padded_out.data())));
    }
    ++record->users;
    impl_->policy->OnAccess(key);
  }
  absl::Status status = Impl::ReadAndVerify(*record, padded_out);
  impl_->FinishRead(record, status);
  return status;
}

void DiskTier::Drop(const ChunkKey& key) {
  Impl::RecordPointer record;
  {
    const MutexLock lock(impl_->mutex);
    impl_->WaitForKey(key);
    record = impl_->FindHeld(key);
    if (record == nullptr) return;
    impl_->Hide(*record);
    ++impl_->stats.deletions_total;
  }
  impl_->Forget({record});
}

void DiskTier::ForEach(const std::function<void(const ChunkKey&, const Entry&)>& visit) const {
  for (const Impl::RecordPointer& record : impl_->HeldRecords()) visit(record->key, record->entry);
}

absl::StatusOr<VerifyProgress> DiskTier::VerifyAll(const std::function<bool(const VerifyProgress&)>& progress) {
  const std::vector<Impl::RecordPointer> records = impl_->HeldRecords();
  VerifyProgress done;
  done.blocks_total = records.size();
  std::unique_ptr<std::byte, decltype(&std::free)> memory(nullptr, &std::free);
  size_t memory_bytes = 0;
  for (const Impl::RecordPointer& record : records) {
    const size_t bytes = record->range.bytes;
    bool is_there = false;
    {
      const MutexLock lock(impl_->mutex);
      is_there = record->state == Impl::State::kHeld;
      if (is_there) ++record->users;
    }
    if (is_there) {
      if (memory_bytes < bytes) {
        memory.reset(static_cast<std::byte*>(std::aligned_alloc(kDiskAlignmentBytes, bytes)));
        memory_bytes = bytes;
      }
      const absl::Status status = Impl::ReadAndVerify(*record, {memory.get(), bytes});
      impl_->FinishRead(record, status);
      done.bytes_done += bytes;
      if (!status.ok()) done.faults.push_back(std::string(status.message()));
    }
    ++done.blocks_done;
    if (!progress(done)) {
      return absl::CancelledError(
          fmt::format("stopped after {} of {} blocks of the disk tier", done.blocks_done, done.blocks_total));
    }
  }
  return done;
}

absl::StatusOr<std::pair<uint64_t, uint64_t>> DiskTier::Compact() { return impl_->index->Compact(); }

DiskTierStats DiskTier::Stats() const {
  const MutexLock lock(impl_->mutex);
  DiskTierStats stats = impl_->stats;
  stats.capacity_bytes = impl_->options.capacity_bytes;
  stats.index_bytes_max = IndexBytesMax(impl_->options.capacity_bytes);
  stats.segment_bytes = impl_->space.capacity_bytes();
  stats.used_bytes = impl_->space.used_bytes();
  stats.blocks = impl_->held;
  stats.direct_io = !impl_->segments.empty() && impl_->segments.begin()->second->direct_io();
  return stats;
}

}  // namespace epic
