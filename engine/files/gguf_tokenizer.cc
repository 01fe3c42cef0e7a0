#include <cstring>
#include <limits>
#include <utility>

#include "core/status_macros.h"
#include "engine/files/file_error.h"
#include "engine/files/gguf_model.h"
#include "engine/text/pre_tokenizer.h"

namespace epic {

namespace {

absl::StatusOr<TokenKind> KindFromStored(const GgufFile& file, size_t id, int64_t stored) {
  switch (stored) {
    case 1:
      return TokenKind::kNormal;
    case 2:
      return TokenKind::kUnknown;
    case 3:
      return TokenKind::kControl;
    case 4:
      return TokenKind::kUserDefined;
    case 5:
      return TokenKind::kUnused;
    case 6:
      return TokenKind::kByte;
    default:
      return BrokenFile(file.path, "tokenizer.ggml.token_type of token {} is {}, expected 1 to 6", id, stored);
  }
}

absl::StatusOr<std::optional<int32_t>> TokenId(const GgufFile& file, std::string_view key) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<uint64_t> id, file.Unsigned(key));
  if (!id.has_value()) return std::nullopt;
  if (*id > static_cast<uint64_t>(std::numeric_limits<int32_t>::max())) {
    return BrokenFile(file.path, "key {} is {}, which is no token id", Quoted(key), *id);
  }
  return static_cast<int32_t>(*id);
}

absl::Status ReadTokens(const GgufFile& file, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const std::vector<std::string_view>* tokens, file.Strings("tokenizer.ggml.tokens"));
  if (tokens == nullptr) return BrokenFile(file.path, "key \"tokenizer.ggml.tokens\" is missing");
  if (tokens->size() > static_cast<size_t>(kVocabularyMax)) {
    return BrokenFile(file.path, "tokenizer.ggml.tokens has {} tokens, at most {} are allowed", tokens->size(),
                      kVocabularyMax);
  }
  spec.tokens.assign(tokens->begin(), tokens->end());
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::vector<int64_t>> types, file.Integers("tokenizer.ggml.token_type"));
  if (!types.has_value()) {
    spec.kinds.assign(spec.tokens.size(), TokenKind::kNormal);
  } else if (types->size() != spec.tokens.size()) {
    return BrokenFile(file.path, "tokenizer.ggml.token_type has {} entries, expected one for each of {} tokens",
                      types->size(), spec.tokens.size());
  } else {
    for (size_t id = 0; id < types->size(); ++id) {
      EPIC_ASSIGN_OR_RETURN(const TokenKind kind, KindFromStored(file, id, (*types)[id]));
      spec.kinds.push_back(kind);
    }
  }
  return absl::OkStatus();
}

absl::Status ReadScores(const GgufFile& file, TokenizerSpec& spec) {
  constexpr std::string_view kKey = "tokenizer.ggml.scores";
  const GgufValue* value = file.Find(kKey);
  if (value == nullptr) {
    return BrokenFile(file.path, "neither \"tokenizer.ggml.merges\" nor {} is there", Quoted(kKey));
  }
  const auto* scores = std::get_if<GgufArray>(&value->content);
  if (scores == nullptr || scores->element_type != GgufValueType::kFloat32) {
    return BrokenFile(file.path, "key {} has type {}, expected an array of float32", Quoted(kKey),
                      GgufValueTypeName(value->type));
  }
  if (scores->count != spec.tokens.size()) {
    return BrokenFile(file.path, "{} has {} entries, expected one for each of {} tokens", Quoted(kKey), scores->count,
                      spec.tokens.size());
  }
  spec.scores.resize(scores->count);
  std::memcpy(spec.scores.data(), scores->bytes.data(), scores->count * sizeof(float));
  return absl::OkStatus();
}

absl::Status ReadMerges(const GgufFile& file, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const std::vector<std::string_view>* merges, file.Strings("tokenizer.ggml.merges"));
  if (merges != nullptr && (spec.model == "bpe" || !merges->empty())) {
    spec.merges.assign(merges->begin(), merges->end());
    return absl::OkStatus();
  }
  if (spec.model == "spm") return ReadScores(file, spec);
  return BrokenFile(file.path, "key \"tokenizer.ggml.merges\" is missing");
}

