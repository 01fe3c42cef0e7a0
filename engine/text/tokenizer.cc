#include "engine/text/tokenizer.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "core/status_macros.h"
#include "core/utf8.h"
#include "engine/text/added_tokens.h"
#include "engine/text/bpe.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/pre_tokenizer.h"
#include "fmt/format.h"

namespace epic {
namespace {

using IdsByString = absl::flat_hash_map<std::string_view, int32_t, std::hash<std::string_view>>;

// A token as an error message shows it: a hostile file must not put kilobytes, control characters or broken UTF-8 into
// a log.
std::string Shown(std::string_view token) {
  constexpr size_t kShownBytes = 40;
  std::string shown;
  size_t position = 0;
  while (position < token.size() && position < kShownBytes) {
    const Utf8Character character = ReadUtf8(token, position);
    const bool shows = character.kind == Utf8Character::Kind::kValid && character.code_point >= 0x20 &&
                       (character.code_point < 0x7F || character.code_point >= 0xA0);
    for (const char byte : token.substr(position, character.length)) {
      shown += shows ? std::string(1, byte) : fmt::format("\\x{:02x}", static_cast<uint8_t>(byte));
    }
    position += character.length;
  }
  return fmt::format("\"{}{}\"", shown, position < token.size() ? "..." : "");
}

// Special and ordinary text never mix: these are not made by merges and decode to nothing.
bool IsSpecial(TokenKind kind) {
  return kind == TokenKind::kControl || kind == TokenKind::kUnknown || kind == TokenKind::kUnused;
}

class ByteLevelBpeTokenizer final : public Tokenizer {
 public:
  explicit ByteLevelBpeTokenizer(TokenizerSpec spec) : spec_(std::move(spec)) {}
  ByteLevelBpeTokenizer(const ByteLevelBpeTokenizer&) = delete;
  ByteLevelBpeTokenizer& operator=(const ByteLevelBpeTokenizer&) = delete;

  // Builds everything else from spec_. To be called once, before anything else.
  absl::Status Build();

  absl::StatusOr<Encoding> EncodeText(std::string_view text) const override;
  absl::StatusOr<std::vector<int32_t>> EncodePieces(std::span<const TextPiece> pieces, bool at_start) const override;
  std::string DecodeToken(int32_t id, bool with_specials) const override;
  int32_t vocab_size() const override { return static_cast<int32_t>(spec_.tokens.size()); }
  bool IsControl(int32_t id) const override { return IsKnown(id) && IsSpecial(spec_.kinds[id]); }
  std::optional<int32_t> TokenId(std::string_view token) const override;
  std::optional<int32_t> sequence_start_id() const override { return spec_.add_bos ? spec_.bos_id : std::nullopt; }
  std::optional<int32_t> eos_id() const override { return spec_.eos_id; }
  std::span<const int32_t> stop_ids() const override { return spec_.stop_ids; }

 private:
  bool IsKnown(int32_t id) const { return id >= 0 && id < vocab_size(); }
  absl::Status CheckSpecialIds();
  absl::Status IndexTokens();
  absl::Status BuildMerger();
  absl::Status AddMerge(size_t rank);
  void IndexWholePieces();
  // Appends the tokens of text[begin, end), in which only user-defined tokens are recognised.
  void EncodeStretch(std::string_view text, size_t begin, size_t end, Encoding& encoding) const;
  // Appends the tokens of text[begin, end), in which nothing but merges is left to do.
  void EncodePlain(std::string_view text, size_t begin, size_t end, Encoding& encoding) const;

