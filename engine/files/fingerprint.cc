#include "engine/files/fingerprint.h"

#include <cstring>
#include <functional>
#include <optional>
#include <utility>

#include "core/sha256.h"
#include "core/status_macros.h"
#include "engine/files/file_error.h"
#include "engine/files/fingerprint_cache.h"
#include "engine/files/rotation.h"
#include "engine/files/tensor_layout.h"

namespace epic {

namespace {

// Changes whenever the same weights would give other keys and values: what the weights are held in, and what the
// arithmetic is done in.
constexpr std::string_view kComputeClass = "bf16-weights-f32-math";

std::string Sha256HexOfText(std::string_view text) {
  return Sha256Hex(std::as_bytes(std::span(text.data(), text.size())));
}

// Length before content, so that no two lists of strings give the same text.
void AppendField(std::string_view field, std::string& text) {
  text += fmt::format("{}:", field.size());
  text += field;
}

// The index of the file that holds the tensor's bytes.
size_t FileOf(const LoadedModel& model, const TensorView& tensor) {
  for (size_t i = 0; i < model.weights.size(); ++i) {
    const std::span<const std::byte> bytes = model.weights[i].bytes();
    // Compared as std::less does, which orders pointers into different mappings too.
    if (!std::less<>()(tensor.bytes.data(), bytes.data()) &&
        std::less<>()(tensor.bytes.data(), bytes.data() + bytes.size())) {
      return i;
    }
  }
  return 0;
}

// Digests by file, of the tensors that the model uses; those in `known` are taken from there.
std::vector<FileDigests> DigestsOf(const LoadedModel& model, std::span<const std::optional<TensorDigests>> known) {
  std::vector<FileDigests> files;
  for (const MappedFile& file : model.weights) files.push_back({.identity = file.identity(), .digests = {}});
  for (const auto& [name, tensor] : model.tensors) {
    const size_t file = FileOf(model, tensor);
    const std::string* remembered = nullptr;
    if (file < known.size() && known[file].has_value()) {
      const auto found = known[file]->find(name);
      if (found != known[file]->end()) remembered = &found->second;
    }
    files[file].digests.emplace(name, remembered != nullptr ? *remembered : Sha256Hex(tensor.bytes));
  }
  return files;
}

}  // namespace

std::string TokenizerDigest(const TokenizerSpec& tokenizer) {
  std::string text;
  AppendField(tokenizer.model, text);
  AppendField(tokenizer.pre_tokenizer, text);
  text += fmt::format("tokens {}\n", tokenizer.tokens.size());
  for (size_t id = 0; id < tokenizer.tokens.size(); ++id) {
    text += fmt::format("{} ", static_cast<int>(tokenizer.kinds[id]));
    AppendField(tokenizer.tokens[id], text);
  }
  text += fmt::format("merges {}\n", tokenizer.merges.size());
  for (const std::string& merge : tokenizer.merges) AppendField(merge, text);
  text += fmt::format("nfc {} ignore_merges {} space_prefix {} unless_space {} decode_strips_space {}\n",
                      tokenizer.normalizes_nfc, tokenizer.ignore_merges, static_cast<int>(tokenizer.space_prefix),
                      tokenizer.space_prefix_unless_space, tokenizer.decode_strips_space);
  text += fmt::format("scores {}\n", tokenizer.scores.size());
  for (const float score : tokenizer.scores) text += fmt::format("{:a} ", score);
  for (const auto& [id, rule] : tokenizer.added_rules) {
    text += fmt::format("added {} {} {} {}\n", id, rule.strips_left, rule.strips_right, rule.in_normalized_text);
  }
  return Sha256HexOfText(text);
}

std::string FingerprintOf(const LoadedModel& model, const TensorDigests& tensor_digests) {
  const ModelConfig& config = model.config;
  std::string text = "epic model fingerprint 2\n";
  text += fmt::format(
      "architecture {}\nlayers {}\nwidth {}\nheads {}\nkv_heads {}\nhead_dim {}\nffn_width {}\nvocab_size {}\n",
      config.architecture, config.layers, config.width, config.heads, config.kv_heads, config.head_dim,
      config.ffn_width, config.vocab_size);
  text += fmt::format("rms_epsilon {:a}\nrotation_pairs {}\ntied_embeddings {}\ncompute {}\ntokenizer {}\n",
                      config.rms_epsilon, model.rotation_pairs_are_adjacent ? "adjacent" : "half-split",
                      config.tied_embeddings, kComputeClass, TokenizerDigest(model.tokenizer));
  // However the file describes the rotation, these numbers are what it does.
  text += fmt::format("rotation_scale {:a}\nrotation", config.rope_scaling.attention_scale);
  for (const double frequency : RotationFrequencies(config)) text += fmt::format(" {:a}", frequency);
  text += "\n";
  for (const auto& [name, tensor] : model.tensors) {
    const auto digest = tensor_digests.find(name);
    text += fmt::format("tensor {} {} {} {}\n", name, TensorTypeName(tensor.type), ShapeText(tensor.shape),
                        digest == tensor_digests.end() ? "" : digest->second);
  }
  return Sha256HexOfText(text);
}

absl::StatusOr<std::string> FingerprintWithCache(const LoadedModel& model, const std::string& cache_dir) {
  std::vector<FileIdentity> identities;
  for (const MappedFile& file : model.weights) identities.push_back(file.identity());
  std::vector<std::optional<TensorDigests>> remembered(identities.size());
  if (!cache_dir.empty()) remembered = RememberedDigests(cache_dir, identities);
  const std::vector<FileDigests> files = DigestsOf(model, remembered);
  TensorDigests digests;
  std::vector<FileDigests> read;  // those that memory did not hold in full
  for (size_t i = 0; i < files.size(); ++i) {
    digests.insert(files[i].digests.begin(), files[i].digests.end());
    if (remembered[i] != files[i].digests) read.push_back(files[i]);
  }
  for (const FileDigests& file : read) {
    EPIC_ASSIGN_OR_RETURN(const FileIdentity now, IdentifyFile(file.identity.path));
    if (now == file.identity) continue;
    return absl::AbortedError(
        fmt::format("{}: the file changed after it was opened (it had {} bytes and has {}); open it again",
                    file.identity.path, file.identity.size_bytes, now.size_bytes));
  }
  // Remembering only saves time: a folder that cannot be written to is no reason to refuse the model.
  if (!cache_dir.empty() && !read.empty()) RememberDigests(cache_dir, read).IgnoreError();
  return FingerprintOf(model, digests);
}

}  // namespace epic
