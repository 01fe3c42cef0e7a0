#include "engine/files/fingerprint.h"

#include <openssl/evp.h>

#include <array>
#include <cstring>
#include <optional>
#include <utility>

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

TensorDigests DigestsOf(const LoadedModel& model, const TensorDigests& known) {
  TensorDigests digests;
  for (const auto& [name, tensor] : model.tensors) {
    const auto found = known.find(name);
    digests.emplace(name, found != known.end() ? found->second : Sha256Hex(tensor.bytes));
  }
  return digests;
}

}  // namespace

std::string Sha256Hex(std::span<const std::byte> bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int digest_bytes = 0;
  EVP_Digest(bytes.data(), bytes.size(), digest.data(), &digest_bytes, EVP_sha256(), nullptr);
  std::string text;
  for (unsigned int i = 0; i < digest_bytes; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

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
  const FileIdentity& identity = model.weights.identity();
  std::optional<TensorDigests> remembered;
  if (!cache_dir.empty()) remembered = RememberedDigests(cache_dir, identity);
  const TensorDigests digests = DigestsOf(model, remembered.value_or(TensorDigests()));
  if (remembered == digests) return FingerprintOf(model, digests);

  EPIC_ASSIGN_OR_RETURN(const FileIdentity now, IdentifyFile(identity.path));
  if (now != identity) {
    return absl::AbortedError(
        fmt::format("{}: the file changed after it was opened (it had {} bytes and has {}); open it again",
                    identity.path, identity.size_bytes, now.size_bytes));
  }
  // Remembering only saves time: a folder that cannot be written to is no reason to refuse the model.
  if (!cache_dir.empty()) RememberDigests(cache_dir, identity, digests).IgnoreError();
  return FingerprintOf(model, digests);
}

}  // namespace epic
