#include "engine/text/template_source.h"

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "core/sha256.h"
#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {
namespace {

constexpr std::string_view kBlanks = " \t\n\r\f\v";

struct Token {
  enum class Kind { kName, kString, kSymbol } kind = Kind::kSymbol;
  std::string text;
};

bool IsNameCharacter(char character) {
  return (character >= 'a' && character <= 'z') || (character >= 'A' && character <= 'Z') ||
         (character >= '0' && character <= '9') || character == '_';
}

// Jinja ends every line with \n and drops one line end at the end of the source.
std::string NormaliseLineEnds(std::string_view source) {
  std::string normalised;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      normalised.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      normalised.push_back(source[i]);
    }
  }
  if (!normalised.empty() && normalised.back() == '\n') normalised.pop_back();
  return normalised;
}

class TemplateReader {
 public:
  explicit TemplateReader(std::string_view source) : source_(source) {}

  absl::StatusOr<std::vector<TemplateStep>> Read();

 private:
  // Where the next tag opens at or behind position_, or the end of the source.
  size_t FindTag() const;
  // Takes the text in front of the tag that opens at `tag`, or all the rest at the end of the source.
  void TakeText(size_t tag);
  // Reads the tokens of the tag that position_ stands in, up to and including its closing mark.
  absl::StatusOr<std::vector<Token>> TakeTag(bool is_statement);
  bool TakeClosingMark(bool is_statement);
  absl::Status TakeComment();
  absl::StatusOr<Token> TakeToken();
  absl::StatusOr<Token> TakeString();
  void SkipBlanks() { position_ = std::min(source_.find_first_not_of(kBlanks, position_), source_.size()); }

  void WriteExpression(const std::vector<Token>& tokens);
  void WriteStatement(const std::vector<Token>& tokens);
  void WriteText(std::string_view text);

  std::string_view source_;
  size_t position_ = 0;
  bool at_line_start_ = true;  // whether nothing but a line end stands directly in front of position_
  std::vector<TemplateStep> steps_;
};

absl::StatusOr<std::vector<TemplateStep>> TemplateReader::Read() {
  while (position_ < source_.size()) {
    TakeText(FindTag());
    if (position_ >= source_.size()) break;
    const char opened = source_[position_ + 1];
    position_ += 2;
    if (position_ < source_.size() && (source_[position_] == '-' || source_[position_] == '+')) ++position_;
    at_line_start_ = false;
    if (opened == '#') {
      EPIC_RETURN_IF_ERROR(TakeComment());
      continue;
    }
    EPIC_ASSIGN_OR_RETURN(const std::vector<Token> tokens, TakeTag(opened == '%'));
    if (opened == '%') {
      WriteStatement(tokens);
    } else {
      WriteExpression(tokens);
    }
  }
  return std::move(steps_);
}

size_t TemplateReader::FindTag() const {
  for (size_t tag = position_; tag + 1 < source_.size(); ++tag) {
    const char next = source_[tag + 1];
    if (source_[tag] == '{' && (next == '{' || next == '%' || next == '#')) return tag;
  }
  return source_.size();
}

void TemplateReader::TakeText(size_t tag) {
  std::string_view text = source_.substr(position_, tag - position_);
  if (tag < source_.size()) {
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (sign == '-') {
      text = text.substr(0, text.find_last_not_of(kBlanks) + 1);
    } else if (source_[tag + 1] != '{' && sign != '+') {
      // Blanks between the start of a line and a statement or comment are not written.
      const size_t line_end = text.rfind('\n');
      const size_t line = line_end == std::string_view::npos ? 0 : line_end + 1;
      const bool is_blank = text.find_first_not_of(" \t", line) == std::string_view::npos;
      if (is_blank && (line > 0 || at_line_start_)) text = text.substr(0, line);
    }
  }
  WriteText(text);
  position_ = tag;
}

bool TemplateReader::TakeClosingMark(bool is_statement) {
  const std::string_view rest = source_.substr(position_);
  const std::string_view mark = is_statement ? "%}" : "}}";
  if (rest.substr(0, 1) == "-" && rest.substr(1, 2) == mark) {
    position_ += 3;
    SkipBlanks();
    at_line_start_ = source_[position_ - 1] == '\n';
    return true;
  }
  if (is_statement && rest.substr(0, 1) == "+" && rest.substr(1, 2) == mark) {
    position_ += 3;
    return true;
  }
  if (rest.substr(0, 2) != mark) return false;
  position_ += 2;
  if (is_statement && position_ < source_.size() && source_[position_] == '\n') {
    ++position_;
    at_line_start_ = true;
  }
  return true;
}

absl::StatusOr<std::vector<Token>> TemplateReader::TakeTag(bool is_statement) {
  std::vector<Token> tokens;
  while (true) {
    SkipBlanks();
    if (position_ >= source_.size()) return absl::UnimplementedError("a tag of it is never closed");
    if (TakeClosingMark(is_statement)) return tokens;
    EPIC_ASSIGN_OR_RETURN(Token token, TakeToken());
    const bool is_attribute = token.kind == Token::Kind::kName && tokens.size() > 1 && tokens.back().text == "." &&
                              tokens.back().kind == Token::Kind::kSymbol;
    if (is_attribute) {
      tokens.back().text = "[";
      tokens.push_back({Token::Kind::kString, std::move(token.text)});
      tokens.push_back({Token::Kind::kSymbol, "]"});
    } else {
      tokens.push_back(std::move(token));
    }
  }
}

