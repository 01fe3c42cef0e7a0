#include "transfer/block_source.h"

#include <algorithm>

#include "fmt/format.h"

namespace epic {
namespace {

// The layer groups that hold [first_layer, first_layer + layer_count) lie side by side: KvBlockView has checked that.
absl::StatusOr<ByteSpan> SpanOfLayers(const KvBlockView& block, int32_t first_layer, int32_t layer_count) {
  const int32_t layers = block.info().shape.layers;
  if (first_layer < 0 || first_layer >= layers || layer_count > layers - first_layer) {
    return absl::OutOfRangeError(fmt::format("layers [{}, {}) of a block with layers [0, {})", first_layer,
                                             int64_t{first_layer} + layer_count, layers));
  }
  ByteSpan span{.begin = block.bytes().size(), .end = 0};
  for (const LayerGroup& group : block.groups()) {
    if (group.first_layer >= first_layer + layer_count || group.first_layer + group.layer_count <= first_layer)
      continue;
    span.begin = std::min(span.begin, group.offset);
    span.end = std::max(span.end, group.offset + group.bytes);
  }
  return span;
}

}  // namespace

absl::StatusOr<ByteSpan> ResolveRange(const KvBlockView& block, const BlockRange& range) {
  if (range.layer_count < 0) {
    return absl::OutOfRangeError(fmt::format("layer_count {}, expected 0 or more", range.layer_count));
  }
  ByteSpan whole{.begin = 0, .end = block.bytes().size()};
  if (range.layer_count > 0) {
    absl::StatusOr<ByteSpan> layers = SpanOfLayers(block, range.first_layer, range.layer_count);
    if (!layers.ok()) return layers.status();
    whole = *layers;
  }
  const size_t bytes = whole.end - whole.begin;
  // Compared without adding, so that no sum of hostile numbers can wrap around.
  if (range.offset > bytes || range.length > bytes - range.offset) {
    return absl::OutOfRangeError(
        fmt::format("{} bytes at offset {} of a range of {} bytes", range.length, range.offset, bytes));
  }
  const size_t begin = whole.begin + range.offset;
  return ByteSpan{.begin = begin, .end = range.length == 0 ? whole.end : begin + range.length};
}

}  // namespace epic
