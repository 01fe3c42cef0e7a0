#include "inference_worker/node_reader.h"

#include <algorithm>
#include <map>
#include <thread>
#include <utility>

#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {
namespace {

using std::chrono::steady_clock;

FallbackCause CauseOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kDeadlineExceeded:
      return FallbackCause::kSlow;
    case absl::StatusCode::kDataLoss:
      return FallbackCause::kCorrupt;
    default:
      return FallbackCause::kUnreachable;
  }
}

// DATA_LOSS where no dtype gives the chunk that many bytes: before memory is taken for what a node says.
absl::Status CheckBlockBytes(size_t block_bytes, const KvBlockInfo& expected) {
  const auto tokens = static_cast<int32_t>(expected.token_ids.size());
  size_t bytes_max = 0;
  for (const KvDtype dtype : {KvDtype::kBf16, KvDtype::kFp16, KvDtype::kInt8}) {
    KvShape shape = expected.shape;
    shape.dtype = dtype;
    bytes_max = std::max(bytes_max, KvBlockBytesMax(shape, tokens));
  }
  if (block_bytes > 0 && block_bytes <= bytes_max) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("its block has {} bytes; one of a chunk of {} tokens has 1 to {} for this model", block_bytes, tokens,
                  bytes_max));
}

// Keeps an in-place block's bytes: the lease, and the source that it is of. Destroyed last member first.
struct InPlaceChunk {
  std::shared_ptr<BlockSource> source;
  std::unique_ptr<LocatedBlock> located;
};

}  // namespace

NodeReader::NodeReader(const NodeReaderOptions& options, std::string model_fingerprint_hex, BlockSources* sources,
                       ChunkMemory* memory, WorkerObserver* observer)
    : options_(options),
      model_fingerprint_hex_(std::move(model_fingerprint_hex)),
      sources_(sources),
      memory_(memory),
      observer_(observer) {}

LocateQuery NodeReader::QueryFor(const ChunkLoadRequest& request) const {
  LocateQuery query;
  query.tenant = request.tenant;
  query.request_id = request.request_id;
  query.traceparent = request.traceparent;
  query.model_fingerprint_hex = model_fingerprint_hex_;
  query.recipe = request.recipe;
  query.compile_missing = true;
  return query;
}

Deadline NodeReader::NodeDeadline(Deadline request_deadline) const {
  const Deadline now = steady_clock::now();
  const Deadline patience = now + options_.node_timeout;
  if (request_deadline == Deadline::max()) return patience;
  return std::min(patience, now + (request_deadline - now) / 2);
}

void NodeReader::ForEachHome(std::span<ChunkWork* const> work, const std::function<void(const Home&)>& visit) const {
  std::map<std::string, Home> by_home;
  for (ChunkWork* one : work) by_home[one->chunk->home].push_back(one);
  std::vector<const Home*> homes;
  for (const auto& [address, chunks] : by_home) homes.push_back(&chunks);
  if (homes.empty()) return;

  // The calling thread takes part, so that one home, which is the usual case, needs no other.
  std::atomic<size_t> next{0};
  const auto take = [&] {
    for (size_t i = next++; i < homes.size(); i = next++) visit(*homes[i]);
  };
  std::vector<std::thread> helpers;
  const size_t parallel = std::min<size_t>(homes.size(), options_.homes_in_parallel_max);
  for (size_t i = 1; i < parallel; ++i) helpers.emplace_back(take);
  take();
  for (std::thread& helper : helpers) helper.join();
}

int64_t NodeReader::Locate(const ChunkLoadRequest& request, std::span<ChunkWork* const> work) {
  std::atomic<int64_t> slowest_us{0};
  ForEachHome(work, [&](const Home& home) {
    const int64_t compile_us = LocateAtHome(request, home);
    int64_t seen = slowest_us.load();
    while (seen < compile_us && !slowest_us.compare_exchange_weak(seen, compile_us)) {
    }
  });
  return slowest_us.load();
}

