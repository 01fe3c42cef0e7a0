// The bounded queue between the engine, which never waits, and a client, which may read slowly or not at all.
//
// The engine's scheduler thread pushes tokens; one reader takes them. Push never blocks: when more than `bytes_max`
// wait to be read the stream overflows, which is for good, drops what waits, and is for the owner to turn into a
// cancellation. Close comes once, last. Thread-safe; the ready callback runs on the pushing thread without a lock held.
#ifndef EPIC_INFERENCE_WORKER_RESPONSE_STREAM_H_
#define EPIC_INFERENCE_WORKER_RESPONSE_STREAM_H_

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "core/sync.h"
#include "engine/engine.h"
#include "inference_worker/infer_job.h"

namespace epic {

// What a reader gets in one go: tokens, or the end.
struct StreamBatch {
  std::vector<GeneratedToken> tokens;  // not empty unless `ended`
  bool ended = false;
  absl::Status status;  // of an end: the job's outcome
  JobFinal final;       // of an end with OK
};

class ResponseStream {
 public:
  // `on_ready`, where set, is called after each Push and after Close. It must not block.
  ResponseStream(size_t bytes_max, std::function<void()> on_ready)
      : bytes_max_(bytes_max), on_ready_(std::move(on_ready)) {}

  // False when the stream has overflowed, now or before. One token always fits into an empty stream.
  [[nodiscard]] bool Push(GeneratedToken token);
  // Ends the stream: what was pushed is read first. REQUIRES: called once; no Push afterwards.
  void Close(absl::Status status, JobFinal final);

  // Takes what waits, up to about `batch_bytes_max`; nullopt where nothing does. After the end: nullopt.
  std::optional<StreamBatch> TryNext(size_t batch_bytes_max);
  // Waits for it. DEADLINE_EXCEEDED as an ended batch where nothing came. REQUIRES: the end was not read yet.
  StreamBatch Next(std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max());

  bool overflowed() const;

 private:
  static size_t Bytes(const GeneratedToken& token);
  std::optional<StreamBatch> Take(size_t batch_bytes_max) EPIC_REQUIRES(mutex_);

  const size_t bytes_max_;
  const std::function<void()> on_ready_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<GeneratedToken> tokens_ EPIC_GUARDED_BY(mutex_);
  size_t bytes_ EPIC_GUARDED_BY(mutex_) = 0;
  bool overflowed_ EPIC_GUARDED_BY(mutex_) = false;
  bool end_read_ EPIC_GUARDED_BY(mutex_) = false;
  std::optional<StreamBatch> end_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_RESPONSE_STREAM_H_
