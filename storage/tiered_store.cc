#include "storage/tiered_store.h"

#include <algorithm>
#include <utility>

#include "core/kv_encoding.h"
#include "core/status_macros.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"
#include "storage/scratch_block.h"

namespace epic {
namespace {

// Until something was measured: a gigabyte a second.
constexpr double kLoadUsPerMegabyteAtFirst = 1000;
// What a load takes apart from its bytes.
constexpr double kLoadUsMin = 100;
constexpr double kNewMeasurementWeight = 0.1;
// Copies are behind where more than this part of memory waits for them.
constexpr size_t kWaitingCopiesShare = 4;
constexpr double kBytesPerMegabyte = 1e6;

double SecondsSince(TieredStore::Clock::time_point begun) {
  return std::chrono::duration<double>(TieredStore::Clock::now() - begun).count();
}

}  // namespace

absl::Status EncodeOrKeep(const KvBlockView& source, KvDtype target, std::span<std::byte> out) {
  absl::Status encoded = EncodeKvBlock(source, target, out);
  if (!absl::IsOutOfRange(encoded)) return encoded;
  std::fill(out.begin(), out.end(), std::byte{0});
  return EncodeKvBlock(source, KvDtype::kBf16, out);
}

TieredStore::TieredStore(const TieredStoreOptions& options, std::unique_ptr<BlockStore> host,
                         std::unique_ptr<BlockTier> disk)
    : options_(options), host_(std::move(host)), disk_(std::move(disk)) {
  stats_.load_us_per_megabyte = kLoadUsPerMegabyteAtFirst;
  if (disk_ == nullptr) return;
  disk_->SetRemovalObserver([this](const ChunkKey& key) { host_->SetCost(key, std::nullopt); });
  for (int i = 0; i < options_.io_threads; ++i) threads_.emplace_back([this] { Run(); });
}

TieredStore::~TieredStore() { Stop(); }

KvBlockInfo TieredStore::HostInfo(KvBlockInfo info) const {
  info.shape.dtype = options_.host_dtype;
  return info;
}

absl::StatusOr<BlockStore::Lease> TieredStore::Publish(BlockStore::Reservation reservation, double compile_us) {
  EPIC_ASSIGN_OR_RETURN(BlockStore::Lease lease, host_->Publish(std::move(reservation), compile_us));
  const ChunkKey& key = lease.view().info().key;
  if (OnDisk(key)) {
    host_->SetCost(key, LoadCostUs(lease.view().bytes().size()));
  } else {
    QueueWrite(key, lease.view().bytes().size());
  }
  return lease;
}

void TieredStore::QueueWrite(const ChunkKey& key, size_t bytes) {
  if (disk_ == nullptr) return;
  const MutexLock lock(mutex_);
  if (stopping_ || writes_known_.contains(key)) return;
  if (writes_.size() >= options_.writes_waiting_max) {
    ++stats_.writes_skipped_total;
    return;
  }
  writes_.push_back({key, bytes});
  write_bytes_ += bytes;
  writes_known_.insert(key);
  work_.NotifyOne();
}

void TieredStore::QueueMissingCopies() {
  if (disk_ == nullptr) return;
  for (const ChunkKey& key : host_->Keys()) {
    if (OnDisk(key) || !Keeps(key)) continue;
    const absl::StatusOr<BlockStore::Lease> lease = host_->Peek(key);
    if (lease.ok() && *lease) QueueWrite(key, lease->view().bytes().size());
  }
}

bool TieredStore::CopiesAreBehind() const {
  const size_t capacity_bytes = host_->Stats().capacity_bytes;
  const MutexLock lock(mutex_);
  return write_bytes_ > capacity_bytes / kWaitingCopiesShare;
}

absl::Status TieredStore::Load(const KvBlockInfo& info, std::span<std::byte> padded_block,
                               std::function<void(absl::StatusOr<uint64_t>)> on_done) {
  const MutexLock lock(mutex_);
  if (stopping_ || threads_.empty()) return absl::UnavailableError("the store has no disk tier, or is shutting down");
  if (loads_.size() >= options_.loads_waiting_max) {
    return absl::ResourceExhaustedError(
        fmt::format("{} blocks wait to be loaded from disk, the limit; try again later", loads_.size()));
  }
  loads_.push_back({.info = info, .padded_block = padded_block, .on_done = std::move(on_done)});
  work_.NotifyOne();
  return absl::OkStatus();
}

void TieredStore::Drop(const ChunkKey& key, BlockStore::DropReason reason) {
  host_->Drop(key, reason);
  if (disk_ != nullptr) disk_->Drop(key);
}

void TieredStore::Run() {
  while (true) {
    std::optional<PendingLoad> load;
    PendingWrite write;
    {
      MutexLock lock(mutex_);
      while (!stopping_ && loads_.empty() && writes_.empty()) work_.Wait(mutex_);
      if (stopping_) return;
      if (!loads_.empty()) {
        load = std::move(loads_.front());
        loads_.pop_front();
        ++loads_running_;
      } else {
        write = writes_.front();
        writes_.pop_front();
        writes_known_.erase(write.key);
        ++writes_running_;
      }
    }
    const Clock::time_point begun = Clock::now();
    if (load.has_value()) {
      absl::StatusOr<uint64_t> edition = LoadNow(*load);
      const double seconds = SecondsSince(begun);
      if (observe_load_ && edition.ok()) observe_load_(seconds);
      {
        MutexLock lock(mutex_);
        --loads_running_;
        if (edition.ok()) {
          ++stats_.loads_total;
          const double megabytes = static_cast<double>(load->padded_block.size()) / kBytesPerMegabyte;
          const double measured = seconds * 1e6 / std::max(megabytes, 1e-3);
          stats_.load_us_per_megabyte += kNewMeasurementWeight * (measured - stats_.load_us_per_megabyte);
        } else {
          ++stats_.load_failures_total;
        }
      }
      load->on_done(std::move(edition));
      continue;
    }
    const WriteOutcome outcome = WriteNow(write.key);
    if (observe_write_ && outcome == WriteOutcome::kWritten) observe_write_(SecondsSince(begun));
    MutexLock lock(mutex_);
    --writes_running_;
    write_bytes_ -= write.bytes;
    switch (outcome) {
      case WriteOutcome::kWritten:
        ++stats_.writes_total;
        break;
      case WriteOutcome::kSkipped:
        ++stats_.writes_skipped_total;
        break;
      case WriteOutcome::kDeclined:
        ++stats_.writes_declined_total;
        break;
      case WriteOutcome::kFailed:
        ++stats_.write_failures_total;
        break;
    }
    if (writes_.empty() && writes_running_ == 0) idle_.NotifyAll();
  }
}

absl::StatusOr<uint64_t> TieredStore::LoadNow(const PendingLoad& load) {
  const ChunkKey& key = load.info.key;
  const std::optional<BlockTier::Entry> entry = disk_->Find(key);
  if (!entry) return absl::NotFoundError(fmt::format("the disk tier does not hold chunk {}", key.Hex()));
  const std::span<std::byte> block = load.padded_block.first(KvBlockBytes(load.info));
  const auto check = [&](std::span<const std::byte> bytes) -> absl::StatusOr<KvBlockView> {
    EPIC_ASSIGN_OR_RETURN(KvBlockView view, KvBlockView::Parse(bytes));
    if (view.info().token_ids == load.info.token_ids &&
        view.info().model_fingerprint_hex == load.info.model_fingerprint_hex) {
      return view;
    }
    disk_->Drop(key);
    return absl::DataLossError(
        fmt::format("the disk tier's block of chunk {} holds another chunk; it was dropped", key.Hex()));
  };
  // The tier may have been configured otherwise when the block was written: what it is says its length and header.
  if (entry->block_bytes == block.size()) {
    EPIC_RETURN_IF_ERROR(disk_->Read(key, load.padded_block));
    EPIC_ASSIGN_OR_RETURN(const KvBlockView view, check(block));
    if (view.info().shape.dtype == load.info.shape.dtype) return view.edition();
  }
  ScratchBlock scratch(entry->block_bytes);
  EPIC_RETURN_IF_ERROR(disk_->Read(key, scratch.padded_bytes()));
  EPIC_ASSIGN_OR_RETURN(const KvBlockView view, check(scratch.bytes()));
  std::fill(load.padded_block.begin(), load.padded_block.end(), std::byte{0});
  EPIC_RETURN_IF_ERROR(EncodeOrKeep(view, load.info.shape.dtype, block));
  EPIC_ASSIGN_OR_RETURN(const KvBlockView encoded, KvBlockView::Parse(block));
  return encoded.edition();
}

absl::StatusOr<std::shared_ptr<const KvBlockView>> TieredStore::View(const KvBlockInfo& info) {
  const ChunkKey& key = info.key;
  absl::StatusOr<BlockStore::Lease> lease = host_->Peek(key);
  if (lease.ok() && *lease) {
    if (lease->view().info().shape.dtype == info.shape.dtype) return SharedView(*std::move(lease));
    auto decoded = std::make_shared<ScratchBlock>(KvBlockBytes(info));
    EPIC_RETURN_IF_ERROR(EncodeKvBlock(lease->view(), info.shape.dtype, decoded->bytes()));
    return OwnedView(std::move(decoded));
  }
  if (disk_ == nullptr) return absl::NotFoundError(fmt::format("no tier holds chunk {}", key.Hex()));
  auto block = std::make_shared<ScratchBlock>(KvBlockBytes(info));
  EPIC_RETURN_IF_ERROR(LoadNow({.info = info, .padded_block = block->padded_bytes(), .on_done = {}}).status());
  return OwnedView(std::move(block));
}

TieredStore::WriteOutcome TieredStore::WriteNow(const ChunkKey& key) {
  if (!Keeps(key)) return WriteOutcome::kSkipped;
  const absl::StatusOr<BlockStore::Lease> lease = host_->Peek(key);
  if (!lease.ok() || !*lease) return WriteOutcome::kSkipped;
  const KvBlockView& view = lease->view();
  // Bytes that went bad in memory must not be written down as good ones.
  if (const absl::Status sound = view.VerifyPayload(); !sound.ok()) {
    spdlog::error("chunk {} went bad in memory and was dropped: {}", key.Hex(), std::string(sound.message()));
    host_->Drop(key, BlockStore::DropReason::kDamaged);
    return WriteOutcome::kFailed;
  }
  absl::StatusOr<bool> written = false;
  if (view.info().shape.dtype == options_.disk_dtype) {
    written = disk_->Write(view, lease->recompile_cost_us());
  } else {
    KvBlockInfo info = view.info();
    info.shape.dtype = options_.disk_dtype;
    ScratchBlock scratch(KvBlockBytes(info));
    if (!EncodeOrKeep(view, options_.disk_dtype, scratch.bytes()).ok()) return WriteOutcome::kFailed;
    const absl::StatusOr<KvBlockView> encoded = KvBlockView::Parse(scratch.bytes());
    if (!encoded.ok()) return WriteOutcome::kFailed;
    written = disk_->Write(*encoded, lease->recompile_cost_us());
  }
  if (!written.ok()) {
    return absl::IsResourceExhausted(written.status()) ? WriteOutcome::kDeclined : WriteOutcome::kFailed;
  }
  // Its document may have been deleted while it was written.
  if (!Keeps(key)) {
    disk_->Drop(key);
    return WriteOutcome::kSkipped;
  }
  if (!OnDisk(key)) return WriteOutcome::kDeclined;
  host_->SetCost(key, LoadCostUs(view.bytes().size()));
  return *written ? WriteOutcome::kWritten : WriteOutcome::kSkipped;
}

absl::StatusOr<VerifyProgress> TieredStore::VerifyHost(const std::function<bool(const VerifyProgress&)>& progress) {
  const std::vector<ChunkKey> keys = host_->Keys();
  VerifyProgress done;
  done.blocks_total = keys.size();
  for (const ChunkKey& key : keys) {
    const absl::StatusOr<BlockStore::Lease> lease = host_->Peek(key);
    absl::Status sound = lease.status();
    if (lease.ok() && *lease) {
      sound = lease->view().VerifyPayload();
      done.bytes_done += lease->view().bytes().size();
      if (!sound.ok()) {
        spdlog::error("chunk {} went bad in memory and was dropped: {}", key.Hex(), std::string(sound.message()));
        host_->Drop(key, BlockStore::DropReason::kDamaged);
      }
    }
    ++done.blocks_done;
    if (!sound.ok()) done.faults.push_back(fmt::format("{}: {}", key.Hex(), std::string(sound.message())));
    if (!progress(done)) return absl::CancelledError("the verification was cancelled");
  }
  return done;
}

double TieredStore::LoadCostUs(size_t bytes) const {
  const MutexLock lock(mutex_);
  return kLoadUsMin + static_cast<double>(bytes) / kBytesPerMegabyte * stats_.load_us_per_megabyte;
}

size_t TieredStore::copies_running() const {
  const MutexLock lock(mutex_);
  return writes_running_;
}

bool TieredStore::WaitForWrites(Clock::time_point deadline) {
  MutexLock lock(mutex_);
  bool in_time = true;
  while (!stopping_ && in_time && (!writes_.empty() || writes_running_ > 0))
    in_time = idle_.WaitUntil(mutex_, deadline);
  return writes_.empty() && writes_running_ == 0;
}

void TieredStore::Stop() {
  std::deque<PendingLoad> given_up;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    given_up.swap(loads_);
    work_.NotifyAll();
    idle_.NotifyAll();
  }
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
  for (const PendingLoad& load : given_up) load.on_done(absl::UnavailableError("the store is shutting down"));
}

TieredStoreStats TieredStore::Stats() const {
  const MutexLock lock(mutex_);
  TieredStoreStats stats = stats_;
  stats.loads_waiting = loads_.size() + loads_running_;
  stats.writes_waiting = writes_.size() + writes_running_;
  return stats;
}

}  // namespace epic
