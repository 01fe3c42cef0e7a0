// What a worker tells about its work, for metrics. The worker itself knows no metrics library, so that it builds and is
// tested without one.
//
// Methods are called from several threads, the engine's scheduler thread among them: they must be thread-safe, must not
// block and must not call back into the worker. The default of each is to do nothing.
#ifndef EPIC_INFERENCE_WORKER_WORKER_OBSERVER_H_
#define EPIC_INFERENCE_WORKER_WORKER_OBSERVER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "engine/linker.h"
#include "inference_worker/infer_job.h"

namespace epic {

// Why a chunk was compiled by the worker although a cache node should have had it.
enum class FallbackCause {
  kNoHome,       // the request named no node for it
  kAbsent,       // the node neither holds nor compiles it
  kUnreachable,  // the node refused, failed or did not answer
  kSlow,         // the node or the transfer took longer than the worker waits
  kCorrupt,      // the bytes are not the chunk that was asked for
};

// Why a shadow check was given up (shadow_checks.h).
enum class ShadowLoss {
  kQueueFull,    // newer ones took its room
  kExpired,      // the worker was not idle for long enough in time
  kInterrupted,  // it was started as often as it may be, and a request came each time
  kFailed,       // the engine refused it
};

class WorkerObserver {
 public:
  virtual ~WorkerObserver() = default;
  // A request ended. `linker` is what it asked for, LinkerKind of the default where that was not understood.
  virtual void OnRequest(LinkerKind /*linker*/, absl::StatusCode /*code*/) {}
  virtual void OnFirstToken(LinkerKind /*linker*/, int64_t /*ttft_us*/) {}
  virtual void OnUsage(const GenerationStats& /*stats*/) {}
  virtual void OnBytesPulled(int64_t /*bytes*/) {}
  virtual void OnChunk(ChunkSource /*source*/) {}
  virtual void OnCompileFallback(FallbackCause /*cause*/) {}
  // A client stopped reading and its request was ended.
  virtual void OnStreamOverflow() {}
  // A shadow check was made: whether full recompute begins with the token of `linker`, and KL(full || linker) in nats.
  virtual void OnShadowCheck(LinkerKind /*linker*/, bool /*first_token_agrees*/, double /*kl*/) {}
  // A request came while a check ran.
  virtual void OnShadowInterrupted() {}
  virtual void OnShadowLost(ShadowLoss /*loss*/) {}
};

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_WORKER_OBSERVER_H_
