// A sentence hidden in long text (Kamradt's needle in a haystack): a grid of lengths and depths.
#include <algorithm>
#include <array>
#include <filesystem>
#include <set>
#include <span>
#include <system_error>

#include "core/sha256.h"
#include "core/status_macros.h"
#include "core/utf8.h"
#include "engine/files/file_error.h"
#include "eval/task_internal.h"
#include "eval/task_random.h"
#include "fmt/format.h"

namespace epic::eval::internal {
namespace {

// Those that the haystack names are not asked for.
constexpr std::array<const char*, 32> kCities = {
    "Lisbon",  "Nairobi", "Oslo",       "Hanoi",    "Quito",     "Dakar",    "Riga",      "Havana",
    "Jakarta", "Warsaw",  "Lima",       "Helsinki", "Marseille", "Osaka",    "Cairo",     "Dublin",
    "Prague",  "Bogota",  "Tbilisi",    "Perth",    "Montreal",  "Kampala",  "Reykjavik", "Manila",
    "Naples",  "Ankara",  "Casablanca", "Zagreb",   "Tallinn",   "Santiago", "Mombasa",   "Kyoto"};
// Long enough not to be guessed, short enough for small models to repeat.
constexpr int32_t kNumberMin = 10'000;
constexpr int32_t kNumberMax = 99'999;
// Code and tables have no sentence ends; they are cut after so many words.
constexpr int64_t kSentenceWordsMax = 100;

struct Sentence {
  std::string_view text;  // with the white space behind it
  int64_t words = 0;
};

struct Haystack {
  std::string text;
  std::vector<Sentence> sentences;    // all of text, which they view
  std::vector<int64_t> words_before;  // of sentence i; one more for the end
  std::vector<const char*> cities;    // not in text
  std::vector<int32_t> numbers;       // of five digits, not in text
  int64_t words() const { return words_before.back(); }
};

bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Whether a word ends a sentence: a full stop, question or exclamation mark, then nothing but quotes and brackets.
bool EndsSentence(std::string_view word) {
  constexpr std::array<std::string_view, 6> kClosing = {"\"", "'", ")", "]", "\u201D", "\u2019"};
  for (bool is_stripped = true; is_stripped;) {
    is_stripped = false;
    for (const std::string_view closing : kClosing) {
      if (!word.ends_with(closing)) continue;
      word.remove_suffix(closing.size());
      is_stripped = true;
    }
  }
  return word.ends_with('.') || word.ends_with('?') || word.ends_with('!');
}

// A blank line ends a sentence too: headings have no full stop.
std::vector<Sentence> SplitSentences(std::string_view text) {
  std::vector<Sentence> sentences;
  size_t begin = 0;
  int64_t words = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t word_begin = i;
    while (i < text.size() && !IsSpace(text[i])) ++i;
    const std::string_view word = text.substr(word_begin, i - word_begin);
    const size_t space_begin = i;
    while (i < text.size() && IsSpace(text[i])) ++i;
    const std::string_view space = text.substr(space_begin, i - space_begin);
    ++words;
    if (i == text.size() || EndsSentence(word) || std::count(space.begin(), space.end(), '\n') > 1 ||
        words == kSentenceWordsMax) {
      sentences.push_back({text.substr(begin, i - begin), words});
      begin = i;
      words = 0;
    }
  }
  return sentences;
}

std::string LowerAscii(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

absl::Status PrepareHaystack(const std::string& path, Haystack& haystack) {
  haystack.sentences = SplitSentences(haystack.text);
  haystack.words_before = {0};
  for (const Sentence& sentence : haystack.sentences) {
    haystack.words_before.push_back(haystack.words() + sentence.words);
  }
  const std::string lower = LowerAscii(haystack.text);
  for (const char* const city : kCities) {
    if (lower.find(LowerAscii(city)) == std::string::npos) haystack.cities.push_back(city);
  }
  std::vector<bool> is_taken(kNumberMax + 1, false);
  int32_t last_five = 0;
  int digits = 0;
  for (const char c : haystack.text) {
    const bool is_digit = c >= '0' && c <= '9';
    digits = is_digit ? std::min(digits + 1, 5) : 0;
    last_five = is_digit ? (last_five % 10'000) * 10 + (c - '0') : 0;
    if (digits == 5) is_taken[static_cast<size_t>(last_five)] = true;
  }
  for (int32_t number = kNumberMin; number <= kNumberMax; ++number) {
    if (!is_taken[static_cast<size_t>(number)]) haystack.numbers.push_back(number);
  }
  if (haystack.cities.empty() || haystack.numbers.empty()) {
    return BrokenFile(path, "its texts name every {} that a needle could: expected other texts",
                      haystack.cities.empty() ? "city" : "five-digit number");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> TextNames(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    return absl::NotFoundError(fmt::format("{}: no such folder, expected texts (*.txt) for task needle", Quoted(path)));
  }
  if (!fs::is_directory(status)) {
    return BrokenFile(path, "is a file, expected a folder of texts (*.txt) for task needle");
  }
  std::vector<std::string> names;
  fs::directory_iterator entries(path, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    std::string name = entries->path().filename().string();
    if (name.ends_with(".txt")) names.push_back(std::move(name));
  }
  if (error) return absl::FailedPreconditionError(fmt::format("{}: {}", path, error.message()));
  if (names.empty()) return BrokenFile(path, "has no text, expected files *.txt");
  std::sort(names.begin(), names.end());
  return names;
}

// Fills text with all texts that are UTF-8, one after the other.
absl::Status ReadTexts(const std::string& path, Task& task, std::string& text) {
  EPIC_ASSIGN_OR_RETURN(const std::vector<std::string> names, TextNames(path));
  std::string digested;
  int64_t bytes_left = kDataBytesMax;
  for (const std::string& name : names) {
    const std::string file = (std::filesystem::path(path) / name).string();
    EPIC_ASSIGN_OR_RETURN(const std::string data, ReadData(file, bytes_left, "a text"));
    bytes_left -= static_cast<int64_t>(data.size());
    digested += fmt::format("{}\n{}\n", name, data.size());
    digested += data;
    // A file name may be any bytes, an id may not.
    const std::string id = FindInvalidUtf8(name).has_value() ? Quoted(name) : name;
    if (const std::optional<size_t> broken = FindInvalidUtf8(data)) {
      task.skipped.push_back({id, fmt::format("invalid UTF-8 (byte {} of the text)", *broken)});
      continue;
    }
    const std::string clean = CleanText(data);
    if (clean.empty()) {
      task.skipped.push_back({id, "an empty text"});
      continue;
    }
    if (!text.empty()) text += "\n\n";
    text += clean;
  }
  task.data_digest = Sha256Hex(std::as_bytes(std::span(digested)));
  if (text.empty()) {
    return BrokenFile(path, "none of its {} texts can be used: {}", names.size(), DescribeSkips(task.skipped));
  }
  return absl::OkStatus();
}

absl::Status CheckGrid(const TaskOptions& options) {
  const auto check = [](const std::vector<int32_t>& values, const char* what, int32_t least, int32_t most) {
    if (values.empty()) return absl::InvalidArgumentError(fmt::format("no {} for needles", what));
    std::set<int32_t> seen;
    for (const int32_t value : values) {
      if (value < least || value > most) {
        return absl::InvalidArgumentError(
            fmt::format("{} is out of range for needles' {}, expected {} to {}", value, what, least, most));
      }
      if (!seen.insert(value).second) {
        return absl::InvalidArgumentError(fmt::format("{} stands twice in needles' {}", value, what));
      }
    }
    return absl::OkStatus();
  };
  EPIC_RETURN_IF_ERROR(check(options.needle_words, "lengths in words", 1, kNeedleWordsMax));
  EPIC_RETURN_IF_ERROR(check(options.needle_depths_percent, "depths in percent", 0, 100));
  if (options.examples_max > kNeedleExamplesMax) {
    return absl::InvalidArgumentError(
        fmt::format("{} needles were asked, at most {} are made", options.examples_max, kNeedleExamplesMax));
  }
  const size_t grid = options.needle_words.size() * options.needle_depths_percent.size();
  if (grid > kNeedleExamplesMax) {
    return absl::InvalidArgumentError(
        fmt::format("{} lengths and depths of needles were asked, at most {} are made", grid, kNeedleExamplesMax));
  }
  return absl::OkStatus();
}

// The first index in [begin, end] before which `target` words stand, or the next one before where that is nearer.
size_t NearestBoundary(const std::vector<int64_t>& words_before, size_t begin, size_t end, int64_t target) {
  const auto first = words_before.begin();
  const auto at_least =
      std::lower_bound(first + static_cast<std::ptrdiff_t>(begin), first + static_cast<std::ptrdiff_t>(end), target);
  const size_t after = static_cast<size_t>(at_least - first);
  if (after > begin && target - words_before[after - 1] < words_before[after] - target) return after - 1;
  return after;
}

std::string Join(const std::vector<Sentence>& sentences) {
  std::string text;
  for (const Sentence& sentence : sentences) {
    // A heading at the end of a text has nothing behind it that parts it from a needle.
    if (!text.empty() && !IsSpace(text.back())) text += ' ';
    text += sentence.text;
  }
  return text;
}

Source HideNeedle(const Haystack& haystack, int32_t words, int32_t depth_percent, TaskRandom& random) {
  const std::vector<int64_t>& before = haystack.words_before;
  // The last sentence behind which there are still enough words.
  const auto too_late = std::upper_bound(before.begin(), before.end(), haystack.words() - words);
  const size_t begin = random.Below(static_cast<uint64_t>(too_late - before.begin()));
  const size_t end =
      static_cast<size_t>(std::lower_bound(before.begin(), before.end(), before[begin] + words) - before.begin());
  const int64_t target = before[begin] + (before[end] - before[begin]) * depth_percent / 100;
  const size_t place = NearestBoundary(before, begin, end, target);
  const char* const city = haystack.cities[random.Below(haystack.cities.size())];
  const int32_t number = haystack.numbers[random.Below(haystack.numbers.size())];
  const std::string needle = fmt::format("The magic number of {} is {}. ", city, number);

  std::vector<Sentence> sentences(haystack.sentences.begin() + static_cast<std::ptrdiff_t>(begin),
                                  haystack.sentences.begin() + static_cast<std::ptrdiff_t>(end));
  sentences.insert(sentences.begin() + static_cast<std::ptrdiff_t>(place - begin),
                   {.text = needle, .words = CountWords(needle)});
  Source source;
  source.documents = {DocumentText("", Join(sentences))};
  source.asked = city;
  source.golds = {fmt::format("{}", number)};
  return source;
}

}  // namespace

absl::StatusOr<Task> LoadNeedle(const TaskOptions& options, const TaskKind& kind) {
  EPIC_RETURN_IF_ERROR(CheckGrid(options));
  Task task = EmptyTask(kind);
  Haystack haystack;
  EPIC_RETURN_IF_ERROR(ReadTexts(options.data, task, haystack.text));
  EPIC_RETURN_IF_ERROR(PrepareHaystack(options.data, haystack));
  const int32_t longest = *std::max_element(options.needle_words.begin(), options.needle_words.end());
  if (haystack.words() < longest) {
    return BrokenFile(options.data, "its texts have {} words, expected at least {} for the longest needle test{}{}",
                      haystack.words(), longest,
                      task.skipped.empty() ? "" : "; left out: ", DescribeSkips(task.skipped));
  }
  const size_t depths = options.needle_depths_percent.size();
  const size_t grid = options.needle_words.size() * depths;
  const size_t wanted = options.examples_max == 0 ? grid : static_cast<size_t>(options.examples_max);
  for (size_t round = 0; task.examples.size() < wanted; ++round) {
    std::vector<size_t> cells(grid);
    for (size_t i = 0; i < grid; ++i) cells[i] = i;
    TaskRandom(options.seed, round).Shuffle(cells);
    for (const size_t cell : cells) {
      if (task.examples.size() == wanted) break;
      const int32_t words = options.needle_words[cell / depths];
      const int32_t depth = options.needle_depths_percent[cell % depths];
      // Streams beyond those of the rounds.
      TaskRandom random(options.seed, kNeedleExamplesMax + round * grid + cell);
      Source source = HideNeedle(haystack, words, depth, random);
      source.id = fmt::format("needle-{}-words-{}-percent-{}", words, depth, round + 1);
      task.examples.push_back(MakeExample(kind, std::move(source)));
    }
  }
  return task;
}

}  // namespace epic::eval::internal
