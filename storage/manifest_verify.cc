#include "storage/manifest_verify.h"

#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "core/manifest_records.h"
#include "core/status_macros.h"
#include "fmt/format.h"
#include "storage/manifest_database.h"
#include "storage/manifest_header.h"
#include "storage/manifest_keys.h"
#include "storage/manifest_options.h"
#include "storage/manifest_recovery.h"
#include "storage/manifest_repair.h"

namespace epic {
namespace {

using Condition = ManifestCopyView::Condition;
// Digests of all records of a copy, by key.
using Digests = std::map<std::string, uint64_t, std::less<>>;

constexpr size_t kFaultsMax = 1000;

std::string Describe(std::string_view key) {
  if (key.empty()) return "an empty key";
  const auto names = ParseManifestKey(static_cast<ManifestKeyKind>(key.front()), key);
  if (!names) return fmt::format("an unreadable key of {} bytes", key.size());
  return fmt::format("record {} of {}", key.front(), fmt::join(*names, ", "));
}

// Checks the records of one copy as they come.
class RecordChecker {
 public:
  RecordChecker(ManifestReport::Copy* copy, std::vector<std::string>* faults) : copy_(copy), faults_(faults) {}

  void Check(std::string_view key, std::string_view value) {
    digests_[std::string(key)] = ManifestRecordDigest(key, value);
    const absl::Status status = CheckRecord(key, value);
    if (!status.ok()) {
      AddFault(fmt::format("{} in {}: {}", Describe(key), copy_->folder, std::string(status.message())));
    }
  }
  // What belongs to a document has one.
  void CheckReferences() {
    for (const auto& [key, digest] : digests_) {
      const auto kind = static_cast<ManifestKeyKind>(key.front());
      if (kind == ManifestKeyKind::kState || kind == ManifestKeyKind::kFormatVersion) continue;
      const auto names = ParseManifestKey(kind, key);
      if (!names || names->size() < 2) continue;
      for (const ManifestKeyKind needed : {ManifestKeyKind::kDocument, ManifestKeyKind::kIndex}) {
        if (digests_.contains(ManifestKey(needed, {(*names)[0], (*names)[1]}))) continue;
        AddFault(fmt::format("{} in {}: the document has no record {}", Describe(key), copy_->folder,
                             static_cast<char>(needed)));
      }
    }
  }
  void AddFault(std::string fault) {
    if (faults_->size() < kFaultsMax) faults_->push_back(std::move(fault));
  }
  const Digests& digests() const { return digests_; }

 private:
  absl::Status CheckRecord(std::string_view key, std::string_view value);
  absl::Status CheckDocument(const std::vector<std::string>& names, std::string_view value);
  absl::Status CheckChunkList(const std::vector<std::string>& names, std::string_view value);

