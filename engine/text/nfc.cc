#include "engine/text/nfc.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "core/utf8.h"

namespace epic {
namespace {

struct CombiningRange {
  uint32_t first;
  uint32_t last;
  uint8_t combining_class;
};

// A character that comes apart to one (second 0) or two others, which may come apart further.
struct Decomposition {
  uint32_t code_point;
  uint32_t first;
  uint32_t second;
  bool composes;  // the two put together are this character again
};

#include "engine/text/nfc_tables.inc"

constexpr uint32_t kCodePoints = 0x110000;
// Everything below is a character of its own that no mark is part of.
constexpr uint32_t kFirstMark = 0x300;

// Hangul syllables and the letters that they are made of, as the standard computes them.
constexpr uint32_t kSyllables = 0xAC00;
constexpr uint32_t kSyllableCount = 11172;
constexpr uint32_t kLeading = 0x1100;
constexpr uint32_t kLeadingCount = 19;
constexpr uint32_t kVowels = 0x1161;
constexpr uint32_t kVowelCount = 21;
constexpr uint32_t kTrailing = 0x11A7;  // one before the first: no trailing consonant
constexpr uint32_t kTrailingCount = 28;

// A combining class below 0xFF, or what makes a character that has none still no safe border.
constexpr uint8_t kUnsafe = 0xFF;

struct Tables {
  // By code point: 0 for a character that begins anew whatever stands before it and is its own NFC. Else the combining
  // class, or kUnsafe for one without a class that comes apart or joins what stands before it.
  std::vector<uint8_t> properties = std::vector<uint8_t>(kCodePoints, 0);
  absl::flat_hash_map<uint32_t, const Decomposition*> decompositions;
  absl::flat_hash_map<uint64_t, uint32_t> compositions;  // by (first, second)
};

uint64_t PairKey(uint32_t first, uint32_t second) { return (static_cast<uint64_t>(first) << 32) | second; }

Tables MakeTables() {
  Tables tables;
  for (const Decomposition& entry : kDecompositions) {
    tables.decompositions.emplace(entry.code_point, &entry);
    if (entry.composes) {
      tables.compositions.emplace(PairKey(entry.first, entry.second), entry.code_point);
      tables.properties[entry.second] = kUnsafe;
    } else {
      tables.properties[entry.code_point] = kUnsafe;
    }
  }
  std::fill_n(tables.properties.begin() + kVowels, kVowelCount, kUnsafe);
  std::fill_n(tables.properties.begin() + kTrailing + 1, kTrailingCount - 1, kUnsafe);
  for (const CombiningRange& range : kCombiningRanges) {
    for (uint32_t code_point = range.first; code_point <= range.last; ++code_point) {
      tables.properties[code_point] = range.combining_class;
    }
  }
  return tables;
}

const Tables& GetTables() {
  static const Tables& tables = *new Tables(MakeTables());
  return tables;
}

struct Symbol {
  uint32_t code_point;
  uint8_t combining_class;
};

uint8_t CombiningClass(uint32_t code_point, const Tables& tables) {
  const uint8_t property = tables.properties[code_point];
  return property == kUnsafe ? 0 : property;
}

void Decompose(uint32_t code_point, const Tables& tables, std::vector<Symbol>& symbols) {
  if (code_point - kSyllables < kSyllableCount) {
    const uint32_t index = code_point - kSyllables;
    const uint32_t trailing = index % kTrailingCount;
    symbols.push_back({kLeading + index / (kVowelCount * kTrailingCount), 0});
    symbols.push_back({kVowels + index / kTrailingCount % kVowelCount, 0});
    if (trailing > 0) symbols.push_back({kTrailing + trailing, 0});
    return;
  }
  const auto found = tables.decompositions.find(code_point);
  if (found == tables.decompositions.end()) {
    symbols.push_back({code_point, CombiningClass(code_point, tables)});
    return;
  }
  Decompose(found->second->first, tables, symbols);
  if (found->second->second != 0) Decompose(found->second->second, tables, symbols);
}

// Marks in the order of their classes, those of one class as they stood.
void OrderMarks(std::vector<Symbol>& symbols) {
  const auto is_mark = [](const Symbol& symbol) { return symbol.combining_class != 0; };
  for (auto begin = symbols.begin(); begin != symbols.end();) {
    begin = std::find_if(begin, symbols.end(), is_mark);
    const auto end = std::find_if_not(begin, symbols.end(), is_mark);
    std::stable_sort(begin, end, [](const Symbol& left, const Symbol& right) {
      return left.combining_class < right.combining_class;
    });
    begin = end;
  }
}

// The character that the two make together, or 0.
uint32_t Composition(uint32_t first, uint32_t second, const Tables& tables) {
  if (first - kLeading < kLeadingCount && second - kVowels < kVowelCount) {
    return kSyllables + ((first - kLeading) * kVowelCount + (second - kVowels)) * kTrailingCount;
  }
  const bool is_open_syllable = first - kSyllables < kSyllableCount && (first - kSyllables) % kTrailingCount == 0;
  if (is_open_syllable && second - kTrailing - 1 < kTrailingCount - 1) return first + (second - kTrailing);
  const auto found = tables.compositions.find(PairKey(first, second));
  return found == tables.compositions.end() ? 0 : found->second;
}

// Joins each character with the last one before it that begins anew, where nothing between them stands in the way.
void Compose(const Tables& tables, std::vector<Symbol>& symbols) {
  size_t count = 0;
  std::optional<size_t> starter;
  for (const Symbol symbol : symbols) {
    if (starter.has_value()) {
      const bool touches = *starter + 1 == count;
      if (touches || symbols[count - 1].combining_class < symbol.combining_class) {
        const uint32_t joined = Composition(symbols[*starter].code_point, symbol.code_point, tables);
        if (joined != 0) {
          symbols[*starter].code_point = joined;
          continue;
        }
      }
    }
    if (symbol.combining_class == 0) starter = count;
    symbols[count++] = symbol;
  }
  symbols.resize(count);
}

void AppendUtf8(uint32_t code_point, std::string& text) {
  const auto continuation = [&](int shift) { text.push_back(static_cast<char>(0x80 | (code_point >> shift & 0x3F))); };
  if (code_point < 0x80) {
    text.push_back(static_cast<char>(code_point));
  } else if (code_point < 0x800) {
    text.push_back(static_cast<char>(0xC0 | code_point >> 6));
    continuation(0);
  } else if (code_point < 0x10000) {
    text.push_back(static_cast<char>(0xE0 | code_point >> 12));
    continuation(6);
    continuation(0);
  } else {
    text.push_back(static_cast<char>(0xF0 | code_point >> 18));
    continuation(12);
    continuation(6);
    continuation(0);
  }
}

std::string Normalized(std::string_view stretch, const Tables& tables) {
  std::vector<Symbol> symbols;
  for (size_t position = 0; position < stretch.size();) {
    const Utf8Character character = ReadUtf8(stretch, position);
    Decompose(character.code_point, tables, symbols);
    position += character.length;
  }
  OrderMarks(symbols);
  Compose(tables, symbols);
  std::string text;
  for (const Symbol& symbol : symbols) AppendUtf8(symbol.code_point, text);
  return text;
}

// Walks over a text from border to border: places where a character begins anew and is its own NFC.
class StretchReader {
 public:
  explicit StretchReader(std::string_view text) : text_(text), tables_(GetTables()) {}

