#include "engine/files/tokenizer_json.h"

#include <charconv>
#include <map>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/status_macros.h"
#include "engine/files/file_error.h"
#include "engine/files/json_file.h"
#include "engine/files/loaded_model.h"
#include "engine/files/tokenizer_pipeline.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/nfc.h"

namespace epic {

namespace {

absl::StatusOr<int32_t> TokenId(const nlohmann::json& value, int32_t vocab_size, const std::string& path,
                                const std::string& what) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= static_cast<uint64_t>(vocab_size)) {
    return BrokenFile(path, "the id of {} is {}, expected 0 to {}: the embedding has {} rows", what, JsonText(value),
                      vocab_size - 1, vocab_size);
  }
  return value.get<int32_t>();
}

// Puts a token at its id, growing the vocabulary with unused ones, so that holes need no second pass.
void PutToken(size_t id, const std::string& text, TokenKind kind, TokenizerSpec& spec) {
  while (spec.tokens.size() <= id) {
    spec.tokens.push_back(UnusedTokenText(spec.tokens.size()));
    spec.kinds.push_back(TokenKind::kUnused);
  }
  spec.tokens[id] = text;
  spec.kinds[id] = kind;
}

// "<0x0A>": what byte fallback writes for a byte.
bool IsByteToken(std::string_view text) {
  const auto is_digit = [](char digit) { return (digit >= '0' && digit <= '9') || (digit >= 'A' && digit <= 'F'); };
  return text.size() == 6 && text.starts_with("<0x") && text[5] == '>' && is_digit(text[3]) && is_digit(text[4]);
}

absl::Status ReadVocabulary(const JsonObject& model, int32_t vocab_size, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<JsonObject> vocabulary, model.Object("vocab"));
  if (!vocabulary.has_value()) return BrokenFile(model.path(), "model.vocab is missing");
  for (const auto& [text, value] : vocabulary->value().items()) {
    EPIC_ASSIGN_OR_RETURN(const int32_t id, TokenId(value, vocab_size, model.path(), "token " + Quoted(text)));
    const auto index = static_cast<size_t>(id);
    if (index < spec.kinds.size() && spec.kinds[index] != TokenKind::kUnused) {
      return BrokenFile(model.path(), "tokens {} and {} share the id {}", Quoted(spec.tokens[index]), Quoted(text), id);
    }
    const bool is_byte = spec.model == "spm" && IsByteToken(text);
    PutToken(index, text, is_byte ? TokenKind::kByte : TokenKind::kNormal, spec);
  }
  return absl::OkStatus();
}

absl::Status ReadMerges(const JsonObject& model, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json* merges, model.Array("merges"));
  if (merges == nullptr) return BrokenFile(model.path(), "model.merges is missing");
  for (const nlohmann::json& merge : *merges) {
    if (merge.is_string()) {
      spec.merges.push_back(merge.get<std::string>());
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      spec.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    } else {
      return BrokenFile(model.path(), "merge {} is {}, expected \"left right\" or two strings", spec.merges.size(),
                        JsonText(merge));
    }
  }
  return absl::OkStatus();
}

// A token for unknown text comes up where a byte has no token, which byte fallback rules out (the tokenizer checks it).
absl::Status CheckUnknownToken(const JsonObject& model, const TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> unknown, model.String("unk_token"));
  if (!unknown.has_value() || spec.model == "spm") return absl::OkStatus();
  const std::unordered_set<std::string_view> tokens(spec.tokens.begin(), spec.tokens.end());
  for (int byte = 0; byte < 256; ++byte) {
    if (tokens.contains(ByteToAlphabet(static_cast<uint8_t>(byte)))) continue;
    return NotRunHere(model.path(),
                      "model.unk_token is {} and the byte 0x{:02x} has no token; an unknown token is run only where "
                      "nothing is unknown",
                      Quoted(*unknown), byte);
  }
  return absl::OkStatus();
}

