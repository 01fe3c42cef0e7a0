// A small file beside the database that says how far its history went: the guard against history that was cut short.
//
// RocksDB finds damage by checksums, but a file that ends early at the border of two records looks to it like one that
// was never longer. Every change has a sequence number; this file holds one that is known to be durable. A database
// that comes up with a lower one has lost acknowledged changes.
//
// The file is replaced atomically (write, sync, rename, sync of the folder). Functions are thread-safe for different
// sequence numbers.
#ifndef EPIC_STORAGE_SEQUENCE_FILE_H_
#define EPIC_STORAGE_SEQUENCE_FILE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace epic {

inline constexpr char kSequenceFileName[] = "EPIC-SEQUENCE";

// Nothing where `folder` has no such file; DATA_LOSS naming the file where it is damaged.
[[nodiscard]] absl::StatusOr<std::optional<uint64_t>> ReadSequenceFile(const std::string& folder);

// RESOURCE_EXHAUSTED where the disk is full, else UNAVAILABLE with the system's reason.
[[nodiscard]] absl::Status WriteSequenceFile(const std::string& folder, uint64_t sequence);

}  // namespace epic

#endif  // EPIC_STORAGE_SEQUENCE_FILE_H_
