// What of an index can be true, given the segments that are there. Pure.
//
// The index is not synced: after power loss, or with damage, it may name ranges that are gone or that belong to another
// block by now.
#ifndef EPIC_STORAGE_DISK_ADOPTION_H_
#define EPIC_STORAGE_DISK_ADOPTION_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/chunk_key.h"
#include "core/kv_block.h"
#include "storage/disk_index.h"
#include "storage/disk_space.h"

namespace epic {

struct AdoptedBlock {
  DiskSpace::Owned owned;
  DiskIndexEntry entry;
};

struct DiskAdoption {
  std::vector<AdoptedBlock> blocks;  // ascending by range, disjoint, each within its segment
  std::vector<ChunkKey> dropped;     // no such range; or written before another block that overlaps it
};

// `segment_bytes` by number of the segment.
DiskAdoption AdoptBlocks(std::span<const std::pair<ChunkKey, DiskIndexEntry>> entries,
                         const std::map<uint32_t, size_t>& segment_bytes);

uint64_t HeaderChecksum(const KvBlockView& block);

// Whether `bytes`, read from the range of an entry, are the block that was written: its key, edition, header and every
// checksum. DATA_LOSS says what is there instead.
absl::Status CheckStoredBlock(std::span<const std::byte> bytes, const ChunkKey& key, uint64_t edition,
                              uint64_t header_checksum);

}  // namespace epic

#endif  // EPIC_STORAGE_DISK_ADOPTION_H_