  TokenizerSpec spec_;              // merges and chat template are dropped once built
  std::vector<std::string> bytes_;  // what each token decodes to, by id
  IdsByString ids_;                 // by written form; views of spec_.tokens
  AddedTokens control_tokens_;
  AddedTokens user_defined_tokens_;
  std::optional<BytePairMerger> merger_;
  // Pieces that merge into a single token, which most words do; views of bytes_.
  IdsByString whole_pieces_;
};

absl::Status ByteLevelBpeTokenizer::Build() {
  EPIC_RETURN_IF_ERROR(CheckSpecialIds());
  EPIC_RETURN_IF_ERROR(IndexTokens());
  EPIC_RETURN_IF_ERROR(BuildMerger());
  IndexWholePieces();
  spec_.merges = {};
  spec_.chat_template = {};
  return absl::OkStatus();
}

absl::Status ByteLevelBpeTokenizer::CheckSpecialIds() {
  if (spec_.tokens.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return absl::InvalidArgumentError(fmt::format("the vocabulary has {} tokens, more than ids", spec_.tokens.size()));
  }
  if (spec_.kinds.size() != spec_.tokens.size()) {
    return absl::InvalidArgumentError(
        fmt::format("the vocabulary has {} tokens but {} token kinds", spec_.tokens.size(), spec_.kinds.size()));
  }
  if (spec_.eos_id) spec_.stop_ids.push_back(*spec_.eos_id);
  std::vector<std::pair<const char*, int32_t>> special_ids;
  if (spec_.bos_id) special_ids.emplace_back("BOS", *spec_.bos_id);
  if (spec_.eos_id) special_ids.emplace_back("EOS", *spec_.eos_id);
  for (const int32_t id : spec_.stop_ids) special_ids.emplace_back("stop", id);
  for (const auto& [name, id] : special_ids) {
    if (!IsKnown(id)) {
      return absl::InvalidArgumentError(
          fmt::format("the {} token's id {} is outside the vocabulary of {} tokens", name, id, vocab_size()));
    }
    TokenKind& kind = spec_.kinds[id];
    if (kind == TokenKind::kUserDefined || kind == TokenKind::kNormal) kind = TokenKind::kControl;
  }
  std::sort(spec_.stop_ids.begin(), spec_.stop_ids.end());
  spec_.stop_ids.erase(std::unique(spec_.stop_ids.begin(), spec_.stop_ids.end()), spec_.stop_ids.end());
  if (spec_.add_bos && !spec_.bos_id) {
    return absl::InvalidArgumentError("the tokenizer starts sequences with a BOS token but names none");
  }
  return absl::OkStatus();
}

absl::Status ByteLevelBpeTokenizer::IndexTokens() {
  ids_.reserve(spec_.tokens.size());
  bytes_.reserve(spec_.tokens.size());
  for (int32_t id = 0; id < vocab_size(); ++id) {
    const std::string& token = spec_.tokens[id];
    const TokenKind kind = spec_.kinds[id];
    if (token.empty()) return absl::InvalidArgumentError(fmt::format("token {} of the vocabulary is empty", id));
    if (FindInvalidUtf8(token)) {
      return absl::InvalidArgumentError(fmt::format("token {} of the vocabulary ({}) is not UTF-8", id, Shown(token)));
    }
    const auto [existing, is_new] = ids_.try_emplace(token, id);
    if (!is_new) {
      return absl::InvalidArgumentError(
          fmt::format("tokens {} and {} of the vocabulary are both {}", existing->second, id, Shown(token)));
    }
    if (kind == TokenKind::kByte) {
      return absl::InvalidArgumentError(
          fmt::format("token {} ({}) is of the kind \"byte\", which byte-level BPE does not have", id, Shown(token)));
    }
    if (kind == TokenKind::kControl || kind == TokenKind::kUnknown) control_tokens_.Add(token, id);
    if (kind == TokenKind::kUserDefined) user_defined_tokens_.Add(token, id);
    // A normal token outside the alphabet is never the result of merges of bytes; it decodes to its written form.
    std::optional<std::string> bytes;
    if (kind == TokenKind::kNormal) bytes = AlphabetToBytes(token);
    bytes_.push_back(bytes ? *std::move(bytes) : token);
  }
  return absl::OkStatus();
}

absl::Status ByteLevelBpeTokenizer::BuildMerger() {
  std::array<int32_t, 256> byte_ids{};
  for (int byte = 0; byte < 256; ++byte) {
    const std::string stand_in = ByteToAlphabet(static_cast<uint8_t>(byte));
    const std::optional<int32_t> id = TokenId(stand_in);
    byte_ids[byte] = id && spec_.kinds[*id] == TokenKind::kNormal ? *id : BytePairMerger::kNoToken;
    const bool is_plain = (byte >= 0x20 && byte <= 0x7E) || byte == '\n';
    if (is_plain && byte_ids[byte] == BytePairMerger::kNoToken) {
      return absl::InvalidArgumentError(
          fmt::format("the vocabulary has no ordinary token for the byte 0x{:02x} (written {}), so that it cannot "
                      "represent plain text",
                      byte, Shown(stand_in)));
    }
  }
  merger_.emplace(byte_ids);
  merger_->Reserve(spec_.merges.size());
  for (size_t rank = 0; rank < spec_.merges.size(); ++rank) EPIC_RETURN_IF_ERROR(AddMerge(rank));
  return absl::OkStatus();
}

absl::Status ByteLevelBpeTokenizer::AddMerge(size_t rank) {
  const std::string_view merge = spec_.merges[rank];
  const size_t space = merge.find(' ');
  if (space == std::string_view::npos || merge.find(' ', space + 1) != std::string_view::npos) {
    return absl::InvalidArgumentError(
        fmt::format("merge {} is {}; expected two tokens with one space between them", rank, Shown(merge)));
  }
  const std::string_view left = merge.substr(0, space);
  const std::string_view right = merge.substr(space + 1);
  const std::string merged = std::string(left).append(right);
  int32_t ids[3];
  size_t count = 0;
  for (const std::string_view token : {left, right, std::string_view(merged)}) {
    const std::optional<int32_t> id = TokenId(token);
    if (!id) {
      return absl::InvalidArgumentError(
          fmt::format("merge {} ({}) names {}, which is not in the vocabulary", rank, Shown(merge), Shown(token)));
    }
    if (IsSpecial(spec_.kinds[*id])) {
      return absl::InvalidArgumentError(fmt::format(
          "merge {} ({}) would build the control token {} out of ordinary text", rank, Shown(merge), Shown(token)));
    }
    ids[count++] = *id;
  }
  if (!merger_->AddMerge(ids[0], ids[1], ids[2])) {
    return absl::InvalidArgumentError(fmt::format("merge {} ({}) stands in the list twice", rank, Shown(merge)));
  }
  return absl::OkStatus();
}

void ByteLevelBpeTokenizer::IndexWholePieces() {
  constexpr size_t kPieceBytesMax = 64;  // longer words are rare, and then merged
  std::vector<BytePairMerger::Token> tokens;
  for (int32_t id = 0; id < vocab_size(); ++id) {
    if (spec_.kinds[id] != TokenKind::kNormal || bytes_[id].size() > kPieceBytesMax) continue;
    tokens.clear();
    merger_->Encode(bytes_[id], tokens);
    if (tokens.size() == 1 && tokens[0].id == id) whole_pieces_.emplace(bytes_[id], id);
  }
}

void ByteLevelBpeTokenizer::EncodePlain(std::string_view text, size_t begin, size_t end, Encoding& encoding) const {
  const std::string_view stretch = text.substr(begin, end - begin);
  std::vector<BytePairMerger::Token> tokens;
  for (size_t position = 0; position < stretch.size();) {
    const size_t piece_end = NextSmolLmPiece(stretch, position);
    const std::string_view piece = stretch.substr(position, piece_end - position);
    if (const auto whole = whole_pieces_.find(piece); whole != whole_pieces_.end()) {
      encoding.ids.push_back(whole->second);
      encoding.byte_ends.push_back(begin + piece_end);
    } else {
      tokens.clear();
      merger_->Encode(piece, tokens);
      for (const BytePairMerger::Token& token : tokens) {
        encoding.ids.push_back(token.id);
        encoding.byte_ends.push_back(begin + position + token.end);
      }
    }
    position = piece_end;
  }
}

void ByteLevelBpeTokenizer::EncodeStretch(std::string_view text, size_t begin, size_t end, Encoding& encoding) const {
  const std::string_view stretch = text.substr(0, end);
  while (begin < end) {
    const std::optional<AddedTokens::Match> match = user_defined_tokens_.FindFirst(stretch, begin);
    EncodePlain(text, begin, match ? match->begin : end, encoding);
    if (!match) break;
    encoding.ids.push_back(match->id);
    encoding.byte_ends.push_back(match->end);
    begin = match->end;
  }
}

absl::Status CheckUtf8(std::string_view text) {
  const std::optional<size_t> position = FindInvalidUtf8(text);
  if (!position) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("the text is not UTF-8: byte {} (0x{:02x}) does not begin a whole "
                  "character; send UTF-8",
                  *position, static_cast<uint8_t>(text[*position])));
}

absl::StatusOr<Tokenizer::Encoding> ByteLevelBpeTokenizer::EncodeText(std::string_view text) const {
  EPIC_RETURN_IF_ERROR(CheckUtf8(text));
  Encoding encoding;
  EncodeStretch(text, 0, text.size(), encoding);
  if (!encoding.byte_ends.empty()) encoding.byte_ends.back() = text.size();  // see Encoding: bytes without tokens
  return encoding;
}

absl::StatusOr<std::vector<int32_t>> ByteLevelBpeTokenizer::EncodePieces(std::span<const TextPiece> pieces,
                                                                         bool /*at_start*/) const {
  Encoding encoding;
  std::string run;  // what has stood since the last control token
  const auto end_run = [&] {
    EncodeStretch(run, 0, run.size(), encoding);
    run.clear();
  };
  for (const TextPiece& piece : pieces) {
    EPIC_RETURN_IF_ERROR(CheckUtf8(piece.text));
    size_t begin = 0;
    while (piece.specials) {
      const std::optional<AddedTokens::Match> match = control_tokens_.FindFirst(piece.text, begin);
      if (!match) break;
      run += piece.text.substr(begin, match->begin - begin);
      end_run();
      encoding.ids.push_back(match->id);
      begin = match->end;
    }
    run += piece.text.substr(begin);
  }
  end_run();
  return std::move(encoding.ids);
}

std::string ByteLevelBpeTokenizer::DecodeToken(int32_t id, bool with_specials) const {
  if (!IsKnown(id) || (!with_specials && IsSpecial(spec_.kinds[id]))) return "";
  return bytes_[id];
}

std::optional<int32_t> ByteLevelBpeTokenizer::TokenId(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(TokenizerSpec spec) {
  if (spec.model != "bpe") {
    return absl::UnimplementedError(
        fmt::format("the tokenizer model is {}; only byte-level BPE (\"bpe\") is supported", Shown(spec.model)));
  }
  if (spec.pre_tokenizer != "smollm") {
    return absl::UnimplementedError(
        fmt::format("the pre-tokenizer is {}; only \"smollm\" is supported", Shown(spec.pre_tokenizer)));
  }
  auto tokenizer = std::make_unique<ByteLevelBpeTokenizer>(std::move(spec));
  EPIC_RETURN_IF_ERROR(tokenizer->Build());
  return tokenizer;
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::EncodeWithSpecials(std::string_view text) const {
  const TextPiece piece = {text, true};
  return EncodePieces({&piece, 1}, true);
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool with_specials) const {
  std::string bytes;
  for (const int32_t id : ids) bytes += DecodeToken(id, with_specials);
  return bytes;
}

}  // namespace epic
