#include "engine/files/tokenizer_json.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/status_macros.h"
#include "engine/files/file_error.h"
#include "engine/files/json_file.h"
#include "engine/files/loaded_model.h"

namespace epic {

namespace {

absl::StatusOr<std::string> TypeOf(const JsonObject& object) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> type, object.String("type"));
  if (!type.has_value()) return BrokenFile(object.path(), "{} is missing", object.PlaceOf("type"));
  return *type;
}

// Refuses where the member `key`, if present, is true although only false is run, or the other way round.
absl::Status RequireBool(const JsonObject& object, std::string_view key, bool absent, bool expected) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> value, object.Bool(key));
  if (value.value_or(absent) == expected) return absl::OkStatus();
  return NotRunHere(object.path(), "{} is {}; {} is run", object.PlaceOf(key), !expected, expected);
}

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

absl::Status ReadVocabulary(const JsonObject& model, int32_t vocab_size, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<JsonObject> vocabulary, model.Object("vocab"));
  if (!vocabulary.has_value()) return BrokenFile(model.path(), "model.vocab is missing");
  for (const auto& [text, value] : vocabulary->value().items()) {
    EPIC_ASSIGN_OR_RETURN(const int32_t id, TokenId(value, vocab_size, model.path(), "token " + Quoted(text)));
    const auto index = static_cast<size_t>(id);
    if (index < spec.kinds.size() && spec.kinds[index] != TokenKind::kUnused) {
      return BrokenFile(model.path(), "tokens {} and {} share the id {}", Quoted(spec.tokens[index]), Quoted(text), id);
    }
    PutToken(index, text, TokenKind::kNormal, spec);
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

absl::Status ReadModel(const JsonObject& top, int32_t vocab_size, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<JsonObject> model, top.Object("model"));
  if (!model.has_value()) return BrokenFile(top.path(), "model is missing");
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> type, model->String("type"));
  // Files older than the member have none; only BPE has merges, which are asked for below.
  if (type.value_or("BPE") != "BPE") {
    return NotRunHere(top.path(), "the tokenizer model is {}; BPE is run", Quoted(*type));
  }
  EPIC_RETURN_IF_ERROR(RequireBool(*model, "byte_fallback", false, false));
  EPIC_RETURN_IF_ERROR(RequireBool(*model, "ignore_merges", false, false));
  EPIC_ASSIGN_OR_RETURN(const std::optional<double> dropout, model->Number("dropout"));
  if (dropout.value_or(0) != 0) return NotRunHere(top.path(), "model.dropout is {}; 0 is run", *dropout);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> affix, model->String(key));
    if (!affix.value_or("").empty()) return NotRunHere(top.path(), "model.{} is {}; none is run", key, Quoted(*affix));
  }
  spec.model = "bpe";
  EPIC_RETURN_IF_ERROR(ReadVocabulary(*model, vocab_size, spec));
  return ReadMerges(*model, spec);
}

absl::Status ReadAddedTokens(const JsonObject& top, int32_t vocab_size, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json* added, top.Array("added_tokens"));
  if (added == nullptr) return absl::OkStatus();
  for (size_t i = 0; i < added->size(); ++i) {
    const nlohmann::json& entry = (*added)[i];
    const std::string place = fmt::format("added_tokens[{}]", i);
    if (!entry.is_object()) return BrokenFile(top.path(), "{} is {}, expected an object", place, JsonText(entry));
    const JsonObject token(entry, top.path(), place);
    EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> content, token.String("content"));
    const nlohmann::json* id_member = token.Find("id");
    if (!content.has_value() || content->empty() || id_member == nullptr) {
      return BrokenFile(top.path(), "{} has no content or no id", place);
    }
    EPIC_ASSIGN_OR_RETURN(const int32_t id, TokenId(*id_member, vocab_size, top.path(), place));
    for (const char* key : {"lstrip", "rstrip", "single_word"})
      EPIC_RETURN_IF_ERROR(RequireBool(token, key, false, false));
    const auto index = static_cast<size_t>(id);
    if (index < spec.kinds.size() && spec.kinds[index] != TokenKind::kUnused && spec.tokens[index] != *content) {
      return BrokenFile(top.path(), "{} is {} with id {}, but that id is {}", place, Quoted(*content), id,
                        Quoted(spec.tokens[index]));
    }
    EPIC_ASSIGN_OR_RETURN(const std::optional<bool> special, token.Bool("special"));
    PutToken(index, *content, special.value_or(false) ? TokenKind::kControl : TokenKind::kUserDefined, spec);
  }
  return absl::OkStatus();
}

