// A weight matrix as the CPU backend keeps it, in up to two forms.
//
// bf16 panels serve rows that come many at a time (prefill, link, compile): there the arithmetic is the limit, and
// panels cost the least of it. Where the file is quantised in blocks that the kernels read, the file's own bytes are
// kept as well, row by row: a row that comes alone (the next token of a sequence) is bound by the bytes of the weights,
// and blocks have a quarter to a half of bf16's. Where the file is not quantised, or in blocks without a kernel, panels
// serve both.
//
// Filled once by Load, then immutable and safe to read from any thread.
#ifndef EPIC_ENGINE_CPU_WEIGHT_MATRIX_H_
#define EPIC_ENGINE_CPU_WEIGHT_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/cpu/block_matrix.h"
#include "engine/cpu/packed_matrix.h"
#include "engine/cpu/thread_pool.h"
#include "engine/cpu/weight_memory.h"
#include "engine/files/model_file.h"

namespace epic {

// A tensor whose rows are outputs of a matrix; several stand one below the other (q, k and v in one).
struct WeightSource {
  std::string tensor;  // canonical name
  // Rows of each head are to be brought from adjacent rotation pairs to halves, where the file has adjacent ones.
  bool is_rotated = false;
};

// Which rows are multiplied with the matrix.
enum class WeightUse {
  kAllRows,  // those of prefill and those of decoding
  kFewRows,  // never many at a time (the output matrix): blocks alone where there are blocks
};

class WeightMatrix {
 public:
  // Rows of one tensor in the file's own blocks.
  struct BlockPart {
    BlockFormat format = BlockFormat::kQ4_0;
    int first_output = 0;
    int outputs = 0;
    WeightArray<std::byte> bytes;
    const std::byte* Row(int row, int inner) const {
      return bytes.data() + static_cast<size_t>(row) * BlockRowBytes(format, inner);
    }
  };

  // Reads the tensors of `sources` from the file into `memory`, which must outlive the matrix. The file's errors.
  absl::Status Load(const ModelFile& file, std::span<const WeightSource> sources, WeightUse use, WeightMemory& memory,
                    ThreadPool& pool);
  // What bytes() of a matrix of these sources will be, each array rounded up to kWeightAlignmentBytes.
  static absl::StatusOr<uint64_t> BytesOf(const ModelFile& file, std::span<const WeightSource> sources, WeightUse use);

  int outputs() const { return outputs_; }
  int inner() const { return inner_; }
  // The columns that a product writes: whole panels.
  int padded_outputs() const { return CeilDivide(outputs_, kPanelColumns) * kPanelColumns; }
  bool has_panels() const { return panels_.panels() > 0; }
  const PackedMatrix& panels() const { return panels_; }  // REQUIRES: has_panels()
  bool has_blocks() const { return !blocks_.empty(); }
  const std::vector<BlockPart>& blocks() const { return blocks_; }
  uint64_t bytes() const;

 private:
  static constexpr int CeilDivide(int a, int b) { return (a + b - 1) / b; }
  void LoadPart(const TensorView& tensor, int first_output, int permuted_head_dim, BlockPart* part, ThreadPool& pool);

  int outputs_ = 0;
  int inner_ = 0;
  PackedMatrix panels_;
  std::vector<BlockPart> blocks_;  // in the order of their outputs
};

// Where row `row` of q or k, matrix or bias, belongs whose heads are stored with adjacent rotation pairs.
inline int HalfSplitRow(int row, int head_dim) {
  const int inside = row % head_dim;
  return row - inside + inside / 2 + (inside % 2) * (head_dim / 2);
}

// The blocks that tensors of this type have, where a kernel reads them.
std::optional<BlockFormat> BlockFormatOf(TensorType type);

}  // namespace epic

#endif  // EPIC_ENGINE_CPU_WEIGHT_MATRIX_H_
