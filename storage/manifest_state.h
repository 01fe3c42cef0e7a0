// What a manifest knows of itself, written with every change into both of its copies.
//
// An epoch is one opening of the manifest by one process. Inside an epoch both copies get the same changes in the same
// order, so that one copy holds a beginning of what the other one holds; across epochs that need not be so, as one copy
// may have been away. The count and the digest tell a copy that lacks records from one that never had them, which
// checksums of files cannot. Pure.
#ifndef EPIC_STORAGE_MANIFEST_STATE_H_
#define EPIC_STORAGE_MANIFEST_STATE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace epic {

struct ManifestState {
  uint64_t identity = 0;             // random, the same in both copies and for the manifest's life
  uint64_t epoch = 0;                // counts the openings, from 1 on
  uint64_t epoch_base_sequence = 0;  // the last change before this epoch
  uint64_t record_count = 0;         // of all records but the state's own
  uint64_t digest = 0;               // the sum of their ManifestRecordDigest, modulo 2^64
  friend bool operator==(const ManifestState&, const ManifestState&) = default;
};

std::string EncodeManifestState(const ManifestState& state);
// DATA_LOSS where the bytes are no state.
absl::StatusOr<ManifestState> DecodeManifestState(std::string_view bytes);

// XXH3-64 of the value, seeded with that of the key.
uint64_t ManifestRecordDigest(std::string_view key, std::string_view value);

}  // namespace epic

#endif  // EPIC_STORAGE_MANIFEST_STATE_H_
