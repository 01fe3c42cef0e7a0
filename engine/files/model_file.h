// A model on disk, read but not yet computed with: configuration, tensors (mapped, not copied), tokenizer and template.
//
// OpenModelFile takes a GGUF file (of a split model any part), or a folder that holds `config.json`, `tokenizer.json`,
// optionally `generation_config.json`, `tokenizer_config.json` and `chat_template.jinja`, and the weights:
// `model.safetensors`, or several files with `model.safetensors.index.json`. Any of the weights' files stands for its
// folder. All formats are parsed as hostile:
// every length, offset, count and string is checked against the file before use. What cannot be run exactly is refused
// with a sentence that names the reason (INVALID_ARGUMENT for a broken file, UNIMPLEMENTED for one that we do not run,
// NOT_FOUND for one that is not there, be it one part of several).
#ifndef EPIC_ENGINE_FILES_MODEL_FILE_H_
#define EPIC_ENGINE_FILES_MODEL_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/files/model_config.h"
#include "engine/text/tokenizer_spec.h"

namespace epic {

enum class TensorType { kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ2_K, kQ3_K, kQ4_K, kQ5_K, kQ6_K };

const char* TensorTypeName(TensorType type);

// A view of one tensor in the mapped file, valid while the ModelFile lives. Row-major: shape[0] is the slowest
// dimension (for a matrix: [out, in]).
struct TensorView {
  std::string name;  // canonical name, see ModelFile::Tensor
  TensorType type = TensorType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;

  int64_t ElementCount() const;
  int64_t RowCount() const;  // ElementCount() / last dimension
  int64_t RowLength() const { return shape.empty() ? 0 : shape.back(); }
};

// Converts rows [row_begin, row_end) of `tensor` to float, exactly as gguf.quants.dequantize does.
// REQUIRES: 0 <= row_begin <= row_end <= tensor.RowCount(), out.size() == (row_end - row_begin) * RowLength().
void DequantizeRows(const TensorView& tensor, int64_t row_begin, int64_t row_end, std::span<float> out);

class ModelFile {
 public:
  virtual ~ModelFile() = default;

  virtual const ModelConfig& config() const = 0;
  virtual const TokenizerSpec& tokenizer() const = 0;

  // Tensors under canonical names: "embedding", "final_norm", "output" (absent where tied), and for layer i
  // "layers.<i>." + one of "attention_norm", "q", "k", "v", "o", "ffn_norm", "gate", "up", "down", and where the
  // configuration has them "q_bias", "k_bias", "v_bias" and "q_norm", "k_norm" (one weight a dimension of a head).
  // All shapes are checked against config() when the file is opened. NOT_FOUND names the missing tensor.
  virtual absl::StatusOr<const TensorView*> Tensor(const std::string& canonical_name) const = 0;
  virtual const std::vector<std::string>& TensorNames() const = 0;

  // True where the file stores "q" and "k" with adjacent rotation pairs (GGUF `llama`): the loader of the weights must
  // bring the rows of each head to half-split order (row 2i of a head -> row i, row 2i+1 -> row i + head_dim/2).
  virtual bool RotationPairsAreAdjacent() const = 0;

  // Takes the file's pages that were read so far out of this process's memory. Views stay valid: what is touched again
  // is read again. Call it once the weights have been copied, or the file stays resident beside the copy.
  virtual void ReleasePages() const = 0;

  // SHA-256 over architecture, rotation, sizes and every tensor's digest, as 64 hexadecimal digits. Takes one pass over
  // the file the first time; remembered in `<cache_dir>/fingerprints.json` by file identity (path, size, modification
  // time) so that a restart does not read it again. An empty cache_dir remembers nothing. The fingerprint depends
  // neither on the order of the format's metadata nor on how many files the weights lie in.
  virtual absl::StatusOr<std::string> Fingerprint(const std::string& cache_dir) const = 0;
};

absl::StatusOr<std::unique_ptr<ModelFile>> OpenModelFile(const std::string& path);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_MODEL_FILE_H_
