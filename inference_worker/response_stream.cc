#include "inference_worker/response_stream.h"

#include <limits>
#include <utility>

namespace epic {

size_t ResponseStream::Bytes(const GeneratedToken& token) {
  return sizeof(token) + token.text.size() + token.top.size() * sizeof(token.top[0]);
}

bool ResponseStream::Push(GeneratedToken token) {
  {
    MutexLock lock(mutex_);
    if (overflowed_) return false;
    const size_t bytes = Bytes(token);
    if (!tokens_.empty() && bytes_ + bytes > bytes_max_) {
      // What waits is of no use without what would have followed: free it now rather than when the client goes.
      overflowed_ = true;
      tokens_.clear();
      bytes_ = 0;
      return false;
    }
    bytes_ += bytes;
    tokens_.push_back(std::move(token));
    changed_.NotifyAll();
  }
  if (on_ready_) on_ready_();
  return true;
}

void ResponseStream::Close(absl::Status status, JobFinal final) {
  {
    MutexLock lock(mutex_);
    StreamBatch end;
    end.ended = true;
    end.status = std::move(status);
    end.final = std::move(final);
    end_ = std::move(end);
    changed_.NotifyAll();
  }
  if (on_ready_) on_ready_();
}

std::optional<StreamBatch> ResponseStream::Take(size_t batch_bytes_max) {
  if (tokens_.empty()) {
    if (!end_.has_value() || end_read_) return std::nullopt;
    end_read_ = true;
    return std::exchange(end_, std::nullopt);
  }
  StreamBatch batch;
  size_t batch_bytes = 0;
  while (!tokens_.empty() && (batch.tokens.empty() || batch_bytes + Bytes(tokens_.front()) <= batch_bytes_max)) {
    const size_t bytes = Bytes(tokens_.front());
    batch_bytes += bytes;
    bytes_ -= bytes;
    batch.tokens.push_back(std::move(tokens_.front()));
    tokens_.pop_front();
  }
  return batch;
}

std::optional<StreamBatch> ResponseStream::TryNext(size_t batch_bytes_max) {
  MutexLock lock(mutex_);
  return Take(batch_bytes_max);
}

StreamBatch ResponseStream::Next(std::chrono::steady_clock::time_point deadline) {
  MutexLock lock(mutex_);
  while (true) {
    if (std::optional<StreamBatch> batch = Take(std::numeric_limits<size_t>::max())) return *std::move(batch);
    if (deadline == std::chrono::steady_clock::time_point::max()) {
      changed_.Wait(mutex_);
    } else if (!changed_.WaitUntil(mutex_, deadline)) {
      StreamBatch late;
      late.ended = true;
      late.status = absl::DeadlineExceededError("nothing arrived on the stream before the deadline");
      return late;
    }
  }
}

bool ResponseStream::overflowed() const {
  MutexLock lock(mutex_);
  return overflowed_;
}

}  // namespace epic
