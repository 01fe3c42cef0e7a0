#include <limits>
#include <utility>

#include "core/status_macros.h"
#include "engine/files/file_error.h"
#include "engine/files/gguf_model.h"

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
  EPIC_ASSIGN_OR_RETURN(const std::vector<std::string_view>* merges, file.Strings("tokenizer.ggml.merges"));
  if (merges == nullptr) return BrokenFile(file.path, "key \"tokenizer.ggml.merges\" is missing");
  spec.merges.assign(merges->begin(), merges->end());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> TokenizerFromGguf(const GgufFile& file) {
  TokenizerSpec spec;
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string_view> model, file.String("tokenizer.ggml.model"));
  if (!model.has_value()) return BrokenFile(file.path, "key \"tokenizer.ggml.model\" is missing");
  if (*model != "gpt2") {
    return NotRunHere(file.path, "the tokenizer model is {}; \"gpt2\" (byte-level BPE) is run", Quoted(*model));
  }
  spec.model = "bpe";
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string_view> pre_tokenizer, file.String("tokenizer.ggml.pre"));
  if (!pre_tokenizer.has_value()) {
    return NotRunHere(file.path,
                      "key \"tokenizer.ggml.pre\" is missing, so that the way of splitting text is not known");
  }
  spec.pre_tokenizer = std::string(*pre_tokenizer);
  EPIC_RETURN_IF_ERROR(ReadTokens(file, spec));
  EPIC_ASSIGN_OR_RETURN(spec.bos_id, TokenId(file, "tokenizer.ggml.bos_token_id"));
  EPIC_ASSIGN_OR_RETURN(spec.eos_id, TokenId(file, "tokenizer.ggml.eos_token_id"));
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    EPIC_ASSIGN_OR_RETURN(const std::optional<int32_t> stop, TokenId(file, key));
    if (stop.has_value()) spec.stop_ids.push_back(*stop);
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> add_bos, file.Bool("tokenizer.ggml.add_bos_token"));
  spec.add_bos = add_bos.value_or(false);
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
