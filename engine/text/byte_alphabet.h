// The byte-level alphabet: GPT-2's printable stand-ins for the 256 bytes, in which vocabularies are written. Bytes that
// print in Latin-1 stand for themselves; the other 68 are the code points from U+0100 on, in order. Pure functions.
#ifndef EPIC_ENGINE_TEXT_BYTE_ALPHABET_H_
#define EPIC_ENGINE_TEXT_BYTE_ALPHABET_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace epic {

// The stand-in of one byte, as UTF-8.
std::string ByteToAlphabet(uint8_t byte);

// The bytes that `token` stands for, or nothing where some character of it is not of the alphabet.
std::optional<std::string> AlphabetToBytes(std::string_view token);

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_BYTE_ALPHABET_H_