// What the name of a byte-level pre-tokenizer stands for beside the way of splitting: GGUF has no keys for it. Returns
// whether BOS is added where the file does not say.
absl::StatusOr<bool> ReadByteLevel(const GgufFile& file, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string_view> name, file.String("tokenizer.ggml.pre"));
  if (!name.has_value()) {
    return NotRunHere(file.path,
                      "key \"tokenizer.ggml.pre\" is missing, so that the way of splitting text is not known");
  }
  const std::optional<PreTokenizer> pre_tokenizer = PreTokenizerByName(*name);
  if (!pre_tokenizer.has_value()) {
    return NotRunHere(file.path, "the pre-tokenizer (tokenizer.ggml.pre) is {}; {} are run", Quoted(*name),
                      kPreTokenizerNames);
  }
  spec.pre_tokenizer = std::string(*name);
  spec.normalizes_nfc = pre_tokenizer == PreTokenizer::kQwen2;
  spec.ignore_merges = pre_tokenizer == PreTokenizer::kLlama3 || pre_tokenizer == PreTokenizer::kTekken;
  return spec.ignore_merges;
}

absl::Status ReadSentencePiece(const GgufFile& file, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string_view> pre, file.String("tokenizer.ggml.pre"));
  if (pre.value_or("default") != "default") {
    return NotRunHere(file.path, "key \"tokenizer.ggml.pre\" is {}; a tokenizer of the model \"llama\" has none",
                      Quoted(*pre));
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> removes, file.Bool("tokenizer.ggml.remove_extra_whitespaces"));
  if (removes.value_or(false)) {
    return NotRunHere(file.path, "key \"tokenizer.ggml.remove_extra_whitespaces\" is true; false is run");
  }
  if (file.Find("tokenizer.ggml.precompiled_charsmap") != nullptr) {
    return NotRunHere(file.path, "there is a key \"tokenizer.ggml.precompiled_charsmap\"; no such normaliser is run");
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> space, file.Bool("tokenizer.ggml.add_space_prefix"));
  spec.space_prefix = space.value_or(true) ? SpacePrefix::kEvery : SpacePrefix::kNever;
  spec.decode_strips_space = space.value_or(true);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> TokenizerFromGguf(const GgufFile& file) {
  TokenizerSpec spec;
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string_view> model, file.String("tokenizer.ggml.model"));
  if (!model.has_value()) return BrokenFile(file.path, "key \"tokenizer.ggml.model\" is missing");
  bool adds_bos = true;
  if (*model == "gpt2") {
    spec.model = "bpe";
    EPIC_ASSIGN_OR_RETURN(adds_bos, ReadByteLevel(file, spec));
  } else if (*model == "llama") {
    spec.model = "spm";
    EPIC_RETURN_IF_ERROR(ReadSentencePiece(file, spec));
  } else {
    return NotRunHere(
        file.path, "the tokenizer model is {}; \"gpt2\" (byte-level BPE) and \"llama\" (SentencePiece's BPE) are run",
        Quoted(*model));
  }
  EPIC_RETURN_IF_ERROR(ReadTokens(file, spec));
  EPIC_RETURN_IF_ERROR(ReadMerges(file, spec));
  EPIC_ASSIGN_OR_RETURN(spec.bos_id, TokenId(file, "tokenizer.ggml.bos_token_id"));
  EPIC_ASSIGN_OR_RETURN(spec.eos_id, TokenId(file, "tokenizer.ggml.eos_token_id"));
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    EPIC_ASSIGN_OR_RETURN(const std::optional<int32_t> stop, TokenId(file, key));
    if (stop.has_value()) spec.stop_ids.push_back(*stop);
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> add_bos, file.Bool("tokenizer.ggml.add_bos_token"));
  spec.add_bos = add_bos.value_or(adds_bos && spec.bos_id.has_value());
  for (const char* key : {"tokenizer.ggml.add_eos_token", "tokenizer.ggml.add_sep_token"}) {
    EPIC_ASSIGN_OR_RETURN(const std::optional<bool> added, file.Bool(key));
    if (added.value_or(false))
      return NotRunHere(file.path, "key \"{}\" is true; only a token at the start is added", key);
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string_view> chat_template, file.String("tokenizer.chat_template"));
  spec.chat_template = std::string(chat_template.value_or(""));
  return spec;
}

}  // namespace epic
