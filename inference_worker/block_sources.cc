#include "inference_worker/block_sources.h"

#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {

absl::StatusOr<std::shared_ptr<BlockSource>> BlockSources::Get(const std::string& home) {
  {
    MutexLock lock(mutex_);
    if (const auto found = sources_.find(home); found != sources_.end()) return found->second;
  }
  EPIC_ASSIGN_OR_RETURN(std::shared_ptr<BlockSource> source, factory_(home));
  MutexLock lock(mutex_);
  if (sources_.size() >= kBlockSourcesMax) {
    std::erase_if(sources_, [](const auto& entry) { return entry.second.use_count() == 1; });
  }
  if (sources_.size() >= kBlockSourcesMax) {
    return absl::ResourceExhaustedError(fmt::format(
        "the worker reads from {} cache nodes at once; at most {} are allowed", sources_.size(), kBlockSourcesMax));
  }
  return sources_.emplace(home, std::move(source)).first->second;  // an earlier one, where two were made at once
}

}  // namespace epic
