// What runs a model's layers: the CPU today, CUDA behind the same interface later.
//
// A batch is rows of any number of sequences, each at its true position. A row's result depends on that row's inputs
// and its own sequence's KV alone. Not thread-safe: the scheduler is the only caller.
#ifndef EPIC_ENGINE_BACKEND_H_
#define EPIC_ENGINE_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/files/model_config.h"
#include "engine/private_kv.h"

namespace epic {

// Rows [row_begin, row_begin + row_count) of a batch, which belong to one sequence, positions ascending. Their
// places in the sequence's private rows exist (PrivateRows::Append) before the batch runs.
struct RowGroup {
  SequenceKv* kv = nullptr;
  int32_t row_begin = 0;
  int32_t row_count = 0;
};

struct RowBatch {
  std::vector<RowGroup> groups;
  std::vector<int32_t> positions;  // one a row
  // Rows [0, decode_rows) are next tokens of sequences that decode. Their products read the weights as the file has
  // them, where it is quantised: one row's speed is bound by the bytes of the weights. All other rows read bf16.
  int32_t decode_rows = 0;
  int32_t rows() const { return static_cast<int32_t>(positions.size()); }
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual const ModelConfig& config() const = 0;
  virtual KvShape kv_shape() const = 0;
  virtual size_t weight_bytes() const = 0;

  // hidden[rows, width] = the embeddings of `token_ids`. REQUIRES: every id is in the vocabulary.
  virtual void Embed(std::span<const int32_t> token_ids, float* hidden) = 0;

  // Runs hidden[rows, width] through layers [layer_begin, layer_end) in place; writes the rows' K and V into their
  // sequences. `first_layer_kv_written`: those of layer_begin are there already (ProjectKv), only attend.
  virtual void RunLayers(const RowBatch& batch, int32_t layer_begin, int32_t layer_end, bool first_layer_kv_written,
                         float* hidden) = 0;

  // Computes and writes K and V of one layer for these rows, and nothing else (CacheBlend's look before it chooses).
  virtual void ProjectKv(const RowBatch& batch, int32_t layer, const float* hidden) = 0;

  // logits[rows, vocab_size] of hidden[rows, width]: final norm and output matrix.
  virtual void Logits(int32_t rows, const float* hidden, float* logits) = 0;
};

}  // namespace epic

#endif  // EPIC_ENGINE_BACKEND_H_
