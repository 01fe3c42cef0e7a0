// The file `fingerprints.json`: digests of tensors by the identity of the file that holds them. See fingerprint.h.
// Free functions without state; safe from several threads and processes (each write replaces the file by rename).
#ifndef EPIC_ENGINE_FILES_FINGERPRINT_CACHE_H_
#define EPIC_ENGINE_FILES_FINGERPRINT_CACHE_H_

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/files/fingerprint.h"
#include "engine/files/mapped_file.h"

namespace epic {

// The oldest are dropped beyond this many files; a model may be spread over many.
inline constexpr size_t kRememberedFilesMax = 256;

// Digests of the tensors in one file.
struct FileDigests {
  FileIdentity identity;
  TensorDigests digests;
};

// What is remembered of each file, in the same order: nothing where there is no entry for exactly this identity, or
// where the file is not readable as such a file.
std::vector<std::optional<TensorDigests>> RememberedDigests(const std::string& cache_dir,
                                                            std::span<const FileIdentity> identities);

// Adds or replaces the entries for these files, keeping the others that are readable. Makes `cache_dir` where it is not
// there.
absl::Status RememberDigests(const std::string& cache_dir, std::span<const FileDigests> files);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_FINGERPRINT_CACHE_H_
