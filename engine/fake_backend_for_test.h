// A backend without a model, for tests of the scheduler's states: it runs nothing, writes down what it was asked to
// run, and can be stopped before a pass. Its logits always choose the same token.
#ifndef EPIC_ENGINE_FAKE_BACKEND_FOR_TEST_H_
#define EPIC_ENGINE_FAKE_BACKEND_FOR_TEST_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/sync.h"
#include "engine/backend.h"

namespace epic {

class FakeBackend : public Backend {
 public:
  static constexpr int32_t kLayers = 8;

  // One call of RunLayers. Layers [0, kLayers) are a batch of the scheduler's, others one of CacheBlend's own passes.
  struct Pass {
    int32_t layer_begin = 0;
    int32_t layer_end = 0;
    int32_t rows = 0;
    int32_t decode_rows = 0;
    std::vector<const SequenceKv*> sequences;
    std::vector<int32_t> first_positions;  // of each sequence's rows
    std::vector<int32_t> row_counts;
    size_t pages = 0;  // that its sequences hold

    bool is_batch() const { return layer_begin == 0 && layer_end == kLayers; }
  };

  FakeBackend() {
    config_.layers = kLayers;
    config_.width = 4;
    config_.heads = config_.kv_heads = 1;
    config_.head_dim = 32;
    config_.vocab_size = 64;
    config_.context_length = 8192;
  }

  const ModelConfig& config() const override { return config_; }
  KvShape kv_shape() const override { return {config_.layers, config_.kv_heads, config_.head_dim, KvDtype::kBf16}; }
  size_t weight_bytes() const override { return 1; }
  size_t page_bytes() const { return KvPage::Bytes(kv_shape(), 0, kLayers); }

  void Embed(std::span<const int32_t> token_ids, float* hidden) override {
    std::fill_n(hidden, token_ids.size() * config_.width, 0.0f);
  }
  void RunLayers(const RowBatch& batch, int32_t layer_begin, int32_t layer_end, bool, float*) override {
    Pass pass{layer_begin, layer_end, batch.rows(), batch.decode_rows, {}, {}, {}, 0};
    for (const RowGroup& group : batch.groups) {
      pass.sequences.push_back(group.kv);
      pass.first_positions.push_back(batch.positions[group.row_begin]);
      pass.row_counts.push_back(group.row_count);
      for (const KvPlan& plan : group.kv->plans) pass.pages += plan.rows.pages().size();
    }
    MutexLock lock(mutex_);
    ++arrived_;
    changed_.NotifyAll();
    while (held_ && permits_ == 0) changed_.Wait(mutex_);
    if (held_) --permits_;
    passes_.push_back(std::move(pass));
  }
  void ProjectKv(const RowBatch&, int32_t, const float*) override {}
  void Logits(int32_t rows, const float*, float* logits) override {
    std::fill_n(logits, static_cast<size_t>(rows) * config_.vocab_size, 0.0f);
    for (int32_t row = 0; row < rows; ++row) logits[row * config_.vocab_size + 5] = 1;
  }

  // From now on every pass waits for a permit.
  void Hold() {
    MutexLock lock(mutex_);
    held_ = true;
  }
  void Permit(size_t passes) {
    MutexLock lock(mutex_);
    permits_ += passes;
    changed_.NotifyAll();
  }
  void Release() {
    MutexLock lock(mutex_);
    held_ = false;
    changed_.NotifyAll();
  }
  // Until a pass stands before the hold, with no permit left. REQUIRES: held, and something to run.
  void WaitUntilHeld() {
    MutexLock lock(mutex_);
    while (permits_ > 0 || arrived_ == passes_.size()) changed_.Wait(mutex_);
  }
  // Finished ones.
  std::vector<Pass> passes() {
    MutexLock lock(mutex_);
    return passes_;
  }

 private:
  ModelConfig config_;
  Mutex mutex_;
  CondVar changed_;
  bool held_ EPIC_GUARDED_BY(mutex_) = false;
  size_t permits_ EPIC_GUARDED_BY(mutex_) = 0;
  size_t arrived_ EPIC_GUARDED_BY(mutex_) = 0;
  std::vector<Pass> passes_ EPIC_GUARDED_BY(mutex_);
};

}  // namespace epic

#endif  // EPIC_ENGINE_FAKE_BACKEND_FOR_TEST_H_