absl::Status ReadModel(const JsonObject& top, int32_t vocab_size, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<JsonObject> model, top.Object("model"));
  if (!model.has_value()) return BrokenFile(top.path(), "model is missing");
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> type, model->String("type"));
  // Files older than the member have none; only BPE has merges, which are asked for below.
  if (type.value_or("BPE") != "BPE") {
    return NotRunHere(top.path(), "the tokenizer model is {}; BPE is run", Quoted(*type));
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> byte_fallback, model->Bool("byte_fallback"));
  spec.model = byte_fallback.value_or(false) ? "spm" : "bpe";
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> ignore_merges, model->Bool("ignore_merges"));
  spec.ignore_merges = ignore_merges.value_or(false);
  if (spec.model == "spm" && spec.ignore_merges) {
    return NotRunHere(top.path(), "model.ignore_merges is true; for BPE with byte fallback false is run");
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> dropout, model->Number("dropout"));
  if (dropout.value_or(0) != 0) return NotRunHere(top.path(), "model.dropout is {}; 0 is run", *dropout);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> affix, model->String(key));
    if (!affix.value_or("").empty()) return NotRunHere(top.path(), "model.{} is {}; none is run", key, Quoted(*affix));
  }
  EPIC_RETURN_IF_ERROR(ReadVocabulary(*model, vocab_size, spec));
  EPIC_RETURN_IF_ERROR(ReadMerges(*model, spec));
  return CheckUnknownToken(*model, spec);
}

// One entry of added_tokens, or of added_tokens_decoder in tokenizer_config.json, which has precedence.
struct AddedToken {
  std::string place;  // in its file, for messages
  int32_t id = 0;
  std::string content;
  bool is_special = false;
  bool in_normalized_text = false;
  AddedTokenRule rule;
};

absl::StatusOr<AddedToken> ReadAddedToken(const nlohmann::json& value, const std::string& path,
                                          const std::string& place, int32_t id) {
  const JsonObject entry(value, path, place);
  AddedToken token;
  token.place = place;
  token.id = id;
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> content, entry.String("content"));
  if (!content.has_value() || content->empty()) {
    return BrokenFile(entry.path(), "{} is missing or empty", entry.PlaceOf("content"));
  }
  token.content = *content;
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> special, entry.Bool("special"));
  token.is_special = special.value_or(false);
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> strips_left, entry.Bool("lstrip"));
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> strips_right, entry.Bool("rstrip"));
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> normalized, entry.Bool("normalized"));
  EPIC_RETURN_IF_ERROR(RequireBool(entry, "single_word", false, false));
  token.rule.strips_left = strips_left.value_or(false);
  token.rule.strips_right = strips_right.value_or(false);
  token.in_normalized_text = normalized.value_or(!token.is_special);
  return token;
}

// What the normaliser would make of a token that is looked for behind it must be the token itself. Control tokens are
// then found in the text as it is, which comes to the same.
absl::Status CheckNormalized(const JsonObject& top, bool prepends_space, const TokenizerSpec& spec,
                             const AddedToken& token) {
  const auto refuse = [&](const char* why) {
    return NotRunHere(top.path(), "the added token {} is looked for in normalised text, {}", Quoted(token.content),
                      why);
  };
  if (prepends_space) return refuse("which begins with a space mark; only \"normalized\": false is run there");
  const bool has_space =
      token.content.find(' ') != std::string::npos || token.content.find("\u2581") != std::string::npos;
  const bool has_marks = spec.model == "spm" && !spec.space_prefix_unless_space;  // for spaces, by a normaliser
  if (has_marks && (token.rule.strips_left || token.rule.strips_right)) {
    return refuse(
        "where spaces are marks and no white space that it could take; only \"normalized\": false is run there");
  }
  if (spec.model == "spm" && has_space) return refuse("where its space is a mark; only tokens without one are run");
  if (token.is_special && spec.normalizes_nfc && NormalizeNfc(token.content)) {
    return refuse("where it is written otherwise; only control tokens in form NFC are run");
  }
  return absl::OkStatus();
}

absl::Status PlaceAddedToken(const JsonObject& top, bool prepends_space, const AddedToken& token, TokenizerSpec& spec) {
  const auto index = static_cast<size_t>(token.id);
  if (index < spec.kinds.size() && spec.kinds[index] != TokenKind::kUnused && spec.tokens[index] != token.content) {
    return BrokenFile(top.path(), "{} is {} with id {}, but that id is {}", token.place, Quoted(token.content),
                      token.id, Quoted(spec.tokens[index]));
  }
  if (token.in_normalized_text) EPIC_RETURN_IF_ERROR(CheckNormalized(top, prepends_space, spec, token));
  PutToken(index, token.content, token.is_special ? TokenKind::kControl : TokenKind::kUserDefined, spec);
  AddedTokenRule rule = token.rule;
  rule.in_normalized_text = token.in_normalized_text && !token.is_special;
  if (rule != AddedTokenRule()) spec.added_rules[token.id] = rule;
  return absl::OkStatus();
}

