#include "engine/text/tokenizer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "core/status_macros.h"
#include "core/utf8.h"
#include "engine/text/added_tokens.h"
#include "engine/text/nfc.h"
#include "engine/text/plain_encoder.h"
#include "engine/text/unicode_classes.h"
#include "engine/text/vocabulary.h"
#include "fmt/format.h"

namespace epic {
namespace {

// The beginning of the white space that ends at `end`, not before `begin`.
size_t BeginOfSpaces(std::string_view text, size_t begin, size_t end) {
  while (end > begin) {
    size_t character = end - 1;
    while (character > begin && (static_cast<uint8_t>(text[character]) & 0xC0) == 0x80) --character;
    if (ClassOf(ReadUtf8(text, character).code_point) != CharacterClass::kSpace) break;
    end = character;
  }
  return end;
}

size_t EndOfSpaces(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Utf8Character character = ReadUtf8(text, begin);
    if (ClassOf(character.code_point) != CharacterClass::kSpace) break;
    begin += character.length;
  }
  return begin;
}

absl::Status CheckUtf8(std::string_view text) {
  const std::optional<size_t> position = FindInvalidUtf8(text);
  if (!position) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("the text is not UTF-8: byte {} (0x{:02x}) does not begin a whole character; send UTF-8", *position,
                  static_cast<uint8_t>(text[*position])));
}

// Checks BOS, EOS and the stop tokens, makes them control, and leaves in stop_ids every one that ends a generation.
absl::Status ReadSpecialIds(TokenizerSpec& spec) {
  if (spec.tokens.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return absl::InvalidArgumentError(fmt::format("the vocabulary has {} tokens, more than ids", spec.tokens.size()));
  }
  if (spec.kinds.size() != spec.tokens.size()) {
    return absl::InvalidArgumentError(
        fmt::format("the vocabulary has {} tokens but {} token kinds", spec.tokens.size(), spec.kinds.size()));
  }
  if (spec.eos_id) spec.stop_ids.push_back(*spec.eos_id);
  std::vector<std::pair<const char*, int32_t>> special_ids;
  if (spec.bos_id) special_ids.emplace_back("BOS", *spec.bos_id);
  if (spec.eos_id) special_ids.emplace_back("EOS", *spec.eos_id);
  for (const int32_t id : spec.stop_ids) special_ids.emplace_back("stop", id);
  for (const auto& [name, id] : special_ids) {
    if (id < 0 || static_cast<size_t>(id) >= spec.tokens.size()) {
      return absl::InvalidArgumentError(
          fmt::format("the {} token's id {} is outside the vocabulary of {} tokens", name, id, spec.tokens.size()));
    }
    TokenKind& kind = spec.kinds[id];
    if (kind == TokenKind::kUserDefined || kind == TokenKind::kNormal) kind = TokenKind::kControl;
  }
  if (spec.add_bos && !spec.bos_id) {
    return absl::InvalidArgumentError("the tokenizer starts sequences with a BOS token but names none");
  }
  std::sort(spec.stop_ids.begin(), spec.stop_ids.end());
  spec.stop_ids.erase(std::unique(spec.stop_ids.begin(), spec.stop_ids.end()), spec.stop_ids.end());
  return absl::OkStatus();
}

class TextTokenizer final : public Tokenizer {
 public:
  // Takes what ReadSpecialIds left of the specification.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(TokenizerSpec spec);

  absl::StatusOr<Encoding> EncodeText(std::string_view text) const override;
  absl::StatusOr<std::vector<int32_t>> EncodePieces(std::span<const TextPiece> pieces, bool at_start) const override;
  std::string DecodeToken(int32_t id, bool with_specials) const override;
  int32_t vocab_size() const override { return vocabulary_.size(); }
  bool IsControl(int32_t id) const override { return vocabulary_.Has(id) && IsSpecialKind(vocabulary_.kind(id)); }
  std::optional<int32_t> TokenId(std::string_view token) const override { return vocabulary_.Find(token); }
  std::optional<int32_t> sequence_start_id() const override { return spec_.add_bos ? spec_.bos_id : std::nullopt; }
  std::optional<int32_t> eos_id() const override { return spec_.eos_id; }
  std::span<const int32_t> stop_ids() const override { return spec_.stop_ids; }
  bool decode_strips_space() const override { return spec_.decode_strips_space; }

 private:
  // A text on its way to ids.
  struct Task {
    std::string_view text;
    bool at_start;
    WordCache cache;
    Encoding encoding;
  };
  // The stretch of text that an added token takes, with the white space that belongs to it.
  struct Place {
    size_t begin;
    size_t end;
  };