  ManifestReport::Copy* const copy_;
  std::vector<std::string>* const faults_;
  Digests digests_;
};

absl::Status RecordChecker::CheckRecord(std::string_view key, std::string_view value) {
  const auto kind = key.empty() ? ManifestKeyKind::kState : static_cast<ManifestKeyKind>(key.front());
  const auto names = ParseManifestKey(kind, key);
  if (!names) return absl::DataLossError("the key cannot be read");
  size_t name_count = 2;
  if (kind == ManifestKeyKind::kChunkList) name_count = 4;
  if (kind == ManifestKeyKind::kState || kind == ManifestKeyKind::kFormatVersion) name_count = 0;
  if (names->size() != name_count) {
    return absl::DataLossError(fmt::format("its key has {} names, expected {}", names->size(), name_count));
  }
  switch (kind) {
    case ManifestKeyKind::kDocument:
      return CheckDocument(*names, value);
    case ManifestKeyKind::kChunkList:
      return CheckChunkList(*names, value);
    case ManifestKeyKind::kIndex:
      // Version 1 has no headers.
      return value.empty() ? absl::OkStatus() : DecodeDocumentHeader((*names)[0], (*names)[1], value).status();
    case ManifestKeyKind::kPin:
      ++copy_->pin_count;
      return absl::OkStatus();
    case ManifestKeyKind::kState:
    case ManifestKeyKind::kFormatVersion:
      return absl::OkStatus();  // read when the copy was opened
  }
  return absl::DataLossError("no record of this kind is known");
}

absl::Status RecordChecker::CheckDocument(const std::vector<std::string>& names, std::string_view value) {
  ++copy_->document_count;
  EPIC_ASSIGN_OR_RETURN(const DocumentRecord document, DecodeDocumentRecord(value));
  if (document.tenant == names[0] && document.id == names[1]) return absl::OkStatus();
  return absl::DataLossError(fmt::format("it is the record of document {} of tenant {}", document.id, document.tenant));
}

absl::Status RecordChecker::CheckChunkList(const std::vector<std::string>& names, std::string_view value) {
  ++copy_->chunk_list_count;
  EPIC_ASSIGN_OR_RETURN(const ChunkListRecord list, DecodeChunkListRecord(value));
  if (list.model_fingerprint_hex == names[2] && list.recipe.id == names[3]) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("it is a chunk list of model {} and recipe {}", list.model_fingerprint_hex, list.recipe.id));
}

void Compare(const ManifestReport& report, const Digests& primary, const Digests& copy, RecordChecker* checker) {
  const std::string state_key = ManifestKey(ManifestKeyKind::kState, {});
  for (const auto& [key, digest] : primary) {
    if (key == state_key) continue;
    const auto found = copy.find(key);
    if (found == copy.end()) {
      checker->AddFault(fmt::format("{} is in {} only", Describe(key), report.primary.folder));
    } else if (found->second != digest) {
      checker->AddFault(
          fmt::format("{} differs between {} and {}", Describe(key), report.primary.folder, report.copy.folder));
    }
  }
  for (const auto& [key, digest] : copy) {
    if (!primary.contains(key)) {
      checker->AddFault(fmt::format("{} is in {} only", Describe(key), report.copy.folder));
    }
  }
}

void Fill(const ManifestCopyView& view, ManifestReport::Copy* copy) {
  copy->version = view.version;
  copy->epoch = view.state.epoch;
  copy->sequence = view.sequence;
}

}  // namespace

absl::Status VerifyManifest(const std::string& folder, const std::string& copy_folder, ManifestReport* report) {
  *report = {};
  report->primary.folder = folder;
  report->copy.folder = copy_folder.empty() ? DefaultManifestCopyFolder(folder) : copy_folder;
  EPIC_ASSIGN_OR_RETURN(const ManifestLocks locks, LockManifest(folder, report->copy.folder, nullptr));
  RecordChecker primary_checker(&report->primary, &report->faults);
  RecordChecker copy_checker(&report->copy, &report->faults);
  std::vector<ManifestCopyView> views;
  for (RecordChecker* checker : {&primary_checker, &copy_checker}) {
    ManifestReport::Copy* const copy = checker == &primary_checker ? &report->primary : &report->copy;
    const auto visit = [&](std::string_view key, std::string_view value) { checker->Check(key, value); };
    EPIC_ASSIGN_OR_RETURN(const ManifestCopyView view, InspectManifestCopy(copy->folder, nullptr, visit));
    Fill(view, copy);
    if (view.condition == Condition::kDamaged) checker->AddFault(view.reason);
    if (view.condition == Condition::kSound) checker->CheckReferences();
    views.push_back(view);
  }
  const ManifestCopyView& primary = views[0];
  const ManifestCopyView& copy = views[1];
  if (primary.condition == Condition::kAbsent && copy.condition == Condition::kAbsent) {
    return absl::NotFoundError(fmt::format("there is no manifest in {} and {}", folder, report->copy.folder));
  }
  const absl::StatusOr<ManifestRecovery> decision = DecideManifestRecovery(primary, copy);
  if (!decision.ok() && !absl::IsDataLoss(decision.status())) return decision.status();
  for (const ManifestCopyView* view : {&primary, &copy}) {
    const bool is_missing_copy = view == &copy && primary.version == 1;  // which had no copy
    if (view->condition == Condition::kAbsent && !is_missing_copy) {
      primary_checker.AddFault(fmt::format("there is no copy of the manifest in {}", view->folder));
    }
  }
  if (primary.condition == Condition::kSound && copy.condition == Condition::kSound) {
    report->one_is_behind = decision.ok() && *decision != ManifestRecovery::kOpen;
    if (!report->one_is_behind) Compare(*report, primary_checker.digests(), copy_checker.digests(), &primary_checker);
  }
  if (report->faults.empty()) return absl::OkStatus();
  return absl::DataLossError(fmt::format("the manifest in {} has {} faults, the first: {}", folder,
                                         report->faults.size(), report->faults.front()));
}

}  // namespace epic
