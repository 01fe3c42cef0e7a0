#include "transfer/in_process_block_source.h"

#include <cstring>
#include <utility>

#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {
namespace {

class InProcessBlock : public LocatedBlock {
 public:
  explicit InProcessBlock(BlockProvider::Located located) : view_(std::move(located.view)) {
    origin = located.origin;
    compile_us = located.compile_us;
    if (view_ == nullptr) return;
    edition = view_->edition();
    block_bytes = view_->bytes().size();
  }
  const KvBlockView* InPlace() const override { return view_.get(); }

 private:
  const std::shared_ptr<const KvBlockView> view_;
};

}  // namespace

absl::Status CopyRange(const KvBlockView& block, const BlockRange& range, std::span<std::byte> out) {
  EPIC_ASSIGN_OR_RETURN(const ByteSpan span, ResolveRange(block, range));
  if (out.size() != span.end - span.begin) {
    return absl::OutOfRangeError(
        fmt::format("a buffer of {} bytes for a range of {} bytes", out.size(), span.end - span.begin));
  }
  if (!out.empty()) std::memcpy(out.data(), block.bytes().data() + span.begin, out.size());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::unique_ptr<LocatedBlock>>> InProcessBlockSource::Locate(const LocateQuery& query,
                                                                                        Deadline deadline) {
  EPIC_ASSIGN_OR_RETURN(std::vector<BlockProvider::Located> located, provider_->Locate(query, deadline));
  std::vector<std::unique_ptr<LocatedBlock>> blocks;
  blocks.reserve(located.size());
  for (BlockProvider::Located& one : located) blocks.push_back(std::make_unique<InProcessBlock>(std::move(one)));
  return blocks;
}

absl::Status InProcessBlockSource::Read(const LocatedBlock& block, const BlockRange& range, std::span<std::byte> out,
                                        Deadline deadline) {
  if (deadline <= std::chrono::steady_clock::now()) {
    return absl::DeadlineExceededError("the deadline passed before the block was read");
  }
  const KvBlockView* view = block.InPlace();
  if (view == nullptr) return absl::NotFoundError("no lease: the chunk was absent when it was located");
  return CopyRange(*view, range, out);
}

}  // namespace epic
