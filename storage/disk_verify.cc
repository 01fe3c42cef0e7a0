#include "storage/disk_verify.h"

#include <filesystem>
#include <map>
#include <memory>
#include <system_error>
#include <utility>

#include "core/status_macros.h"
#include "fmt/format.h"
#include "storage/disk_adoption.h"
#include "storage/disk_folder.h"
#include "storage/disk_index.h"
#include "storage/scratch_block.h"
#include "storage/segment_file.h"

namespace epic {
absl::Status VerifyDiskTier(const std::string& folder, DiskReport* report,
                            const std::function<void(const DiskReport&)>& progress) {
  const absl::StatusOr<std::unique_ptr<DiskFolder>> found = DiskFolder::Look(folder);
  if (absl::IsDataLoss(found.status())) report->faults.push_back(std::string(found.status().message()));
  if (!found.ok()) return found.status();
  const DiskIndex::Contents contents = DiskIndex::Look((*found)->IndexPath());
  if (!contents.damage.empty()) {
    report->faults.push_back(fmt::format("{}: {}", (*found)->IndexPath(), contents.damage));
    return absl::DataLossError(report->faults.back());
  }
  EPIC_ASSIGN_OR_RETURN(const auto paths, (*found)->SegmentPaths());
  std::map<uint32_t, std::unique_ptr<SegmentFile>> segments;
  std::map<uint32_t, size_t> segment_bytes;
  for (const auto& [number, path] : paths) {
    absl::StatusOr<std::unique_ptr<SegmentFile>> segment = SegmentFile::Open(path, true);
    if (!segment.ok()) {
      report->faults.push_back(std::string(segment.status().message()));
      continue;
    }
    segment_bytes[number] = (*segment)->bytes();
    segments[number] = *std::move(segment);
  }
  const DiskAdoption adoption = AdoptBlocks(contents.entries, segment_bytes);
  for (const ChunkKey& key : adoption.dropped) {
    report->faults.push_back(fmt::format("chunk {}: its range is gone, or belongs to another block by now", key.Hex()));
  }
  if (contents.unreadable_entries > 0) {
    report->faults.push_back(
        fmt::format("{}: {} entries cannot be read", (*found)->IndexPath(), contents.unreadable_entries));
  }
  report->blocks_total = adoption.blocks.size();
  for (const AdoptedBlock& block : adoption.blocks) {
    SegmentFile& file = *segments.at(block.owned.range.segment);
    ScratchBlock memory(block.entry.block_bytes);
    absl::Status sound = file.Read(block.owned.range.offset, memory.padded_bytes());
    if (sound.ok()) {
      sound = CheckStoredBlock(memory.bytes(), block.owned.key, block.entry.edition, block.entry.header_checksum);
    }
    if (!sound.ok()) {
      report->faults.push_back(fmt::format("chunk {} at byte {} of {}: {}", block.owned.key.Hex(),
                                           block.owned.range.offset, file.path(), std::string(sound.message())));
    }
    ++report->blocks_done;
    report->bytes_done += block.owned.range.bytes;
    if (progress) progress(*report);
  }
  if (report->faults.empty()) return absl::OkStatus();
  return absl::DataLossError(fmt::format("{} faults in the disk tier in {}", report->faults.size(), folder));
}

}  // namespace epic
