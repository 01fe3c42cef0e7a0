// SHA-256 as text, for digests that are compared, remembered or shown. Pure function, safe from any thread.
#ifndef EPIC_CORE_SHA256_H_
#define EPIC_CORE_SHA256_H_

#include <cstddef>
#include <span>
#include <string>

namespace epic {

// 64 hexadecimal digits.
std::string Sha256Hex(std::span<const std::byte> bytes);

}  // namespace epic

#endif  // EPIC_CORE_SHA256_H_
