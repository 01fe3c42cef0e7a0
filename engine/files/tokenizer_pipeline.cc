#include "engine/files/tokenizer_pipeline.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "core/status_macros.h"
#include "engine/files/file_error.h"

namespace epic {

namespace {

constexpr std::string_view kSpaceMark = "\u2581";

// The expressions of the families, as their files have them.
constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kExpressions = {{
    {"llama-bpe",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {"qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {"tekken",
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {"gpt-2", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
}};

// The steps of a part that may be a Sequence (whose list has the name `list`), a single step, or absent.
absl::StatusOr<std::vector<JsonObject>> StepsOf(const JsonObject& top, std::string_view part, std::string_view list) {
  std::vector<JsonObject> steps;
  EPIC_ASSIGN_OR_RETURN(const std::optional<JsonObject> object, top.Object(part));
  if (!object.has_value()) return steps;
  EPIC_ASSIGN_OR_RETURN(const std::string type, TypeOf(*object));
  if (type != "Sequence") {
    steps.push_back(*object);
    return steps;
  }
  EPIC_ASSIGN_OR_RETURN(const nlohmann::json* entries, object->Array(list));
  if (entries == nullptr) return BrokenFile(top.path(), "{} is missing", object->PlaceOf(list));
  for (size_t i = 0; i < entries->size(); ++i) {
    const std::string place = fmt::format("{}[{}]", object->PlaceOf(list), i);
    if (!(*entries)[i].is_object()) {
      return BrokenFile(top.path(), "{} is {}, expected an object", place, JsonText((*entries)[i]));
    }
    steps.emplace_back((*entries)[i], top.path(), place);
  }
  return steps;
}

// The types of all steps, for comparison and for messages: "Replace, ByteFallback, Fuse".
absl::StatusOr<std::string> TypesOf(const std::vector<JsonObject>& steps) {
  std::string types;
  for (const JsonObject& step : steps) {
    EPIC_ASSIGN_OR_RETURN(const std::string type, TypeOf(step));
    types += types.empty() ? type : ", " + type;
  }
  return types;
}

absl::Status RequireText(const JsonObject& object, std::string_view key, std::string_view expected) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> value, object.String(key));
  if (value.value_or("") == expected) return absl::OkStatus();
  return NotRunHere(object.path(), "{} is {}; {} is run", object.PlaceOf(key), Quoted(value.value_or("")),
                    Quoted(expected));
}

// A step that replaces every `from` by `to`.
absl::Status RequireReplacement(const JsonObject& step, std::string_view from, std::string_view to) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<JsonObject> pattern, step.Object("pattern"));
  if (!pattern.has_value()) return BrokenFile(step.path(), "{} is missing", step.PlaceOf("pattern"));
  EPIC_RETURN_IF_ERROR(RequireText(*pattern, "String", from));
  return RequireText(step, "content", to);
}

absl::Status ReadByteLevelNormalizer(const JsonObject& top, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const std::vector<JsonObject> steps, StepsOf(top, "normalizer", "normalizers"));
  EPIC_ASSIGN_OR_RETURN(const std::string types, TypesOf(steps));
  if (!types.empty() && types != "NFC") {
    return NotRunHere(top.path(), "the normalizer is {}; none and \"NFC\" are run for byte-level BPE", Quoted(types));
  }
  spec.normalizes_nfc = !types.empty();
  return absl::OkStatus();
}

// A Split by an expression that we know by heart.
absl::Status ReadSplit(const JsonObject& split, TokenizerSpec& spec) {
  EPIC_RETURN_IF_ERROR(RequireText(split, "behavior", "Isolated"));
  EPIC_RETURN_IF_ERROR(RequireBool(split, "invert", false, false));
  EPIC_ASSIGN_OR_RETURN(const std::optional<JsonObject> pattern, split.Object("pattern"));
  if (!pattern.has_value()) return BrokenFile(split.path(), "{} is missing", split.PlaceOf("pattern"));
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> expression, pattern->String("Regex"));
  for (const auto& [name, known] : kExpressions) {
    if (expression.value_or("") != known) continue;
    spec.pre_tokenizer = std::string(name);
    return absl::OkStatus();
  }
  return NotRunHere(split.path(), "{} is {}; the expressions of GPT-2, Llama 3, Qwen 2 and Mistral Nemo are run",
                    pattern->PlaceOf("Regex"), Quoted(expression.value_or("")));
}