int64_t NodeReader::LocateAtHome(const ChunkLoadRequest& request, const Home& home) {
  const std::string& address = home.front()->chunk->home;
  if (address.empty()) {
    for (ChunkWork* work : home) work->GiveUpOnNode(FallbackCause::kNoHome, "no cache node was named for it");
    return 0;
  }
  absl::StatusOr<std::shared_ptr<BlockSource>> source = sources_->Get(address);
  absl::Status status = source.status();
  std::vector<std::unique_ptr<LocatedBlock>> blocks;
  if (status.ok()) {
    LocateQuery query = QueryFor(request);
    for (ChunkWork* work : home) {
      query.chunks.push_back({work->chunk->key, work->chunk->token_ids, work->chunk->context_token_ids});
    }
    absl::StatusOr<std::vector<std::unique_ptr<LocatedBlock>>> located =
        (*source)->Locate(query, NodeDeadline(request.deadline));
    status = located.status();
    if (located.ok()) blocks = *std::move(located);
  }
  if (status.ok() && blocks.size() != home.size()) {
    status = absl::InternalError(fmt::format("it answered for {} of {} chunks", blocks.size(), home.size()));
  }
  if (!status.ok()) {
    for (ChunkWork* work : home) {
      work->GiveUpOnNode(CauseOf(status),
                         fmt::format("node {} did not give it: {}", address, std::string(status.message())));
    }
    return 0;
  }
  int64_t compile_us = 0;
  for (size_t i = 0; i < home.size(); ++i) {
    ChunkWork* work = home[i];
    if (blocks[i] == nullptr || blocks[i]->origin == BlockOrigin::kAbsent) {
      work->GiveUpOnNode(FallbackCause::kAbsent, fmt::format("node {} does not hold it", address));
      continue;
    }
    compile_us += blocks[i]->compile_us;
    work->source = *source;
    work->located = std::move(blocks[i]);
  }
  return compile_us;
}

int64_t NodeReader::Read(const ChunkLoadRequest& request, std::span<ChunkWork* const> work) {
  std::atomic<int64_t> bytes{0};
  ForEachHome(work, [&](const Home& home) {
    for (ChunkWork* one : home) bytes += ReadOne(request, one);
  });
  if (bytes.load() > 0) observer_->OnBytesPulled(bytes.load());
  return bytes.load();
}

int64_t NodeReader::ReadOne(const ChunkLoadRequest& request, ChunkWork* work) {
  int64_t bytes_moved = 0;
  const std::string address = work->chunk->home;
  absl::Status last;
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (request.cancelled->load()) break;
    if (attempt > 0) {
      // The lease may be what failed: take a new one.
      work->located.reset();
      LocateAtHome(request, {work});
      if (work->cause.has_value()) return bytes_moved;
    }
    const bool compiled = work->located->origin == BlockOrigin::kCompiled;
    const bool in_place = work->located->InPlace() != nullptr;
    absl::StatusOr<ChunkKvPtr> kv = in_place ? UseInPlace(work) : Pull(request, work, &bytes_moved);
    if (kv.ok()) {
      work->located.reset();
      work->loaded = LoadedChunk{
          *std::move(kv), compiled ? ChunkSource::kCompiledByNode : ChunkSource::kHeldByNode,
          in_place ? fmt::format("read in place at node {}", address) : fmt::format("pulled from node {}", address)};
      return bytes_moved;
    }
    last = kv.status();
    // Memory that is full now is full at the second try too, and compiling needs it as well: its error is the clearer
    // one.
    if (absl::IsResourceExhausted(last)) break;
  }
  work->GiveUpOnNode(CauseOf(last),
                     fmt::format("reading it from node {} failed: {}", address, std::string(last.message())));
  return bytes_moved;
}

absl::StatusOr<ChunkKvPtr> NodeReader::UseInPlace(ChunkWork* work) {
  const KvBlockView view = *work->located->InPlace();
  EPIC_RETURN_IF_ERROR(CheckSameChunk(view.info(), work->info));
  if (view.info().shape.dtype != work->info.shape.dtype) return memory_->Decode(view, work->info);
  return std::make_shared<ChunkKv>(
      view, std::make_shared<InPlaceChunk>(InPlaceChunk{work->source, std::move(work->located)}));
}

absl::StatusOr<ChunkKvPtr> NodeReader::Pull(const ChunkLoadRequest& request, ChunkWork* work, int64_t* bytes_moved) {
  const size_t block_bytes = work->located->block_bytes;
  EPIC_RETURN_IF_ERROR(CheckBlockBytes(block_bytes, work->info));
  EPIC_ASSIGN_OR_RETURN(ChunkMemory::Buffer buffer, memory_->Reserve(block_bytes));
  const steady_clock::time_point start = steady_clock::now();
  EPIC_RETURN_IF_ERROR(
      work->source->Read(*work->located, BlockRange{}, buffer.bytes(), NodeDeadline(request.deadline)));
  RecordPull(block_bytes, steady_clock::now() - start);
  *bytes_moved += static_cast<int64_t>(block_bytes);
  return memory_->Finish(std::move(buffer), work->info, work->located->edition);
}

void NodeReader::RecordPull(size_t bytes, steady_clock::duration elapsed) {
  const double seconds = std::chrono::duration<double>(elapsed).count();
  if (seconds <= 0) return;
  const double rate = static_cast<double>(bytes) / seconds;
  double seen = bytes_per_second_.load();
  // Two pulls at once may both start from the same value: either result is a fair estimate.
  while (!bytes_per_second_.compare_exchange_weak(seen, seen == 0 ? rate : 0.9 * seen + 0.1 * rate)) {
  }
}

}  // namespace epic
