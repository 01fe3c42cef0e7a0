// The file `fingerprints.json`: digests of tensors by the identity of the file that holds them. See fingerprint.h.
// Free functions without state; safe from several threads and processes (each write replaces the file by rename).
#ifndef EPIC_ENGINE_FILES_FINGERPRINT_CACHE_H_
#define EPIC_ENGINE_FILES_FINGERPRINT_CACHE_H_

#include <cstddef>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "engine/files/fingerprint.h"
#include "engine/files/mapped_file.h"

namespace epic {

// The oldest are dropped beyond this many files.
inline constexpr size_t kRememberedFilesMax = 32;

// Nothing where the file has no entry for exactly this identity, or is not readable as such a file.
std::optional<TensorDigests> RememberedDigests(const std::string& cache_dir, const FileIdentity& identity);

// Adds or replaces the entry for identity.path, keeping the others that are readable. Makes `cache_dir` where it is not
// there.
absl::Status RememberDigests(const std::string& cache_dir, const FileIdentity& identity, const TensorDigests& digests);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_FINGERPRINT_CACHE_H_
