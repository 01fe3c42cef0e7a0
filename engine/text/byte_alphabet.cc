#include "engine/text/byte_alphabet.h"

#include <array>

#include "core/utf8.h"

namespace epic {
namespace {

constexpr char32_t kFirstStandIn = 0x100;
constexpr int kStandIns = 68;

constexpr bool StandsForItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

struct Alphabet {
  std::array<char32_t, 256> code_points{};
  std::array<uint8_t, kStandIns> bytes{};  // by code point - kFirstStandIn
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  int stand_ins = 0;
  for (int byte = 0; byte < 256; ++byte) {
    if (StandsForItself(byte)) {
      alphabet.code_points[byte] = byte;
    } else {
      alphabet.bytes[stand_ins] = static_cast<uint8_t>(byte);
      alphabet.code_points[byte] = kFirstStandIn + stand_ins++;
    }
  }
  return alphabet;
}
constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

std::string ByteToAlphabet(uint8_t byte) {
  const char32_t code_point = kAlphabet.code_points[byte];  // below U+0800: one or two bytes of UTF-8
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xC0 | (code_point >> 6)), static_cast<char>(0x80 | (code_point & 0x3F))};
}

std::optional<std::string> AlphabetToBytes(std::string_view token) {
  std::string bytes;
  for (size_t position = 0; position < token.size();) {
    const Utf8Character character = ReadUtf8(token, position);
    if (character.kind != Utf8Character::Kind::kValid) return std::nullopt;
    const char32_t code_point = character.code_point;
    if (code_point < kFirstStandIn) {
      if (!StandsForItself(static_cast<int>(code_point))) return std::nullopt;
      bytes.push_back(static_cast<char>(code_point));
    } else {
      if (code_point >= kFirstStandIn + kStandIns) return std::nullopt;
      bytes.push_back(static_cast<char>(kAlphabet.bytes[code_point - kFirstStandIn]));
    }
    position += character.length;
  }
  return bytes;
}

}  // namespace epic