absl::Status TemplateReader::TakeComment() {
  const size_t end = source_.find("#}", position_);
  if (end == std::string_view::npos) return absl::UnimplementedError("a comment of it is never closed");
  const char sign = end > position_ ? source_[end - 1] : '\0';
  position_ = end + 2;
  if (sign == '-') {
    SkipBlanks();
    at_line_start_ = source_[position_ - 1] == '\n';
  } else if (sign != '+' && position_ < source_.size() && source_[position_] == '\n') {
    ++position_;
    at_line_start_ = true;
  }
  return absl::OkStatus();
}

absl::StatusOr<Token> TemplateReader::TakeToken() {
  const char first = source_[position_];
  if (first == '\'' || first == '"') return TakeString();
  if (IsNameCharacter(first)) {
    const size_t begin = position_;
    while (position_ < source_.size() && IsNameCharacter(source_[position_])) ++position_;
    return Token{Token::Kind::kName, std::string(source_.substr(begin, position_ - begin))};
  }
  const bool is_comparison =
      std::string_view("!=<>").find(first) != std::string_view::npos && source_.substr(position_ + 1, 1) == "=";
  const size_t length = is_comparison ? 2 : 1;
  position_ += length;
  return Token{Token::Kind::kSymbol, std::string(source_.substr(position_ - length, length))};
}

absl::StatusOr<Token> TemplateReader::TakeString() {
  const char quote = source_[position_++];
  std::string text;
  for (; position_ < source_.size(); ++position_) {
    const char character = source_[position_];
    if (character == quote) {
      ++position_;
      return Token{Token::Kind::kString, std::move(text)};
    }
    if (character != '\\') {
      text.push_back(character);
      continue;
    }
    constexpr std::string_view kEscapes = "nt\\'\"";
    constexpr std::string_view kMeanings = "\n\t\\'\"";
    if (++position_ >= source_.size()) break;
    const size_t escape = kEscapes.find(source_[position_]);
    if (escape == std::string_view::npos) {
      return absl::UnimplementedError("a string of it has an escape sequence that is not understood");
    }
    text.push_back(kMeanings[escape]);
  }
  return absl::UnimplementedError("a string of it is never closed");
}

void TemplateReader::WriteText(std::string_view text) {
  if (text.empty()) return;
  if (steps_.empty() || steps_.back().kind != TemplateStep::Kind::kText) steps_.emplace_back();
  steps_.back().text += text;
}

std::string Canonical(const std::vector<Token>& tokens) {
  std::string canonical;
  for (const Token& token : tokens) {
    if (!canonical.empty()) canonical += ' ';
    if (token.kind != Token::Kind::kString) {
      canonical += token.text;
      continue;
    }
    canonical += '\'';
    for (const char character : token.text) {
      if (character == '\'' || character == '\\') canonical += '\\';
      canonical += character;
    }
    canonical += '\'';
  }
  return canonical;
}

void TemplateReader::WriteStatement(const std::vector<Token>& tokens) {
  steps_.push_back({TemplateStep::Kind::kStatement, Canonical(tokens)});
}

// Reads one term of a sum at `position` and moves behind it; nothing where it is none of those that we know.
std::optional<TemplateStep> TakeTerm(const std::vector<Token>& tokens, size_t& position) {
  using Kind = TemplateStep::Kind;
  if (position >= tokens.size()) return std::nullopt;
  const Token& token = tokens[position];
  if (token.kind == Token::Kind::kString) {
    ++position;
    return TemplateStep{Kind::kText, token.text};
  }
  if (token.kind != Token::Kind::kName) return std::nullopt;
  if (token.text == "bos_token" || token.text == "eos_token") {
    ++position;
    return TemplateStep{token.text == "bos_token" ? Kind::kBos : Kind::kEos, ""};
  }
  if (position + 4 > tokens.size()) return std::nullopt;
  const auto begin = tokens.begin() + static_cast<ptrdiff_t>(position);
  const std::string field = Canonical({begin, begin + 4});
  position += 4;
  if (field == "message [ 'role' ]") return TemplateStep{Kind::kRole, ""};
  if (field == "message [ 'content' ]") return TemplateStep{Kind::kContent, ""};
  return std::nullopt;
}

// A sum of strings and of what messages and the tokenizer give becomes one step a term, anything else a step as it is.
void TemplateReader::WriteExpression(const std::vector<Token>& tokens) {
  std::vector<TemplateStep> terms;
  for (size_t position = 0; position <= tokens.size(); ++position) {
    std::optional<TemplateStep> term = TakeTerm(tokens, position);
    const bool is_last = term && position == tokens.size();
    const bool goes_on = term && !is_last && tokens[position].kind == Token::Kind::kSymbol &&
                         (tokens[position].text == "+" || tokens[position].text == "~");
    if (!is_last && !goes_on) {
      steps_.push_back({TemplateStep::Kind::kOther, Canonical(tokens)});
      return;
    }
    terms.push_back(*std::move(term));
    if (is_last) break;
  }
  for (TemplateStep& term : terms) {
    if (term.kind == TemplateStep::Kind::kText) {
      WriteText(term.text);
    } else {
      steps_.push_back(std::move(term));
    }
  }
}

}  // namespace

absl::StatusOr<std::vector<TemplateStep>> ReadTemplateSource(std::string_view source) {
  const std::string normalised = NormaliseLineEnds(source);
  return TemplateReader(normalised).Read();
}

std::string HashOfSteps(const std::vector<TemplateStep>& steps) {
  // Kind and length before each text, so that no two lists of steps give the same bytes.
  std::string bytes;
  for (const TemplateStep& step : steps) {
    bytes += fmt::format("{} {} {}\n", static_cast<int>(step.kind), step.text.size(), step.text);
  }
  return Sha256Hex(std::as_bytes(std::span(bytes)));
}

}  // namespace epic
