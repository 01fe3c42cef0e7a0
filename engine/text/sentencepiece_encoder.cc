#include <array>
#include <utility>

#include "core/status_macros.h"
#include "core/utf8.h"
#include "engine/text/plain_encoder.h"
#include "engine/text/score_merges.h"
#include "fmt/format.h"

namespace epic {
namespace {

constexpr std::string_view kSpaceMark = "\u2581";

// The byte that a token of the kind "byte" stands for: <0x0A>, capital digits.
std::optional<uint8_t> ByteOfToken(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  int value = 0;
  for (const char digit : token.substr(3, 2)) {
    const bool is_decimal = digit >= '0' && digit <= '9';
    if (!is_decimal && (digit < 'A' || digit > 'F')) return std::nullopt;
    value = value * 16 + (is_decimal ? digit - '0' : digit - 'A' + 10);
  }
  return static_cast<uint8_t>(value);
}

// A space, or the mark that stands for one, at `position`: its length, or 0.
size_t SpaceLength(std::string_view text, size_t position) {
  if (text[position] == ' ') return 1;
  return text.substr(position).starts_with(kSpaceMark) ? kSpaceMark.size() : 0;
}

class SentencePieceEncoder final : public PlainEncoder {
 public:
  explicit SentencePieceEncoder(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

  // To be called once, before anything else.
  absl::Status Build(const TokenizerSpec& spec);

  void Encode(std::string_view text, size_t begin, size_t end, bool with_space, WordCache& cache,
              Tokenizer::Encoding& encoding) const override;
  std::string BytesOf(int32_t id) const override { return bytes_[id]; }

 private:
  absl::Status ReadTokens();
  void IndexWholeWords();
  // Whether no merge joins a space to what stands before it, unless that is a space too.
  bool MergesEndBeforeSpaces(const std::vector<std::string>& merges) const;
  size_t EndOfWord(std::string_view text, size_t begin) const;
  void MergeWord(std::string_view word, std::vector<BytePairMerger::Token>& tokens) const;
  // Appends the tokens of `word`, of which the first `unseen_bytes` are not in the text and the rest stands there at
  // `offset`.
  void EncodeWord(std::string_view word, size_t offset, size_t unseen_bytes, WordCache& cache,
                  std::vector<BytePairMerger::Token>& scratch, Tokenizer::Encoding& encoding) const;

  const Vocabulary& vocabulary_;
  std::vector<std::string> bytes_;                        // what each token decodes to, by id
  std::array<int32_t, 256> byte_ids_{};                   // the fallback for the bytes of characters that are no token
  std::array<int32_t, 128> ascii_ids_{};                  // characters that are tokens, or kNoToken
  absl::flat_hash_map<char32_t, int32_t> character_ids_;  // the same behind ASCII
  int32_t space_id_ = BytePairMerger::kNoToken;
  BytePairMerger merger_;
  // Without it a whole text is one word.
  bool words_begin_with_spaces_ = false;
  // Words that are a single token, with a space for the mark; views of bytes_.
  IdsByString whole_words_;
};

absl::Status SentencePieceEncoder::Build(const TokenizerSpec& spec) {
  EPIC_RETURN_IF_ERROR(ReadTokens());
  std::vector<std::string> from_scores;
  const bool has_merges = !spec.merges.empty();
  if (!has_merges) {
    EPIC_ASSIGN_OR_RETURN(from_scores, MergesFromScores(spec.tokens, spec.kinds, spec.scores));
  }
  const std::vector<std::string>& merges = has_merges ? spec.merges : from_scores;
  // Conversions of SentencePiece files may list a control token as made of its parts ("<" and "s>"). Its text never
  // comes to merges in the reference, and must not become the token in text of users.
  EPIC_RETURN_IF_ERROR(vocabulary_.AddMerges(merges, Vocabulary::SpecialMerges::kLeaveOut, merger_));
  words_begin_with_spaces_ = MergesEndBeforeSpaces(merges);
  IndexWholeWords();
  return absl::OkStatus();
}

absl::Status SentencePieceEncoder::ReadTokens() {
  byte_ids_.fill(BytePairMerger::kNoToken);
  ascii_ids_.fill(BytePairMerger::kNoToken);
  bytes_.reserve(vocabulary_.size());
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    const std::string& token = vocabulary_.token(id);
    if (vocabulary_.kind(id) == TokenKind::kByte) {
      const std::optional<uint8_t> byte = ByteOfToken(token);
      if (!byte) {
        return absl::InvalidArgumentError(fmt::format(
            "token {} ({}) is of the kind \"byte\"; expected it to be written as <0x0A> is", id, ShownToken(token)));
      }
      byte_ids_[*byte] = id;
      bytes_.emplace_back(1, static_cast<char>(*byte));
      continue;
    }
    std::string bytes;
    for (size_t position = 0; position < token.size();) {
      const size_t space = SpaceLength(token, position);
      bytes.push_back(space > 0 ? ' ' : token[position]);
      position += space > 0 ? space : 1;
    }
    bytes_.push_back(std::move(bytes));
    const Utf8Character first = ReadUtf8(token, 0);
    if (vocabulary_.kind(id) != TokenKind::kNormal || first.length != token.size()) continue;
    if (first.code_point < ascii_ids_.size()) ascii_ids_[first.code_point] = id;
    if (token == kSpaceMark) space_id_ = id;
    character_ids_.emplace(first.code_point, id);
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (byte_ids_[byte] == BytePairMerger::kNoToken) {
      return absl::InvalidArgumentError(
          fmt::format("the vocabulary has no token <0x{:02X}>, so that it cannot represent every text", byte));
    }
  }
  if (space_id_ == BytePairMerger::kNoToken) {
    return absl::InvalidArgumentError("the vocabulary has no ordinary token for the space (written \"\u2581\")");
  }
  return absl::OkStatus();
}

bool SentencePieceEncoder::MergesEndBeforeSpaces(const std::vector<std::string>& merges) const {
  for (const std::string& merge : merges) {
    // The two parts are checked as results of other merges, but for what meets at the place where they join.
    const size_t space = merge.find(' ');
    const std::string_view left = std::string_view(merge).substr(0, space);
    const std::string_view right = std::string_view(merge).substr(space + 1);
    if (right.starts_with(kSpaceMark) && !left.ends_with(kSpaceMark)) return false;
  }
  return true;
}

void SentencePieceEncoder::IndexWholeWords() {
  std::vector<BytePairMerger::Token> tokens;
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    if (vocabulary_.kind(id) != TokenKind::kNormal) continue;
    MergeWord(bytes_[id], tokens);
    if (tokens.size() == 1 && tokens[0].id == id) whole_words_.try_emplace(bytes_[id], id);
  }
}

size_t SentencePieceEncoder::EndOfWord(std::string_view text, size_t begin) const {
  if (!words_begin_with_spaces_) return text.size();
  size_t end = begin;
  while (end < text.size()) {
    const size_t space = SpaceLength(text, end);
    if (space == 0) break;
    end += space;
  }
  while (end < text.size() && SpaceLength(text, end) == 0) ++end;
  return end;
}

void SentencePieceEncoder::MergeWord(std::string_view word, std::vector<BytePairMerger::Token>& tokens) const {
  tokens.clear();
  for (size_t position = 0; position < word.size();) {
    const auto byte = static_cast<uint8_t>(word[position]);
    int32_t id = BytePairMerger::kNoToken;
    size_t length = 1;
    if (byte == ' ') {
      id = space_id_;
    } else if (byte < ascii_ids_.size()) {
      id = ascii_ids_[byte];
    } else {
      const Utf8Character character = ReadUtf8(word, position);
      length = character.length;
      const auto found = character_ids_.find(character.code_point);
      if (found != character_ids_.end()) id = found->second;
    }
    if (id != BytePairMerger::kNoToken) {
      tokens.push_back({id, position + length});
    } else {
      for (size_t i = position; i < position + length; ++i) {
        tokens.push_back({byte_ids_[static_cast<uint8_t>(word[i])], i + 1});
      }
    }
    position += length;
  }
  merger_.Merge(tokens);
}

void SentencePieceEncoder::EncodeWord(std::string_view word, size_t offset, size_t unseen_bytes, WordCache& cache,
                                      std::vector<BytePairMerger::Token>& scratch,
                                      Tokenizer::Encoding& encoding) const {
  if (const auto whole = whole_words_.find(word); whole != whole_words_.end()) {
    encoding.ids.push_back(whole->second);
    encoding.byte_ends.push_back(offset + word.size() - unseen_bytes);
    return;
  }
  WordCache::Entry* const entry = cache.PlaceOf(word);
  std::vector<BytePairMerger::Token>& tokens = entry != nullptr ? entry->tokens : scratch;
  if (entry == nullptr || entry->word != word) {
    MergeWord(word, tokens);
    if (entry != nullptr) entry->word = word;
  }
  for (const BytePairMerger::Token& token : tokens) {
    encoding.ids.push_back(token.id);
    encoding.byte_ends.push_back(offset + token.end - unseen_bytes);
  }
}

void SentencePieceEncoder::Encode(std::string_view text, size_t begin, size_t end, bool with_space, WordCache& cache,
                                  Tokenizer::Encoding& encoding) const {
  const std::string_view stretch = text.substr(begin, end - begin);
  std::vector<BytePairMerger::Token> scratch;
  size_t position = 0;
  if (with_space && !stretch.empty()) {
    position = EndOfWord(stretch, 0);
    EncodeWord(fmt::format(" {}", stretch.substr(0, position)), begin, 1, cache, scratch, encoding);
  }
  while (position < stretch.size()) {
    const size_t word_end = EndOfWord(stretch, position);
    EncodeWord(stretch.substr(position, word_end - position), begin + position, 0, cache, scratch, encoding);
    position = word_end;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<PlainEncoder>> MakeSentencePieceEncoder(const TokenizerSpec& spec,
                                                                       const Vocabulary& vocabulary) {
  auto encoder = std::make_unique<SentencePieceEncoder>(vocabulary);
  EPIC_RETURN_IF_ERROR(encoder->Build(spec));
  return encoder;
}

}  // namespace epic