// `overrides`: tokenizer_config.json's, by id.
absl::Status ReadAddedTokens(const JsonObject& top, const std::map<int32_t, AddedToken>& overrides, int32_t vocab_size,
                             TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const bool prepends_space, NormalizerPrependsSpace(top));
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json* added, top.Array("added_tokens"));
  std::map<int32_t, AddedToken> tokens;
  for (size_t i = 0; added != nullptr && i < added->size(); ++i) {
    const nlohmann::json& entry = (*added)[i];
    const std::string place = fmt::format("added_tokens[{}]", i);
    if (!entry.is_object()) return BrokenFile(top.path(), "{} is {}, expected an object", place, JsonText(entry));
    const auto id_member = entry.find("id");
    if (id_member == entry.end()) return BrokenFile(top.path(), "{}.id is missing", place);
    EPIC_ASSIGN_OR_RETURN(const int32_t id, TokenId(*id_member, vocab_size, top.path(), place));
    EPIC_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(entry, top.path(), place, id));
    const auto [existing, is_new] = tokens.try_emplace(id, std::move(token));
    if (!is_new) {
      return BrokenFile(top.path(), "{} has the id {}, but that id is {}", place, id, Quoted(existing->second.content));
    }
  }
  for (const auto& [id, token] : overrides) {
    const auto existing = tokens.find(id);
    if (existing != tokens.end() && existing->second.content != token.content) {
      return BrokenFile(top.path(), "token {} is {}, but {} by {} of tokenizer_config.json", id,
                        Quoted(existing->second.content), Quoted(token.content), token.place);
    }
    tokens[id] = token;
  }
  for (const auto& [id, token] : tokens) EPIC_RETURN_IF_ERROR(PlaceAddedToken(top, prepends_space, token, spec));
  return absl::OkStatus();
}

// The text of a special token: a string, or an object with its content.
absl::StatusOr<std::optional<std::string>> SpecialTokenText(const JsonObject& config, std::string_view key) {
  const nlohmann::json* member = config.Find(key);
  if (member == nullptr || !member->is_object()) return config.String(key);
  return JsonObject(*member, config.path(), config.PlaceOf(key)).String("content");
}

absl::Status ReadChatTemplate(const JsonObject& config, TokenizerSpec& spec) {
  const nlohmann::json* member = config.Find("chat_template");
  if (member == nullptr) return absl::OkStatus();
  if (member->is_string()) {
    spec.chat_template = member->get<std::string>();
    return absl::OkStatus();
  }
  if (!member->is_array())
    return BrokenFile(config.path(), "chat_template is {}, expected a string", JsonText(*member));
  for (const nlohmann::json& entry : *member) {
    if (!entry.is_object())
      return BrokenFile(config.path(), "chat_template holds {}, expected objects", JsonText(entry));
    const JsonObject named(entry, config.path(), "chat_template");
    EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> name, named.String("name"));
    EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> source, named.String("template"));
    if (name.value_or("") == "default") spec.chat_template = source.value_or("");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::map<int32_t, AddedToken>> AddedTokenOverrides(const JsonObject& config, int32_t vocab_size) {
  std::map<int32_t, AddedToken> overrides;
  EPIC_ASSIGN_OR_RETURN(const std::optional<JsonObject> added, config.Object("added_tokens_decoder"));
  if (!added.has_value()) return overrides;
  for (const auto& [key, value] : added->value().items()) {
    const std::string place = added->PlaceOf(Quoted(key));
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= vocab_size) {
      return BrokenFile(config.path(), "{} is no id from 0 to {}", place, vocab_size - 1);
    }
    if (!value.is_object()) return BrokenFile(config.path(), "{} is {}, expected an object", place, JsonText(value));
    EPIC_ASSIGN_OR_RETURN(overrides[id], ReadAddedToken(value, config.path(), place, id));
  }
  return overrides;
}

