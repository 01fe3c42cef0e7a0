#include "engine/text/pre_tokenizer.h"

#include <array>
#include <utility>

#include "core/utf8.h"
#include "engine/text/unicode_classes.h"

namespace epic {
namespace {

using enum CharacterClass;

struct ClassedCharacter {
  CharacterClass character_class;
  size_t length;
};

ClassedCharacter ReadClass(std::string_view text, size_t position) {
  const auto byte = static_cast<unsigned char>(text[position]);
  if (byte < 0x80) return {ClassOf(byte), 1};
  const Utf8Character character = ReadUtf8(text, position);
  return {ClassOf(character.code_point), character.length};
}

bool IsLineEnd(char byte) { return byte == '\r' || byte == '\n'; }

// Everything that is neither white space nor a letter nor a number, to the expressions.
bool IsSymbol(CharacterClass character_class) {
  return character_class == kOther || character_class == kMark || character_class == kDigitsNumber;
}

// The end of the run of characters at `begin` whose class `belongs` accepts.
template <typename Belongs>
size_t EndOfRun(std::string_view text, size_t begin, Belongs belongs) {
  size_t end = begin;
  while (end < text.size()) {
    const ClassedCharacter next = ReadClass(text, end);
    if (!belongs(next.character_class)) break;
    end += next.length;
  }
  return end;
}

size_t EndOfLetters(std::string_view text, size_t begin) {
  return EndOfRun(text, begin, [](CharacterClass next) { return IsLetter(next); });
}

size_t EndOfSymbols(std::string_view text, size_t begin) { return EndOfRun(text, begin, IsSymbol); }

// The length of one of 's 't 're 've 'm 'll 'd at `begin`, where an apostrophe stands, or 0. In any case, the long s
// counts as an s.
size_t ContractionLength(std::string_view text, size_t begin, bool any_case) {
  const std::string_view rest = text.substr(begin + 1);
  const auto letter = [&](size_t i) -> char {
    if (i >= rest.size()) return '\0';
    return any_case && rest[i] >= 'A' && rest[i] <= 'Z' ? static_cast<char>(rest[i] - 'A' + 'a') : rest[i];
  };
  switch (letter(0)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return letter(1) == 'e' ? 3 : 0;
    case 'l':
      return letter(1) == 'l' ? 3 : 0;
    default:
      return any_case && rest.starts_with("\u017F") ? 3 : 0;
  }
}

// \s+(?!\S)|\s+: a run of white space. Where something follows it, its last character is left over: a space then joins
// what follows, anything else becomes a piece of its own. What `ends_text` accepts counts as the end of the text.
template <typename EndsText>
size_t EndOfSpaces(std::string_view text, size_t begin, EndsText ends_text) {
  size_t end = begin;
  size_t last = begin;  // where the run's last character begins
  while (end < text.size()) {
    const ClassedCharacter next = ReadClass(text, end);
    if (next.character_class != kSpace) {
      if (ends_text(next.character_class)) return end;
      return last > begin ? last : end;
    }
    last = end;
    end += next.length;
  }
  return end;
}

// \s*[\r\n]+|\s+(?!\S)|\s+: white space up to its last line end, where it has one.
size_t EndOfSpacesAndLines(std::string_view text, size_t begin) {
  size_t end = begin;
  size_t last = begin;
  size_t behind_line_end = begin;
  while (end < text.size()) {
    const ClassedCharacter next = ReadClass(text, end);
    if (next.character_class != kSpace) break;
    last = end;
    end += next.length;
    if (IsLineEnd(text[last])) behind_line_end = end;
  }
  if (behind_line_end > begin) return behind_line_end;
  return end < text.size() && last > begin ? last : end;
}

//  ?[^\s\p{L}\p{N}]+ and then what `trails` accepts; `first` is the character at `begin`. `begin` where it does not
//  match.
template <typename Trails>
size_t EndOfSymbolsAnd(std::string_view text, size_t begin, CharacterClass first, Trails trails) {
  size_t symbols = begin;
  if (text[begin] == ' ') {
    ++symbols;
    if (symbols == text.size() || !IsSymbol(ReadClass(text, symbols).character_class)) return begin;
  } else if (!IsSymbol(first)) {
    return begin;
  }
  size_t end = EndOfSymbols(text, symbols);
  while (end < text.size() && trails(text[end])) ++end;
  return end;
}

size_t NextGpt2Piece(std::string_view text, size_t begin) {
  if (text[begin] == '\'') {
    const size_t length = ContractionLength(text, begin, false);
    if (length > 0) return begin + length;
  }
  const size_t word = text[begin] == ' ' && begin + 1 < text.size() ? begin + 1 : begin;
  const CharacterClass first = ReadClass(text, word).character_class;
  if (IsLetter(first)) return EndOfLetters(text, word);
  if (first == kNumber) return EndOfRun(text, word, [](CharacterClass next) { return next == kNumber; });
  if (IsSymbol(first)) return EndOfSymbols(text, word);
  return EndOfSpaces(text, begin, [](CharacterClass) { return false; });
}

size_t NextSmolLmPiece(std::string_view text, size_t begin) {
  const auto is_number = [](CharacterClass next) { return next == kNumber || next == kDigitsNumber; };
  const auto is_symbol = [](CharacterClass next) { return next == kOther || next == kMark; };
  const ClassedCharacter first = ReadClass(text, begin);
  if (is_number(first.character_class)) return begin + first.length;
  if (text[begin] == '\'') {
    const size_t length = ContractionLength(text, begin, false);
    if (length > 0) return begin + length;
  }
  const size_t word = text[begin] == ' ' && begin + 1 < text.size() ? begin + 1 : begin;
  const CharacterClass next = ReadClass(text, word).character_class;
  if (IsLetter(next)) return EndOfLetters(text, word);
  if (is_symbol(next)) return EndOfRun(text, word, is_symbol);
  return EndOfSpaces(text, begin, is_number);
}

// Llama 3's and Qwen 2's, which differ in how many digits stay together.
size_t NextLlama3Piece(std::string_view text, size_t begin, int digits_max) {
  if (text[begin] == '\'') {
    const size_t length = ContractionLength(text, begin, true);
    if (length > 0) return begin + length;
  }
  const ClassedCharacter first = ReadClass(text, begin);
  if (IsLetter(first.character_class)) return EndOfLetters(text, begin);
  size_t end = begin + first.length;
  if (first.character_class == kNumber) {
    for (int digits = 1; digits < digits_max && end < text.size(); ++digits) {
      const ClassedCharacter next = ReadClass(text, end);
      if (next.character_class != kNumber) break;
      end += next.length;
    }
    return end;
  }
  if (!IsLineEnd(text[begin]) && end < text.size() && IsLetter(ReadClass(text, end).character_class)) {
    return EndOfLetters(text, end);
  }
  end = EndOfSymbolsAnd(text, begin, first.character_class, IsLineEnd);
  return end > begin ? end : EndOfSpacesAndLines(text, begin);
}

bool MayLeadWord(CharacterClass character_class) {  // letters that come before the lower case of a word
  return character_class == kUpper || character_class == kOtherLetter || character_class == kMark;
}
bool MayEndWord(CharacterClass character_class) {
  return character_class == kLower || character_class == kOtherLetter || character_class == kMark;
}

// [leading]*[ending]+ at `begin`, or `begin` where that does not match. Letters that are both go to the leading ones as
// far as one is left for the end. `leading_end` is where the run of leading letters ends.
size_t EndOfCasedWord(std::string_view text, size_t begin, size_t& leading_end) {
  size_t end = begin;
  size_t behind_last_ending = begin;  // within the leading run
  while (end < text.size()) {
    const ClassedCharacter next = ReadClass(text, end);
    if (!MayLeadWord(next.character_class)) break;
    end += next.length;
    if (MayEndWord(next.character_class)) behind_last_ending = end;
  }
  leading_end = end;
  const size_t tail = EndOfRun(text, end, MayEndWord);
  return tail > end ? tail : behind_last_ending;
}

size_t NextTekkenPiece(std::string_view text, size_t begin) {
  const ClassedCharacter first = ReadClass(text, begin);
  if (first.character_class == kNumber) return begin + first.length;
  const bool may_stand_before_word = !IsLineEnd(text[begin]) && !IsLetter(first.character_class);
  const size_t behind_first = begin + first.length;
  size_t leading_end_behind = behind_first;
  size_t leading_end = begin;
  if (may_stand_before_word) {
    const size_t end = EndOfCasedWord(text, behind_first, leading_end_behind);
    if (end > behind_first) return end;
  }
  if (!may_stand_before_word || first.character_class == kMark) {
    const size_t end = EndOfCasedWord(text, begin, leading_end);
    if (end > begin) return end;
  }
  // No letter that ends a word: only upper case is left.
  if (may_stand_before_word && leading_end_behind > behind_first) return leading_end_behind;
  if (leading_end > begin) return leading_end;
  const size_t end =
      EndOfSymbolsAnd(text, begin, first.character_class, [](char byte) { return IsLineEnd(byte) || byte == '/'; });
  return end > begin ? end : EndOfSpacesAndLines(text, begin);
}

}  // namespace

std::optional<PreTokenizer> PreTokenizerByName(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, PreTokenizer>, 7> kNames = {{
      {"gpt-2", PreTokenizer::kGpt2},
      {"smollm", PreTokenizer::kSmolLm},
      {"llama-bpe", PreTokenizer::kLlama3},
      {"llama3", PreTokenizer::kLlama3},
      {"llama-v3", PreTokenizer::kLlama3},
      {"qwen2", PreTokenizer::kQwen2},
      {"tekken", PreTokenizer::kTekken},
  }};
  for (const auto& [known, pre_tokenizer] : kNames) {
    if (known == name) return pre_tokenizer;
  }
  return std::nullopt;
}

size_t NextPiece(PreTokenizer pre_tokenizer, std::string_view text, size_t begin) {
  switch (pre_tokenizer) {
    case PreTokenizer::kGpt2:
      return NextGpt2Piece(text, begin);
    case PreTokenizer::kSmolLm:
      return NextSmolLmPiece(text, begin);
    case PreTokenizer::kLlama3:
      return NextLlama3Piece(text, begin, 3);
    case PreTokenizer::kQwen2:
      return NextLlama3Piece(text, begin, 1);
    case PreTokenizer::kTekken:
      return NextTekkenPiece(text, begin);
  }
  return text.size();
}

}  // namespace epic
