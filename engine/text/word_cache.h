// Words whose tokens were found a moment ago, so that a long text merges each of its frequent words once.
//
// Bounded: a fixed number of places, one word each, and the newer word takes the place. Lives as long as one call that
// encodes a text; not thread-safe.
#ifndef EPIC_ENGINE_TEXT_WORD_CACHE_H_
#define EPIC_ENGINE_TEXT_WORD_CACHE_H_

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/bpe.h"

namespace epic {

class WordCache {
 public:
  // `text_bytes`: of the whole text. A short one is not worth the memory.
  explicit WordCache(size_t text_bytes) : in_use_(text_bytes >= kTextBytesMin) {}

  struct Entry {
    std::string word;
    std::vector<BytePairMerger::Token> tokens;
  };

  // The place of `word`: it holds the word's tokens where its `word` is that word, else the caller may fill it. Null
  // where the word is not to be remembered.
  Entry* PlaceOf(std::string_view word) {
    if (!in_use_ || word.size() > kWordBytesMax) return nullptr;
    if (entries_ == nullptr) entries_ = std::make_unique<std::array<Entry, kPlaces>>();
    return &(*entries_)[std::hash<std::string_view>()(word) % kPlaces];
  }

 private:
  static constexpr size_t kPlaces = 8192;
  static constexpr size_t kWordBytesMax = 128;
  static constexpr size_t kTextBytesMin = 4096;

  bool in_use_;
  std::unique_ptr<std::array<Entry, kPlaces>> entries_;
};

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_WORD_CACHE_H_