// Where tokenizer_config.json says whether a space is put before text, transformers builds the space handling anew.
absl::Status ApplySpacePrefix(const JsonObject& config, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> adds, config.Bool("add_prefix_space"));
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> legacy, config.Bool("legacy"));
  if (!adds.has_value()) return absl::OkStatus();
  spec.decode_strips_space = *adds;
  if (!*adds) {
    spec.space_prefix = SpacePrefix::kNever;
  } else if (legacy.value_or(true)) {
    spec.space_prefix = SpacePrefix::kEvery;
    spec.space_prefix_unless_space = false;
  } else {
    spec.space_prefix = SpacePrefix::kFirst;
    spec.space_prefix_unless_space = true;
  }
  return absl::OkStatus();
}

// What tokenizer_config.json changes of tokenizer.json: for tokenizers of SentencePiece's kind the space before text
// and whether BOS is added, as their classes in transformers do it; for others nothing may differ.
absl::Status ApplyTokenizerConfig(const JsonObject& config, TokenizerSpec& spec) {
  const bool is_sentencepiece = spec.model == "spm";
  EPIC_RETURN_IF_ERROR(RequireBool(config, "add_eos_token", false, false));
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> add_bos, config.Bool("add_bos_token"));
  if (is_sentencepiece) {
    spec.add_bos = add_bos.value_or(spec.add_bos);
    return ApplySpacePrefix(config, spec);
  }
  EPIC_RETURN_IF_ERROR(RequireBool(config, "add_prefix_space", false, false));
  if (add_bos.has_value() && *add_bos != spec.add_bos) {
    return NotRunHere(config.path(), "add_bos_token is {}, but the post_processor of tokenizer.json says {}", *add_bos,
                      spec.add_bos);
  }
  return absl::OkStatus();
}

absl::Status ReadTokenizerConfig(const JsonObject& config, TokenizerSpec& spec) {
  const std::string& path = config.path();
  EPIC_RETURN_IF_ERROR(ApplyTokenizerConfig(config, spec));
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> bos, SpecialTokenText(config, "bos_token"));
  if (bos.has_value()) {
    EPIC_ASSIGN_OR_RETURN(const int32_t bos_id, IdOfToken(spec, *bos, path));
    if (spec.add_bos && spec.bos_id.has_value() && spec.bos_id != bos_id) {
      return NotRunHere(path, "bos_token is {}, but tokenizer.json begins a sequence with token {}", Quoted(*bos),
                        *spec.bos_id);
    }
    spec.bos_id = bos_id;
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> eos, SpecialTokenText(config, "eos_token"));
  if (eos.has_value()) {
    EPIC_ASSIGN_OR_RETURN(spec.eos_id, IdOfToken(spec, *eos, path));
  }
  return ReadChatTemplate(config, spec);
}

}  // namespace

absl::StatusOr<TokenizerSpec> TokenizerFromFolder(const std::string& folder, int32_t vocab_size,
                                                  const SequenceTokens& defaults) {
  const std::string path = folder + "/tokenizer.json";
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json document, ReadJsonFile(path));
  const JsonObject top(document, path);
  const std::string config_path = folder + "/tokenizer_config.json";
  absl::StatusOr<nlohmann::json> config_document = ReadJsonFile(config_path);
  if (absl::IsNotFound(config_document.status())) config_document = nlohmann::json::object();
  EPIC_RETURN_IF_ERROR(config_document.status());
  const JsonObject config(*config_document, config_path);

  TokenizerSpec spec;
  EPIC_RETURN_IF_ERROR(ReadModel(top, vocab_size, spec));
  EPIC_RETURN_IF_ERROR(ReadPipeline(top, spec));
  EPIC_ASSIGN_OR_RETURN(const auto overrides, AddedTokenOverrides(config, vocab_size));
  EPIC_RETURN_IF_ERROR(ReadAddedTokens(top, overrides, vocab_size, spec));
  EPIC_RETURN_IF_ERROR(ReadPostProcessor(top, spec));
  EPIC_RETURN_IF_ERROR(ReadTokenizerConfig(config, spec));
  if (!spec.bos_id.has_value()) spec.bos_id = defaults.bos_id;
  if (!spec.eos_id.has_value()) spec.eos_id = defaults.eos_id;

  // A template in its own file has precedence over one in tokenizer_config.json, as in transformers.
  absl::StatusOr<std::string> chat_template = ReadTextFile(folder + "/chat_template.jinja");
  if (chat_template.ok()) {
    spec.chat_template = *std::move(chat_template);
  } else if (!absl::IsNotFound(chat_template.status())) {
    return chat_template.status();
  }
  return spec;
}

}  // namespace epic
