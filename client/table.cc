#include "client/table.h"

#include <algorithm>

#include "fmt/format.h"

namespace epic::client {
namespace {

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

size_t CountCharacters(const std::string& text) {
  return static_cast<size_t>(std::ranges::count_if(text, [](char c) { return !IsContinuation(c); }));
}

}  // namespace

std::string Table::ToString() const {
  std::vector<size_t> widths;
  for (size_t c = 0; c < columns_.size(); ++c) {
    size_t width = CountCharacters(columns_[c].title);
    for (const auto& row : rows_) width = std::max(width, CountCharacters(row[c]));
    widths.push_back(width);
  }
  std::string out;
  const auto add_line = [&](const auto& cell_of) {
    std::string line;
    for (size_t c = 0; c < columns_.size(); ++c) {
      const std::string cell = cell_of(c);
      const std::string padding(widths[c] - CountCharacters(cell), ' ');
      if (c > 0) line += "  ";
      line += columns_[c].align == Align::kRight ? padding + cell : cell + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  add_line([&](size_t c) { return columns_[c].title; });
  add_line([&](size_t c) { return std::string(widths[c], '-'); });
  for (const auto& row : rows_) add_line([&](size_t c) { return row[c]; });
  return out;
}

std::string HumanBytes(int64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string Shorten(const std::string& text, size_t characters_max) {
  std::string clean;
  for (const char c : text) clean += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  clean.erase(0, clean.find_first_not_of(' '));
  if (CountCharacters(clean) <= characters_max) return clean;
  size_t characters = 0, end = 0;
  while (end < clean.size() && (IsContinuation(clean[end]) || characters + 1 < characters_max)) {
    characters += IsContinuation(clean[end]) ? 0 : 1;
    ++end;
  }
  return clean.substr(0, end) + "…";
}

}  // namespace epic::client
