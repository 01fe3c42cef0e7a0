// What makes two models the same for cached keys and values, as one SHA-256.
//
// The text that is hashed lists architecture, sizes, rotation, epsilon, the class of computation, the digest of the
// tokenizer (token ids are part of a chunk's identity) and, for each tensor by name, type, shape and the digest of its
// bytes. Names, chat templates and context lengths change no key or value and are left out.
//
// Reading every byte of the weights is the expensive part, so the tensors' digests are remembered in
// `<cache_dir>/fingerprints.json` by each file's identity (path, size, modification time, inode, device); all else is
// computed anew. How many files the weights lie in changes nothing. The file is replaced by rename; one that is
// missing, corrupt or not writable costs time, never correctness. Safe from several threads and processes at once: the
// last writer wins.
#ifndef EPIC_ENGINE_FILES_FINGERPRINT_H_
#define EPIC_ENGINE_FILES_FINGERPRINT_H_

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "engine/files/loaded_model.h"
#include "engine/files/mapped_file.h"
#include "engine/text/tokenizer_spec.h"

namespace epic {

// Digest over everything in the tokenizer that decides which ids a text becomes.
std::string TokenizerDigest(const TokenizerSpec& tokenizer);

// SHA-256 of each tensor's bytes, by name.
using TensorDigests = std::map<std::string, std::string>;

std::string FingerprintOf(const LoadedModel& model, const TensorDigests& tensor_digests);

// FingerprintOf with remembered digests where `cache_dir` is not empty. ABORTED where the file changed while it was
// read.
[[nodiscard]] absl::StatusOr<std::string> FingerprintWithCache(const LoadedModel& model, const std::string& cache_dir);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_FINGERPRINT_H_