absl::Status ReadByteLevelPreTokenizer(const JsonObject& top, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const std::vector<JsonObject> steps, StepsOf(top, "pre_tokenizer", "pretokenizers"));
  EPIC_ASSIGN_OR_RETURN(const std::string types, TypesOf(steps));
  if (types != "ByteLevel" && types != "Digits, ByteLevel" && types != "Split, ByteLevel") {
    return NotRunHere(top.path(),
                      "the pre_tokenizer is {}; ByteLevel, behind Digits or a Split, is run for byte-level BPE",
                      types.empty() ? "absent" : Quoted(types));
  }
  const JsonObject& byte_level = steps.back();
  EPIC_RETURN_IF_ERROR(RequireBool(byte_level, "add_prefix_space", true, false));
  const bool splits = types == "Split, ByteLevel";
  EPIC_RETURN_IF_ERROR(RequireBool(byte_level, "use_regex", true, !splits));
  if (splits) return ReadSplit(steps.front(), spec);
  if (steps.size() == 2) EPIC_RETURN_IF_ERROR(RequireBool(steps.front(), "individual_digits", false, true));
  spec.pre_tokenizer = steps.size() == 2 ? "smollm" : "gpt-2";
  return absl::OkStatus();
}

// Spaces become marks either in the normaliser, where one may be put before every stretch of text, or in a Metaspace
// pre-tokenizer, which puts one where there is none yet.
absl::Status ReadSpaceHandling(const JsonObject& top, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const std::vector<JsonObject> normalizers, StepsOf(top, "normalizer", "normalizers"));
  EPIC_ASSIGN_OR_RETURN(const std::string normalizer, TypesOf(normalizers));
  EPIC_ASSIGN_OR_RETURN(const std::vector<JsonObject> splitters, StepsOf(top, "pre_tokenizer", "pretokenizers"));
  EPIC_ASSIGN_OR_RETURN(const std::string splitter, TypesOf(splitters));
  if (splitter == "Metaspace" && normalizer.empty()) {
    const JsonObject& metaspace = splitters.front();
    EPIC_RETURN_IF_ERROR(RequireText(metaspace, "replacement", kSpaceMark));
    EPIC_RETURN_IF_ERROR(RequireBool(metaspace, "split", true, false));
    EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> scheme, metaspace.String("prepend_scheme"));
    static constexpr std::array<std::pair<std::string_view, SpacePrefix>, 3> kSchemes = {
        {{"never", SpacePrefix::kNever}, {"first", SpacePrefix::kFirst}, {"always", SpacePrefix::kEvery}}};
    for (const auto& [name, prefix] : kSchemes) {
      if (scheme.value_or("always") != name) continue;
      spec.space_prefix = prefix;
      spec.space_prefix_unless_space = true;
      return absl::OkStatus();
    }
    return NotRunHere(top.path(), "{} is {}; \"never\", \"first\" and \"always\" are run",
                      metaspace.PlaceOf("prepend_scheme"), Quoted(*scheme));
  }
  const bool prepends = normalizer == "Prepend, Replace";
  if ((!prepends && normalizer != "Replace") || !splitter.empty()) {
    return NotRunHere(top.path(),
                      "the normalizer is {} and the pre_tokenizer {}; for BPE with byte fallback a Replace of spaces, "
                      "behind a Prepend or not, or a Metaspace is run",
                      normalizer.empty() ? "absent" : Quoted(normalizer),
                      splitter.empty() ? "absent" : Quoted(splitter));
  }
  if (prepends) EPIC_RETURN_IF_ERROR(RequireText(normalizers.front(), "prepend", kSpaceMark));
  EPIC_RETURN_IF_ERROR(RequireReplacement(normalizers.back(), " ", kSpaceMark));
  spec.space_prefix = prepends ? SpacePrefix::kEvery : SpacePrefix::kNever;
  return absl::OkStatus();
}

