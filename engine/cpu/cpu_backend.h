// The CPU backend: weights packed at load (weight_matrix.h says in which forms), float32 sums, one pool of threads.
#ifndef EPIC_ENGINE_CPU_CPU_BACKEND_H_
#define EPIC_ENGINE_CPU_CPU_BACKEND_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/segment_attention.h"
#include "engine/cpu/thread_pool.h"
#include "engine/cpu/weight_matrix.h"
#include "engine/files/model_file.h"

namespace epic {

class CpuBackend : public Backend {
 public:
  // Reads and packs the weights. `file` must outlive the backend: embeddings are read from the mapped file row by row.
  // UNIMPLEMENTED where the processor lacks AVX2; the file's own errors otherwise.
  static absl::StatusOr<std::unique_ptr<CpuBackend>> Create(const ModelFile& file, int threads);

  // What weight_bytes() of this model will be: every matrix in the forms that it is kept in. Of the mapped file only
  // the embedding's rows that prompts name are read again after loading, and only where no copy of the matrix has them.
  static absl::StatusOr<uint64_t> WeightBytesOf(const ModelFile& file);

  const ModelConfig& config() const override { return config_; }
  KvShape kv_shape() const override;
  size_t weight_bytes() const override { return weight_bytes_; }
  const char* instruction_set() const { return kernels_->name; }

  void Embed(std::span<const int32_t> token_ids, float* hidden) override;
  void RunLayers(const RowBatch& batch, int32_t layer_begin, int32_t layer_end, bool first_layer_kv_written,
                 float* hidden) override;
  void ProjectKv(const RowBatch& batch, int32_t layer, const float* hidden) override;
  void Logits(int32_t rows, const float* hidden, float* logits) override;

 private:
  struct Layer {
    std::vector<float> attention_norm;
    std::vector<float> ffn_norm;
    WeightMatrix qkv;             // [q | k | v] outputs
    std::vector<float> qkv_bias;  // one an output of qkv, or empty
    std::vector<float> q_norm;    // one a dimension of a head, or empty
    std::vector<float> k_norm;
    WeightMatrix output;   // attention output
    WeightMatrix gate_up;  // [gate | up] outputs
    WeightMatrix down;
  };
  // Rows of a pass: the first `decode` of them are multiplied with a matrix's blocks where it has them.
  struct Rows {
    int count = 0;
    int decode = 0;
  };

  CpuBackend(const ModelFile& file, const CpuKernels* kernels, int threads);
  absl::Status LoadWeights(const ModelFile& file);
  absl::Status LoadLayer(const ModelFile& file, int index);
  absl::Status LoadVector(const ModelFile& file, const std::string& name, std::vector<float>& out);
  absl::Status LoadQkvBias(const ModelFile& file, const std::string& prefix, Layer& layer);
  void ExtendRotationTable(int32_t positions);

  void Normalise(int rows, const float* hidden, const std::vector<float>& weight, float* out);
  void Multiply(Rows rows, const float* input, size_t input_stride, const WeightMatrix& matrix, float* output,
                size_t output_stride, bool accumulate);
  BlockActivations RoundRowsForBlocks(int rows, const float* input, size_t input_stride, int inner);
  void RoundRows(int begin, int end, const float* input, size_t input_stride, int inner, size_t rounded_stride);
  void ProjectQkv(Rows rows, const Layer& layer, const float* hidden);
  void WriteKv(const RowBatch& batch, int32_t layer);
  void WriteRow(KvPlan& plan, int32_t layer, int32_t position, const float* keys, const float* values);
  void Attend(int32_t layer);
  void FeedForward(Rows rows, const Layer& layer, float* hidden);
  void ReserveRows(int rows);

  ModelConfig config_;
  const CpuKernels* kernels_;
  ThreadPool pool_;
  SegmentAttention attention_;
  TensorView embedding_;                         // of the mapped file, or of the copy of a matrix that is tied to it
  std::unique_ptr<WeightMemory> weight_memory_;  // of all matrices
  std::vector<Layer> layers_;
  std::vector<float> final_norm_;
  WeightMatrix output_;
  std::vector<double> frequencies_;  // [head_dim / 2]
  std::vector<float> rope_cos_;      // [position][head_dim / 2], as far as any batch has reached
  std::vector<float> rope_sin_;
  size_t weight_bytes_ = 0;

  // Scratch of one pass, grown to the largest batch seen.
  std::vector<float> normed_;          // [rows, width]
  std::vector<float> qkv_;             // [rows, qkv outputs]
  std::vector<KvPlan*> row_plans_;     // of each row, at the layer at hand
  std::vector<float> attended_;        // [rows, heads * head_dim]
  std::vector<float> gate_up_;         // [rows, gate_up outputs]
  std::vector<float> activated_;       // [rows, ffn_width]
  std::vector<int16_t> block_values_;  // [decode rows, inner], with a scale and a sum for each group
  std::vector<float> block_scales_;
  std::vector<float> block_sums_;
  std::vector<uint16_t> rounded_;  // [rows, inner of the largest product], where the kernels multiply bf16
};

}  // namespace epic

#endif  // EPIC_ENGINE_CPU_CPU_BACKEND_H_
