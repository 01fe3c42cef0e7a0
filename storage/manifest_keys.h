// The keys of the manifest: a kind, then names in an encoding that keeps their order and cannot run into each other.
//
//   'D' tenant id                        a document's record
//   'I' tenant id                        a document's header: what is asked of all documents without reading texts
//   'C' tenant id fingerprint recipe     a chunk list's record
//   'P' tenant id                        nothing: the document is pinned
//   'S'                                  the state of the manifest (manifest_state.h)
//   'V'                                  the format version, 4 bytes little-endian
//
// In a name, the byte 00 becomes 00 FF, and 00 01 stands behind it: whatever bytes names have, comparing keys compares
// names one after the other, and no key is the beginning of another one of its kind. Pure.
#ifndef EPIC_STORAGE_MANIFEST_KEYS_H_
#define EPIC_STORAGE_MANIFEST_KEYS_H_

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace epic {

enum class ManifestKeyKind : char {
  kDocument = 'D',
  kIndex = 'I',
  kChunkList = 'C',
  kPin = 'P',
  kState = 'S',
  kFormatVersion = 'V',
};

// Also the common beginning of all keys whose first names these are.
std::string ManifestKey(ManifestKeyKind kind, std::initializer_list<std::string_view> names);

// The names in a key; nothing where it is no key of this kind.
std::optional<std::vector<std::string>> ParseManifestKey(ManifestKeyKind kind, std::string_view key);

}  // namespace epic

#endif  // EPIC_STORAGE_MANIFEST_KEYS_H_
