#include "inference_worker/chunk_loader.h"

#include <chrono>
#include <utility>

#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {
namespace {

using std::chrono::steady_clock;

int64_t MicrosecondsSince(steady_clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::microseconds>(steady_clock::now() - start).count();
}

absl::Status EndedEarly(const ChunkLoadRequest& request) {
  if (request.cancelled->load()) return absl::CancelledError("the request was cancelled while its chunks were loaded");
  if (steady_clock::now() >= request.deadline) {
    return absl::DeadlineExceededError("the request's deadline passed while its chunks were loaded");
  }
  return absl::OkStatus();
}

}  // namespace

// One chunk that the engine compiles for us. `done` and `outcome` are guarded by the loader's mutex.
struct ChunkLoader::Compilation {
  ChunkWork* work = nullptr;
  ChunkMemory::Buffer buffer;
  std::shared_ptr<Engine::Handle> handle;
  bool done = false;
  absl::StatusOr<uint64_t> outcome = uint64_t{0};
};

ChunkLoader::ChunkLoader(Engine* engine, NodeReader* nodes, ChunkMemory* memory, WorkerObserver* observer)
    : engine_(engine), nodes_(nodes), memory_(memory), observer_(observer) {}

absl::StatusOr<ChunkLoadResult> ChunkLoader::Load(const ChunkLoadRequest& request) {
  ChunkLoadResult result;
  std::vector<size_t> item_of_chunk;
  EPIC_ASSIGN_OR_RETURN(std::vector<Item> items, MakeItems(request, &item_of_chunk));
  for (bool complete = items.empty(); !complete;) {
    EPIC_RETURN_IF_ERROR(EndedEarly(request));
    Join(&items);
    const absl::Status led = BringLed(request, &items, &result);
    LandLed(&items);
    EPIC_RETURN_IF_ERROR(led);
    // Only now, with every flight of its own landed, does a request wait for others: so no two wait for each other.
    const steady_clock::time_point start = steady_clock::now();
    EPIC_RETURN_IF_ERROR(FollowOthers(request, &items));
    result.load_us += MicrosecondsSince(start);
    complete = true;
    for (const Item& item : items) complete = complete && item.work.loaded.has_value();
  }
  for (const size_t index : item_of_chunk) {
    result.chunks.push_back(*items[index].work.loaded);
    observer_->OnChunk(result.chunks.back().source);
  }
  return result;
}

absl::StatusOr<std::vector<ChunkLoader::Item>> ChunkLoader::MakeItems(const ChunkLoadRequest& request,
                                                                      std::vector<size_t>* item_of_chunk) const {
  std::vector<Item> items;
  absl::flat_hash_map<ChunkKey, size_t> index_of_key;
  for (const JobChunk* chunk : request.chunks) {
    const auto [found, is_new] = index_of_key.try_emplace(chunk->key, items.size());
    item_of_chunk->push_back(found->second);
    if (!is_new) {
      const JobChunk& known = *items[found->second].work.chunk;
      if (known.token_ids == chunk->token_ids && known.context_token_ids == chunk->context_token_ids) continue;
      return absl::InvalidArgumentError(
          fmt::format("chunk key {} stands for two different lists of token ids in one prompt", chunk->key.Hex()));
    }
    Item item;
    item.work.chunk = chunk;
    item.work.info.shape = engine_->kv_shape();
    item.work.info.model_fingerprint_hex = engine_->fingerprint_hex();
    item.work.info.key = chunk->key;
    item.work.recipe = RecipeBehind(request.recipe, chunk->context_token_ids);
    item.work.info.recipe_id = item.work.recipe.id;
    item.work.info.first_position = item.work.recipe.first_position();
    item.work.info.token_ids = chunk->token_ids;
    item.work.block_bytes = KvBlockBytes(item.work.info);
    items.push_back(std::move(item));
  }
  return items;
}

void ChunkLoader::Join(std::vector<Item>* items) {
  {
    MutexLock lock(mutex_);
    for (Item& item : *items) {
      if (item.work.loaded.has_value()) continue;
      const auto [found, is_new] = flights_.try_emplace(item.work.chunk->key, nullptr);
      if (is_new) found->second = std::make_shared<Flight>();
      item.flight = found->second;
      item.leads = is_new;
    }
  }
  // Looking into the cache comes after taking the lead, so that a chunk which arrived in between is not brought again.
  for (Item& item : *items) {
    if (!item.leads) continue;
    if (ChunkKvPtr kv = memory_->Find(item.work.info)) {
      item.work.loaded = LoadedChunk{std::move(kv), ChunkSource::kWorkerCache, "in this worker's cache"};
    }
  }
}