  // Finds the next stretch that holds anything but such characters. False at the end of the text.
  bool Next(size_t& begin, size_t& end) {
    size_t border = position_;  // the last one seen
    bool found = false;
    while (position_ < text_.size()) {
      const Utf8Character character = Read();
      const bool is_border = character.code_point < kFirstMark || tables_.properties[character.code_point] == 0;
      if (is_border && found) break;
      if (is_border) border = position_;
      found |= !is_border;
      position_ += character.length;
    }
    begin = border;
    end = position_;
    return found;
  }

 private:
  Utf8Character Read() const {
    const auto byte = static_cast<unsigned char>(text_[position_]);
    if (byte < 0x80) return {Utf8Character::Kind::kValid, 1, byte};
    return ReadUtf8(text_, position_);
  }

  std::string_view text_;
  const Tables& tables_;
  size_t position_ = 0;
};

}  // namespace

void NormalizedText::ToOriginal(std::span<size_t> positions) const {
  size_t next = 0;  // the first change that ends at or behind the position
  for (size_t& position : positions) {
    while (next < changes.size() && changes[next].end < position) ++next;
    if (next < changes.size() && position > changes[next].begin) {
      position = position == changes[next].end ? changes[next].original_end : changes[next].original_begin;
    } else if (next > 0) {
      position = changes[next - 1].original_end + (position - changes[next - 1].end);
    }
  }
}

std::optional<NormalizedText> NormalizeNfc(std::string_view text) {
  const Tables& tables = GetTables();
  StretchReader reader(text);
  NormalizedText result;
  size_t copied = 0;
  size_t begin = 0;
  size_t end = 0;
  while (reader.Next(begin, end)) {
    const std::string_view stretch = text.substr(begin, end - begin);
    const std::string normalized = Normalized(stretch, tables);
    if (normalized == stretch) continue;
    result.text += text.substr(copied, begin - copied);
    const size_t new_begin = result.text.size();
    result.text += normalized;
    result.changes.push_back({new_begin, result.text.size(), begin, end});
    copied = end;
  }
  if (result.changes.empty()) return std::nullopt;
  result.text += text.substr(copied);
  return result;
}

}  // namespace epic
