// Unicode's normalisation form NFC: composed characters instead of letters with marks behind them.
//
// The tables are ours and not an installed library's, because token ids decide chunk keys: make_nfc_tables.py asks the
// `tokenizers` package for them, so that both know the same version of Unicode. Pure functions, thread-safe.
#ifndef EPIC_ENGINE_TEXT_NFC_H_
#define EPIC_ENGINE_TEXT_NFC_H_

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace epic {

// A text in NFC that was not before, and where its parts came from.
struct NormalizedText {
  // A stretch that changed: it was original[original_begin, original_end) and is text[begin, end).
  struct Change {
    size_t begin = 0;
    size_t end = 0;
    size_t original_begin = 0;
    size_t original_end = 0;
  };

  // Turns positions in `text`, in ascending order, into positions in the original. One inside a stretch that changed
  // becomes that stretch's beginning, so that the bytes of the stretch count to whatever ends with it.
  void ToOriginal(std::span<size_t> positions) const;

  std::string text;
  std::vector<Change> changes;  // in order
};

// Nothing where `text` is in NFC already, which a quick look tells for most. Time is n log n at the worst.
// REQUIRES: `text` is UTF-8.
std::optional<NormalizedText> NormalizeNfc(std::string_view text);

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_NFC_H_