// SmolLM2's way of splitting: every digit alone, then GPT-2's expression over the byte-level alphabet.
absl::Status ReadPreTokenizer(const JsonObject& top, TokenizerSpec& spec) {
  const auto refuse = [&top](const std::string& seen) {
    return NotRunHere(top.path(),
                      "the pre_tokenizer is {}; a Sequence of Digits(individual_digits) and ByteLevel(no prefix space, "
                      "use_regex) is run",
                      seen);
  };
  EPIC_ASSIGN_OR_RETURN(const std::optional<JsonObject> pre_tokenizer, top.Object("pre_tokenizer"));
  if (!pre_tokenizer.has_value()) return refuse("absent");
  EPIC_ASSIGN_OR_RETURN(const std::string type, TypeOf(*pre_tokenizer));
  if (type != "Sequence") return refuse(Quoted(type));
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json* steps, pre_tokenizer->Array("pretokenizers"));
  if (steps == nullptr || steps->size() != 2)
    return refuse(fmt::format("a Sequence of {}", steps == nullptr ? 0 : steps->size()));
  if (!(*steps)[0].is_object() || !(*steps)[1].is_object()) return refuse("a Sequence of something other than objects");
  const JsonObject digits((*steps)[0], top.path(), "pre_tokenizer.pretokenizers[0]");
  const JsonObject byte_level((*steps)[1], top.path(), "pre_tokenizer.pretokenizers[1]");
  EPIC_ASSIGN_OR_RETURN(const std::string first, TypeOf(digits));
  EPIC_ASSIGN_OR_RETURN(const std::string second, TypeOf(byte_level));
  if (first != "Digits" || second != "ByteLevel") {
    return refuse(fmt::format("a Sequence of {} and {}", Quoted(first), Quoted(second)));
  }
  EPIC_RETURN_IF_ERROR(RequireBool(digits, "individual_digits", false, true));
  EPIC_RETURN_IF_ERROR(RequireBool(byte_level, "add_prefix_space", true, false));
  EPIC_RETURN_IF_ERROR(RequireBool(byte_level, "use_regex", true, true));
  spec.pre_tokenizer = "smollm";
  return absl::OkStatus();
}

absl::Status CheckNormalizerAndDecoder(const JsonObject& top) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<JsonObject> normalizer, top.Object("normalizer"));
  if (normalizer.has_value()) {
    EPIC_ASSIGN_OR_RETURN(const std::string type, TypeOf(*normalizer));
    return NotRunHere(top.path(), "the normalizer is {}; none is run", Quoted(type));
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<JsonObject> decoder, top.Object("decoder"));
  if (!decoder.has_value()) return NotRunHere(top.path(), "the decoder is absent; \"ByteLevel\" is run");
  EPIC_ASSIGN_OR_RETURN(const std::string type, TypeOf(*decoder));
  if (type != "ByteLevel") return NotRunHere(top.path(), "the decoder is {}; \"ByteLevel\" is run", Quoted(type));
  return absl::OkStatus();
}

absl::StatusOr<int32_t> IdOfToken(const TokenizerSpec& spec, const std::string& text, const std::string& path) {
  const auto found = std::find(spec.tokens.begin(), spec.tokens.end(), text);
  if (found == spec.tokens.end())
    return BrokenFile(path, "{} is named, but the vocabulary has no such token", Quoted(text));
  return static_cast<int32_t>(found - spec.tokens.begin());
}