  TextTokenizer(TokenizerSpec spec, Vocabulary vocabulary)
      : spec_(std::move(spec)), vocabulary_(std::move(vocabulary)) {}

  void IndexAddedTokens();
  // `from`: where the added token before this one ended, whose white space is not taken twice.
  Place PlaceOf(const AddedTokens::Match& match, std::string_view text, size_t from) const;
  bool NeedsSpace(const Task& task, size_t begin) const;
  static void AddToken(int32_t id, size_t end, Task& task);

  // Each appends the tokens of text[begin, end), with less left to find in it than the one before.
  void EncodeRun(size_t begin, size_t end, Task& task) const;         // no control tokens
  void EncodeStretch(size_t begin, size_t end, Task& task) const;     // and no others outside normalised text
  void EncodeNormalized(size_t begin, size_t end, Task& task) const;  // and text needs no normalisation

  TokenizerSpec spec_;  // what the vocabulary and the encoder have taken over is dropped
  Vocabulary vocabulary_;
  AddedTokens added_;             // control tokens, and user-defined ones that are found in the text as it is
  AddedTokens added_normalized_;  // user-defined tokens that are found behind the normaliser
  std::unique_ptr<PlainEncoder> encoder_;
};

absl::StatusOr<std::unique_ptr<Tokenizer>> TextTokenizer::Create(TokenizerSpec spec) {
  EPIC_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::Create(spec.tokens, spec.kinds));
  // Not make_unique: the constructor is private. The encoder views the vocabulary where it stays.
  std::unique_ptr<TextTokenizer> tokenizer(new TextTokenizer(std::move(spec), std::move(vocabulary)));
  const auto make_encoder = tokenizer->spec_.model == "bpe" ? MakeByteLevelEncoder : MakeSentencePieceEncoder;
  EPIC_ASSIGN_OR_RETURN(tokenizer->encoder_, make_encoder(tokenizer->spec_, tokenizer->vocabulary_));
  tokenizer->IndexAddedTokens();
  tokenizer->spec_.tokens = {};
  tokenizer->spec_.kinds = {};
  tokenizer->spec_.merges = {};
  tokenizer->spec_.scores = {};
  tokenizer->spec_.chat_template = {};
  return tokenizer;
}

void TextTokenizer::IndexAddedTokens() {
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    const TokenKind kind = vocabulary_.kind(id);
    const std::string& token = vocabulary_.token(id);
    if (kind == TokenKind::kControl || kind == TokenKind::kUnknown) added_.Add(token, id);
    if (kind != TokenKind::kUserDefined) continue;
    const auto rule = spec_.added_rules.find(id);
    if (rule == spec_.added_rules.end() || !rule->second.in_normalized_text) {
      added_.Add(token, id);
      continue;
    }
    const std::optional<NormalizedText> normalized = spec_.normalizes_nfc ? NormalizeNfc(token) : std::nullopt;
    added_normalized_.Add(normalized ? normalized->text : token, id);
  }
}

TextTokenizer::Place TextTokenizer::PlaceOf(const AddedTokens::Match& match, std::string_view text, size_t from) const {
  Place place = {match.begin, match.end};
  const auto rule = spec_.added_rules.find(match.id);
  if (rule == spec_.added_rules.end()) return place;
  if (rule->second.strips_left) place.begin = BeginOfSpaces(text, from, match.begin);
  if (rule->second.strips_right) place.end = EndOfSpaces(text, match.end);
  return place;
}

bool TextTokenizer::NeedsSpace(const Task& task, size_t begin) const {
  if (spec_.space_prefix == SpacePrefix::kNever || (begin == 0 && !task.at_start)) return false;
  if (spec_.space_prefix == SpacePrefix::kFirst && begin > 0) return false;
  const std::string_view rest = task.text.substr(begin);
  return !spec_.space_prefix_unless_space || !(rest.starts_with(' ') || rest.starts_with("\u2581"));
}

void TextTokenizer::AddToken(int32_t id, size_t end, Task& task) {
  task.encoding.ids.push_back(id);
  task.encoding.byte_ends.push_back(end);
}

void TextTokenizer::EncodeNormalized(size_t begin, size_t end, Task& task) const {
  const std::string_view stretch = task.text.substr(0, end);
  const auto encode = [&](size_t from, size_t to) {
    if (from < to) encoder_->Encode(task.text, from, to, NeedsSpace(task, from), task.cache, task.encoding);
  };
  size_t from = begin;  // behind the last added token
  for (auto match = added_normalized_.FindFirst(stretch, begin); match;
       match = added_normalized_.FindFirst(stretch, match->end)) {
    const Place place = PlaceOf(*match, stretch, from);
    encode(from, place.begin);
    AddToken(match->id, place.end, task);
    from = place.end;
  }
  encode(from, end);
}

