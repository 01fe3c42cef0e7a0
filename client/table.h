// Tables for people: aligned columns, a rule under the head. Pure.
#ifndef EPIC_CLIENT_TABLE_H_
#define EPIC_CLIENT_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace epic::client {

class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // REQUIRES: as many cells as columns.
  void AddRow(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  // Every line ends with a newline and has no blanks at its end. Widths count characters of UTF-8, not bytes.
  std::string ToString() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "1.5 MiB"
std::string HumanBytes(int64_t bytes);
// Control characters and line ends become spaces; at most `characters_max` characters, the last an ellipsis.
std::string Shorten(const std::string& text, size_t characters_max);

}  // namespace epic::client

#endif  // EPIC_CLIENT_TABLE_H_