// A template that leaves a single sequence alone, or puts one special token in front of it.
absl::Status ReadTemplateProcessing(const JsonObject& processor, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json* single, processor.Array("single"));
  const auto refuse = [&processor] {
    return NotRunHere(processor.path(), "{} does more than add one token at the start, which is all that is run",
                      processor.PlaceOf("single"));
  };
  const auto part_id = [](const nlohmann::json& part, const char* kind) -> const std::string* {
    if (!part.is_object() || !part.contains(kind) || !part[kind].is_object() || !part[kind].contains("id"))
      return nullptr;
    return part[kind]["id"].get_ptr<const std::string*>();
  };
  if (single == nullptr || single->empty() || single->size() > 2) return refuse();
  const std::string* sequence = part_id(single->back(), "Sequence");
  if (sequence == nullptr || *sequence != "A") return refuse();
  if (single->size() == 1) return absl::OkStatus();
  const std::string* first = part_id(single->front(), "SpecialToken");
  if (first == nullptr) return refuse();
  EPIC_ASSIGN_OR_RETURN(spec.bos_id, IdOfToken(spec, *first, processor.path()));
  spec.add_bos = true;
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const JsonObject& processor, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const std::string type, TypeOf(processor));
  if (type == "ByteLevel") return absl::OkStatus();  // moves offsets only
  if (type == "TemplateProcessing") return ReadTemplateProcessing(processor, spec);
  if (type != "Sequence") {
    return NotRunHere(processor.path(), "the post_processor is {}; \"TemplateProcessing\" and \"ByteLevel\" are run",
                      Quoted(type));
  }
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json* steps, processor.Array("processors"));
  if (steps == nullptr) return BrokenFile(processor.path(), "{} is missing", processor.PlaceOf("processors"));
  for (const nlohmann::json& step : *steps) {
    if (!step.is_object())
      return BrokenFile(processor.path(), "{} holds something other than objects", processor.PlaceOf("processors"));
    EPIC_RETURN_IF_ERROR(ReadPostProcessor(JsonObject(step, processor.path(), "post_processor step"), spec));
  }
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

// What tokenizer_config.json would change of tokenizer.json must be nothing.
absl::Status CheckAgainstTokenizerConfig(const JsonObject& config, const TokenizerSpec& spec) {
  EPIC_RETURN_IF_ERROR(RequireBool(config, "add_prefix_space", false, false));
  EPIC_RETURN_IF_ERROR(RequireBool(config, "add_eos_token", false, false));
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> add_bos, config.Bool("add_bos_token"));
  if (add_bos.has_value() && *add_bos != spec.add_bos) {
    return NotRunHere(config.path(), "add_bos_token is {}, but the post_processor of tokenizer.json says {}", *add_bos,
                      spec.add_bos);
  }
  EPIC_ASSIGN_OR_RETURN(const std::optional<JsonObject> added, config.Object("added_tokens_decoder"));
  if (!added.has_value()) return absl::OkStatus();
  for (const auto& [id, value] : added->value().items()) {
    if (!value.is_object())
      return BrokenFile(config.path(), "{} is {}, expected an object", added->PlaceOf(Quoted(id)), JsonText(value));
    const JsonObject token(value, config.path(), added->PlaceOf(Quoted(id)));
    EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> content, token.String("content"));
    const auto found = std::find(spec.tokens.begin(), spec.tokens.end(), content.value_or(""));
    if (found == spec.tokens.end() || fmt::format("{}", found - spec.tokens.begin()) != id) {
      return NotRunHere(config.path(), "{} is {}, which tokenizer.json does not have under this id",
                        added->PlaceOf(Quoted(id)), Quoted(content.value_or("")));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadTokenizerConfig(const std::string& path, TokenizerSpec& spec) {
  const absl::StatusOr<nlohmann::json> document = ReadJsonFile(path);
  if (absl::IsNotFound(document.status())) return absl::OkStatus();
  EPIC_RETURN_IF_ERROR(document.status());
  const JsonObject config(*document, path);
  EPIC_RETURN_IF_ERROR(CheckAgainstTokenizerConfig(config, spec));
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> bos, SpecialTokenText(config, "bos_token"));
  if (bos.has_value()) {
    EPIC_ASSIGN_OR_RETURN(const int32_t bos_id, IdOfToken(spec, *bos, path));
    if (spec.add_bos && spec.bos_id != bos_id) {
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
  TokenizerSpec spec;
  EPIC_RETURN_IF_ERROR(ReadModel(top, vocab_size, spec));
  EPIC_RETURN_IF_ERROR(CheckNormalizerAndDecoder(top));
  EPIC_RETURN_IF_ERROR(ReadPreTokenizer(top, spec));
  EPIC_RETURN_IF_ERROR(ReadAddedTokens(top, vocab_size, spec));
  EPIC_ASSIGN_OR_RETURN(const std::optional<JsonObject> post_processor, top.Object("post_processor"));
  if (post_processor.has_value()) EPIC_RETURN_IF_ERROR(ReadPostProcessor(*post_processor, spec));
  EPIC_RETURN_IF_ERROR(ReadTokenizerConfig(folder + "/tokenizer_config.json", spec));
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