void TextTokenizer::EncodeStretch(size_t begin, size_t end, Task& task) const {
  std::optional<NormalizedText> normalized;
  if (spec_.normalizes_nfc) normalized = NormalizeNfc(task.text.substr(begin, end - begin));
  if (!normalized) return EncodeNormalized(begin, end, task);
  Task inner = {normalized->text, task.at_start && begin == 0, std::move(task.cache), {}};
  EncodeNormalized(0, inner.text.size(), inner);
  task.cache = std::move(inner.cache);
  normalized->ToOriginal(inner.encoding.byte_ends);
  for (size_t i = 0; i < inner.encoding.ids.size(); ++i) {
    AddToken(inner.encoding.ids[i], begin + inner.encoding.byte_ends[i], task);
  }
}

void TextTokenizer::EncodeRun(size_t begin, size_t end, Task& task) const {
  const std::string_view run = task.text.substr(0, end);
  size_t from = begin;  // behind the last added token
  for (auto match = added_.FindFirst(run, begin); match; match = added_.FindFirst(run, match->end)) {
    if (IsControl(match->id)) continue;  // in text of users, where it is not what it looks like
    const Place place = PlaceOf(*match, run, from);
    if (from < place.begin) EncodeStretch(from, place.begin, task);
    AddToken(match->id, place.end, task);
    from = place.end;
  }
  if (from < end) EncodeStretch(from, end, task);
}

absl::StatusOr<Tokenizer::Encoding> TextTokenizer::EncodeText(std::string_view text) const {
  EPIC_RETURN_IF_ERROR(CheckUtf8(text));
  Task task = {text, false, WordCache(text.size()), {}};
  EncodeRun(0, text.size(), task);
  Encoding& encoding = task.encoding;
  if (!encoding.byte_ends.empty()) encoding.byte_ends.back() = text.size();  // see Encoding: bytes without tokens
  return std::move(encoding);
}

absl::StatusOr<std::vector<int32_t>> TextTokenizer::EncodePieces(std::span<const TextPiece> pieces,
                                                                 bool at_start) const {
  std::string text;
  for (const TextPiece& piece : pieces) {
    EPIC_RETURN_IF_ERROR(CheckUtf8(piece.text));
    text += piece.text;
  }
  Task task = {text, at_start, WordCache(text.size()), {}};
  size_t from = 0;  // behind the last control token
  size_t piece_begin = 0;
  for (const TextPiece& piece : pieces) {
    const std::string_view until_piece_end = std::string_view(text).substr(0, piece_begin + piece.text.size());
    for (auto match = piece.specials ? added_.FindFirst(until_piece_end, piece_begin) : std::nullopt; match;
         match = added_.FindFirst(until_piece_end, match->end)) {
      if (!IsControl(match->id)) continue;  // EncodeRun finds it again
      const Place place = PlaceOf(*match, text, from);
      if (from < place.begin) EncodeRun(from, place.begin, task);
      AddToken(match->id, place.end, task);
      from = place.end;
    }
    piece_begin = until_piece_end.size();
  }
  if (from < text.size()) EncodeRun(from, text.size(), task);
  return std::move(task.encoding.ids);
}

std::string TextTokenizer::DecodeToken(int32_t id, bool with_specials) const {
  if (!vocabulary_.Has(id) || (!with_specials && IsControl(id))) return "";
  return encoder_->BytesOf(id);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(TokenizerSpec spec) {
  if (spec.model != "bpe" && spec.model != "spm") {
    return absl::UnimplementedError(
        fmt::format("the tokenizer model is {}; byte-level BPE (\"bpe\") and SentencePiece's BPE (\"spm\") are run",
                    ShownToken(spec.model)));
  }
  EPIC_RETURN_IF_ERROR(ReadSpecialIds(spec));
  return TextTokenizer::Create(std::move(spec));
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::EncodeWithSpecials(std::string_view text) const {
  const TextPiece piece = {text, true};
  return EncodePieces({&piece, 1}, true);
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool with_specials) const {
  std::string bytes;
  for (const int32_t id : ids) bytes += DecodeToken(id, with_specials);
  if (decode_strips_space() && bytes.starts_with(' ')) bytes.erase(0, 1);
  return bytes;
}

}  // namespace epic
