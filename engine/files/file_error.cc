#include "engine/files/file_error.h"

#include <cstddef>

namespace epic {

namespace {
constexpr size_t kQuotedBytesMax = 96;
}  // namespace

std::string Quoted(std::string_view text) {
  std::string result = "\"";
  for (const char character : text.substr(0, kQuotedBytesMax)) {
    const auto byte = static_cast<unsigned char>(character);
    if (byte < 0x20 || byte > 0x7e) {
      result += fmt::format("\\x{:02x}", byte);
    } else {
      if (character == '"' || character == '\\') result += '\\';
      result += character;
    }
  }
  if (text.size() > kQuotedBytesMax) result += fmt::format("... ({} bytes)", text.size());
  return result + "\"";
}

}  // namespace epic
