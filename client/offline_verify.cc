#include "client/offline_verify.h"

#include <filesystem>
#include <utility>

#include "absl/status/status.h"
#include "core/status_macros.h"
#include "fmt/format.h"
#include "storage/disk_verify.h"
#include "storage/manifest_verify.h"

namespace epic::client {
namespace {

namespace fs = std::filesystem;

// Where a check did not end for want of what it checks: running nodes, rights, newer versions.
bool IsRefusal(const absl::Status& status) { return !status.ok() && !absl::IsDataLoss(status); }

OfflinePart ManifestPart(const char* name, const ManifestReport::Copy& copy) {
  OfflinePart part;
  part.name = name;
  part.folder = copy.folder;
  part.entries = copy.document_count + copy.chunk_list_count + copy.pin_count;
  std::error_code error;
  for (const auto& file : fs::directory_iterator(copy.folder, error)) {
    if (file.is_regular_file(error)) part.bytes += static_cast<int64_t>(file.file_size(error));
  }
  return part;
}

absl::Status AddManifest(const OfflineFolders& folders, std::vector<OfflinePart>* parts) {
  ManifestReport report;
  const absl::Status status =
      VerifyManifest((fs::path(folders.data_dir) / "manifest").string(),
                     folders.manifest_copy_dir.empty() ? (fs::path(folders.data_dir) / "manifest-copy").string()
                                                       : folders.manifest_copy_dir,
                     &report);
  if (IsRefusal(status)) return status;
  parts->push_back(ManifestPart("manifest", report.primary));
  parts->push_back(ManifestPart("manifest copy", report.copy));
  // Each names the folder that it is about.
  for (std::string& fault : report.faults) {
    const bool is_of_copy = fault.find(report.copy.folder) != std::string::npos;
    (*parts)[is_of_copy ? 1 : 0].faults.push_back(std::move(fault));
  }
  if (report.one_is_behind) {
    const bool is_copy = report.copy.sequence < report.primary.sequence;
    (*parts)[is_copy ? 1 : 0].note = "it is behind the other one; the next start brings it up";
  }
  return absl::OkStatus();
}

absl::Status AddDiskTier(const OfflineFolders& folders, const std::function<void(const std::string&)>& progress,
                         std::vector<OfflinePart>* parts) {
  OfflinePart part;
  part.name = "disk tier";
  part.folder = folders.disk_dir.empty() ? (fs::path(folders.data_dir) / "blocks").string() : folders.disk_dir;
  DiskReport report;
  const auto show = [&](const DiskReport& so_far) {
    // In steps of ten per cent: elsewhere than on a terminal each change is a line.
    if (progress) {
      progress(fmt::format("verifying: {} % of {} blocks on disk, {} faults",
                           10 * (10 * so_far.blocks_done / so_far.blocks_total), so_far.blocks_total,
                           so_far.faults.size()));
    }
  };
  const absl::Status status = VerifyDiskTier(part.folder, &report, show);
  // A node may have no disk tier; one that was asked for by name is missed.
  if (absl::IsNotFound(status) && folders.disk_dir.empty()) return absl::OkStatus();
  if (IsRefusal(status)) return status;
  part.entries = static_cast<int64_t>(report.blocks_done);
  part.bytes = static_cast<int64_t>(report.bytes_done);
  part.faults = std::move(report.faults);
  parts->push_back(std::move(part));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<OfflinePart>> VerifyOffline(const OfflineFolders& folders,
                                                       const std::function<void(const std::string&)>& progress) {
  std::vector<OfflinePart> parts;
  if (progress) progress("verifying: the manifest and its copy");
  EPIC_RETURN_IF_ERROR(AddManifest(folders, &parts));
  EPIC_RETURN_IF_ERROR(AddDiskTier(folders, progress, &parts));
  return parts;
}

}  // namespace epic::client