absl::Status ReadSentencePieceDecoder(const JsonObject& top, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const std::vector<JsonObject> steps, StepsOf(top, "decoder", "decoders"));
  EPIC_ASSIGN_OR_RETURN(const std::string types, TypesOf(steps));
  spec.decode_strips_space = types == "Replace, ByteFallback, Fuse, Strip";
  if (!spec.decode_strips_space && types != "Replace, ByteFallback, Fuse") {
    return NotRunHere(top.path(),
                      "the decoder is {}; Replace, ByteFallback, Fuse and perhaps Strip are run for BPE with byte "
                      "fallback",
                      types.empty() ? "absent" : Quoted(types));
  }
  EPIC_RETURN_IF_ERROR(RequireReplacement(steps.front(), kSpaceMark, " "));
  if (!spec.decode_strips_space) return absl::OkStatus();
  const JsonObject& strip = steps.back();
  EPIC_RETURN_IF_ERROR(RequireText(strip, "content", " "));
  EPIC_ASSIGN_OR_RETURN(const std::optional<int64_t> start, strip.Integer("start"));
  EPIC_ASSIGN_OR_RETURN(const std::optional<int64_t> stop, strip.Integer("stop"));
  if (start == 1 && stop == 0) return absl::OkStatus();
  return NotRunHere(top.path(), "{} is {} and {} {}; 1 and 0 are run", strip.PlaceOf("start"), start.value_or(-1),
                    strip.PlaceOf("stop"), stop.value_or(-1));
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

}  // namespace

absl::StatusOr<std::string> TypeOf(const JsonObject& object) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<std::string> type, object.String("type"));
  if (!type.has_value()) return BrokenFile(object.path(), "{} is missing", object.PlaceOf("type"));
  return *type;
}

absl::Status RequireBool(const JsonObject& object, std::string_view key, bool absent, bool expected) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<bool> value, object.Bool(key));
  if (value.value_or(absent) == expected) return absl::OkStatus();
  return NotRunHere(object.path(), "{} is {}; {} is run", object.PlaceOf(key), !expected, expected);
}

absl::StatusOr<int32_t> IdOfToken(const TokenizerSpec& spec, const std::string& text, const std::string& path) {
  const auto found = std::find(spec.tokens.begin(), spec.tokens.end(), text);
  if (found == spec.tokens.end())
    return BrokenFile(path, "{} is named, but the vocabulary has no such token", Quoted(text));
  return static_cast<int32_t>(found - spec.tokens.begin());
}

absl::Status ReadPipeline(const JsonObject& top, TokenizerSpec& spec) {
  if (spec.model == "spm") {
    EPIC_RETURN_IF_ERROR(ReadSpaceHandling(top, spec));
    return ReadSentencePieceDecoder(top, spec);
  }
  EPIC_RETURN_IF_ERROR(ReadByteLevelNormalizer(top, spec));
  EPIC_RETURN_IF_ERROR(ReadByteLevelPreTokenizer(top, spec));
  EPIC_ASSIGN_OR_RETURN(const std::vector<JsonObject> decoders, StepsOf(top, "decoder", "decoders"));
  EPIC_ASSIGN_OR_RETURN(const std::string decoder, TypesOf(decoders));
  if (decoder == "ByteLevel") return absl::OkStatus();
  return NotRunHere(top.path(), "the decoder is {}; \"ByteLevel\" is run for byte-level BPE",
                    decoder.empty() ? "absent" : Quoted(decoder));
}

absl::Status ReadPostProcessor(const JsonObject& top, TokenizerSpec& spec) {
  EPIC_ASSIGN_OR_RETURN(const std::vector<JsonObject> steps, StepsOf(top, "post_processor", "processors"));
  for (const JsonObject& step : steps) {
    EPIC_ASSIGN_OR_RETURN(const std::string type, TypeOf(step));
    if (type == "ByteLevel") continue;  // moves offsets only
    if (type != "TemplateProcessing") {
      return NotRunHere(top.path(), "the post_processor is {}; \"TemplateProcessing\" and \"ByteLevel\" are run",
                        Quoted(type));
    }
    EPIC_RETURN_IF_ERROR(ReadTemplateProcessing(step, spec));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> NormalizerPrependsSpace(const JsonObject& top) {
  EPIC_ASSIGN_OR_RETURN(const std::vector<JsonObject> steps, StepsOf(top, "normalizer", "normalizers"));
  EPIC_ASSIGN_OR_RETURN(const std::string types, TypesOf(steps));
  return types.find("Prepend") != std::string::npos;
}

}  // namespace epic
