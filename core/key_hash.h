// 64 well-mixed bits of a chunk key, for tables that can bear a collision. Pure.
#ifndef EPIC_CORE_KEY_HASH_H_
#define EPIC_CORE_KEY_HASH_H_

#include <cstdint>
#include <cstring>

#include "core/chunk_key.h"

namespace epic {

// A key is a SHA-256: any of its bytes are as good as a hash.
inline uint64_t KeyHash(const ChunkKey& key) {
  uint64_t hash = 0;
  std::memcpy(&hash, key.bytes.data(), sizeof(hash));
  return hash;
}

}  // namespace epic

#endif  // EPIC_CORE_KEY_HASH_H_
