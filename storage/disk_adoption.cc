#include "storage/disk_adoption.h"

#include <algorithm>
#include <string>

#include "fmt/format.h"
#include "storage/segment_file.h"
#include "xxhash.h"

namespace epic {
namespace {

bool LiesInSegment(const DiskIndexEntry& entry, const std::map<uint32_t, size_t>& segment_bytes) {
  const auto segment = segment_bytes.find(entry.segment);
  if (segment == segment_bytes.end()) return false;
  const size_t bytes = segment->second;  // a multiple of the alignment, so that padding stays within it
  return entry.block_bytes > 0 && entry.block_bytes <= bytes && entry.offset % kDiskAlignmentBytes == 0 &&
         entry.offset <= bytes - DiskPaddedBytes(entry.block_bytes);
}

bool Overlap(const DiskRange& first, const DiskRange& second) {
  return first.segment == second.segment && first.offset + first.bytes > second.offset;
}

}  // namespace

DiskAdoption AdoptBlocks(std::span<const std::pair<ChunkKey, DiskIndexEntry>> entries,
                         const std::map<uint32_t, size_t>& segment_bytes) {
  DiskAdoption adoption;
  std::vector<AdoptedBlock> found;
  for (const auto& [key, entry] : entries) {
    if (LiesInSegment(entry, segment_bytes)) {
      found.push_back({{{entry.segment, entry.offset, DiskPaddedBytes(entry.block_bytes)}, key}, entry});
    } else {
      adoption.dropped.push_back(key);
    }
  }
  std::sort(found.begin(), found.end(),
            [](const AdoptedBlock& a, const AdoptedBlock& b) { return a.owned.range < b.owned.range; });
  for (const AdoptedBlock& next : found) {
    if (adoption.blocks.empty() || !Overlap(adoption.blocks.back().owned.range, next.owned.range)) {
      adoption.blocks.push_back(next);
      continue;
    }
    AdoptedBlock& last = adoption.blocks.back();
    const bool next_is_newer = next.entry.sequence > last.entry.sequence;
    adoption.dropped.push_back(next_is_newer ? last.owned.key : next.owned.key);
    if (next_is_newer) last = next;
  }
  return adoption;
}

uint64_t HeaderChecksum(const KvBlockView& block) { return XXH3_64bits(block.bytes().data(), block.header_bytes()); }

absl::Status CheckStoredBlock(std::span<const std::byte> bytes, const ChunkKey& key, uint64_t edition,
                              uint64_t header_checksum) {
  const absl::StatusOr<KvBlockView> block = KvBlockView::Parse(bytes);
  if (!block.ok()) return absl::DataLossError(std::string(block.status().message()));
  if (block->info().key != key) {
    return absl::DataLossError(fmt::format("its range holds chunk {}", block->info().key.Hex()));
  }
  if (block->edition() != edition || HeaderChecksum(*block) != header_checksum) {
    return absl::DataLossError(
        fmt::format("edition {:016x}, expected {:016x}, or another header", block->edition(), edition));
  }
  return block->VerifyPayload();
}

}  // namespace epic