absl::Status ChunkLoader::BringLed(const ChunkLoadRequest& request, std::vector<Item>* items, ChunkLoadResult* result) {
  std::vector<ChunkWork*> wanted;
  for (Item& item : *items) {
    if (item.leads && item.work.wants_node()) wanted.push_back(&item.work);
  }
  steady_clock::time_point start = steady_clock::now();
  const int64_t node_compile_us = nodes_->Locate(request, wanted);
  const int64_t locate_us = MicrosecondsSince(start);
  result->compile_us += std::min(node_compile_us, locate_us);
  result->lookup_us += locate_us - std::min(node_compile_us, locate_us);
  EPIC_RETURN_IF_ERROR(EndedEarly(request));

  std::erase_if(wanted, [](const ChunkWork* work) { return work->located == nullptr; });
  start = steady_clock::now();
  result->bytes_pulled += nodes_->Read(request, wanted);
  result->load_us += MicrosecondsSince(start);
  EPIC_RETURN_IF_ERROR(EndedEarly(request));

  wanted.clear();
  for (Item& item : *items) {
    if (item.leads && item.work.cause.has_value()) wanted.push_back(&item.work);
  }
  start = steady_clock::now();
  const absl::Status compiled = CompileAll(request, wanted);
  if (!wanted.empty()) result->compile_us += MicrosecondsSince(start);
  return compiled;
}

void ChunkLoader::LandLed(std::vector<Item>* items) {
  MutexLock lock(mutex_);
  for (Item& item : *items) {
    if (!item.leads) continue;
    item.flight->loaded = item.work.loaded;
    item.flight->done = true;
    flights_.erase(item.work.chunk->key);
    item.flight.reset();
    item.leads = false;
  }
  changed_.NotifyAll();
}

absl::Status ChunkLoader::FollowOthers(const ChunkLoadRequest& request, std::vector<Item>* items) {
  MutexLock lock(mutex_);
  for (Item& item : *items) {
    if (item.flight == nullptr) continue;
    while (!item.flight->done) {
      EPIC_RETURN_IF_ERROR(EndedEarly(request));
      if (request.deadline == Deadline::max()) {
        changed_.Wait(mutex_);
      } else {
        changed_.WaitUntil(mutex_, request.deadline);
      }
    }
    item.work.loaded = item.flight->loaded;
    item.flight.reset();
  }
  return absl::OkStatus();
}

absl::Status ChunkLoader::CompileAll(const ChunkLoadRequest& request, std::span<ChunkWork* const> work) {
  std::vector<std::unique_ptr<Compilation>> started;
  absl::Status status;
  for (ChunkWork* one : work) {
    observer_->OnCompileFallback(*one->cause);
    status = StartCompilation(one, &started);
    if (!status.ok()) break;
  }
  if (!status.ok()) {
    for (const auto& compilation : started) compilation->handle->Cancel();
  }
  // The engine writes into our buffers until it has said that it is done, whatever else has happened.
  const absl::Status awaited = AwaitCompilations(request, started);
  EPIC_RETURN_IF_ERROR(status);
  EPIC_RETURN_IF_ERROR(awaited);
  for (const auto& compilation : started) {
    ChunkWork* one = compilation->work;
    EPIC_ASSIGN_OR_RETURN(ChunkKvPtr kv, memory_->Finish(std::move(compilation->buffer), one->info, std::nullopt));
    one->loaded = LoadedChunk{std::move(kv), ChunkSource::kCompiledByWorker, std::move(one->reason)};
    one->cause.reset();
  }
  return absl::OkStatus();
}

absl::Status ChunkLoader::StartCompilation(ChunkWork* work, std::vector<std::unique_ptr<Compilation>>* started) {
  EPIC_ASSIGN_OR_RETURN(ChunkMemory::Buffer buffer, memory_->Reserve(work->block_bytes));
  auto compilation = std::make_unique<Compilation>();
  compilation->work = work;
  compilation->buffer = std::move(buffer);
  CompileRequest compile;
  compile.info = work->info;
  compile.recipe = work->recipe;
  compile.block = compilation->buffer.bytes();
  compile.urgent = true;
  compile.on_done = [this, target = compilation.get()](absl::StatusOr<uint64_t> outcome) {
    MutexLock lock(mutex_);
    target->outcome = std::move(outcome);
    target->done = true;
    changed_.NotifyAll();
  };
  EPIC_ASSIGN_OR_RETURN(compilation->handle, engine_->Compile(std::move(compile)));
  started->push_back(std::move(compilation));
  return absl::OkStatus();
}

absl::Status ChunkLoader::AwaitCompilations(const ChunkLoadRequest& request,
                                            std::span<const std::unique_ptr<Compilation>> started) {
  absl::Status ended;
  for (const auto& compilation : started) {
    while (true) {
      if (ended.ok()) {
        ended = EndedEarly(request);
        if (!ended.ok()) {
          for (const auto& each : started) each->handle->Cancel();
        }
      }
      MutexLock lock(mutex_);
      if (compilation->done) break;
      // Cancelled between the check above and here: look again, Wake's call may have come before this wait.
      if (ended.ok() && !EndedEarly(request).ok()) continue;
      if (!ended.ok() || request.deadline == Deadline::max()) {
        changed_.Wait(mutex_);
      } else {
        changed_.WaitUntil(mutex_, request.deadline);
      }
    }
  }
  EPIC_RETURN_IF_ERROR(ended);
  for (const auto& compilation : started) {
    if (!compilation->outcome.ok()) {
      const JobChunk& chunk = *compilation->work->chunk;
      return absl::Status(compilation->outcome.status().code(),
                          fmt::format("compiling chunk {} of document \"{}\": {}", chunk.chunk_index, chunk.document_id,
                                      std::string(compilation->outcome.status().message())));
    }
  }
  return absl::OkStatus();
}

void ChunkLoader::Wake() {
  MutexLock lock(mutex_);
  changed_.NotifyAll();
}

}  // namespace epic
