#include "core/kv_block.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <utility>

#include "core/byte_codec.h"
#include "core/limits.h"
#include "core/status_macros.h"
#include "fmt/format.h"
#include "xxhash.h"

namespace epic {
namespace {

// The header, every integer little-endian; docs/kv-blocks.md has the same table with the meaning of each field:
//
//   offset  bytes  field
//        0      8  magic
//        8      4  format version
//       12      4  bytes of the header, padding and checksum included
//       16      8  bytes of the block
//       24      4  features that a reader must know
//       28      4  alignment of the header's end and of the groups
//       32     16  layers, kv heads, head dimension, dtype
//       48     32  model fingerprint
//       80     32  chunk key
//      112     36  recipe id: length, then 32 bytes, zero-padded
//      148      4  first position
//      152      8  edition
//      160      8  token count, group count
//      168     32  layer layout: key scales, values, value scales, bytes of a layer (8 each)
//      200     56  reserved: written as zeros, not read
//      256         layer groups, 32 bytes each: first layer, layers (4 each), offset, bytes, checksum (8 each)
//                  token ids, 4 bytes each
//                  zeros up to a multiple of the alignment, less 8
//                  XXH3-64 of everything before it
constexpr std::string_view kMagic = "EPICKVB\n";
constexpr uint32_t kFormatVersion = 1;
constexpr uint32_t kFeaturesKnown = 0;
constexpr size_t kReservedOffset = 200;
constexpr size_t kFixedHeaderBytes = 256;
constexpr size_t kGroupEntryBytes = 32;
constexpr size_t kChecksumBytes = 8;
// What we write; readers take any power of two in these bounds.
constexpr uint32_t kGroupAlignmentBytes = 64;
constexpr uint32_t kGroupAlignmentBytesMax = kBlockAlignmentBytes;
constexpr size_t kPartAlignmentBytes = 64;  // of K, V and their scales

// Far above any model; they keep the product of all sizes under 2^53, so that no size computation overflows.
constexpr int32_t kLayersMax = 1024;
constexpr int32_t kKvHeadsMax = 1024;
constexpr int32_t kHeadDimMax = 1024;
constexpr int32_t kBlockTokensMax = kDocumentTokensMax;

size_t RoundUp(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

size_t HeaderBytes(size_t token_count, size_t group_count, size_t alignment) {
  return RoundUp(kFixedHeaderBytes + group_count * kGroupEntryBytes + token_count * sizeof(int32_t) + kChecksumBytes,
                 alignment);
}

// Whole layers a group; a remainder below the minimum belongs to the last group.
std::vector<LayerGroup> PlanGroups(const KvShape& shape, int32_t token_count) {
  const size_t layer_bytes = std::max<size_t>(1, shape.LayerLayout(token_count).bytes);
  const int64_t layers_per_group =
      std::max<int64_t>(1, static_cast<int64_t>((kLayerGroupBytesMin + layer_bytes - 1) / layer_bytes));
  const int32_t group_count = static_cast<int32_t>(std::max<int64_t>(1, shape.layers / layers_per_group));
  std::vector<LayerGroup> groups(group_count);
  size_t offset = HeaderBytes(token_count, group_count, kGroupAlignmentBytes);
  for (int32_t i = 0; i < group_count; ++i) {
    LayerGroup& group = groups[i];
    group.first_layer = static_cast<int32_t>(i * layers_per_group);
    group.layer_count =
        i + 1 == group_count ? shape.layers - group.first_layer : static_cast<int32_t>(layers_per_group);
    group.offset = offset;
    group.bytes = group.layer_count * layer_bytes;  // a multiple of the alignment, as each layer is
    offset += group.bytes;
  }
  return groups;
}

// Offsets of the layers, from the table.
std::vector<size_t> LayerOffsets(const std::vector<LayerGroup>& groups, size_t layer_bytes) {
  std::vector<size_t> offsets;
  for (const LayerGroup& group : groups) {
    for (int32_t i = 0; i < group.layer_count; ++i) offsets.push_back(group.offset + i * layer_bytes);
  }
  return offsets;
}

bool IsVisibleAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

// What is wrong with the sizes and names of a block, or an empty string. Used for a caller's and for a parsed header.
std::string FindFault(const KvBlockInfo& info) {
  const KvShape& shape = info.shape;
  if (shape.layers < 1 || shape.layers > kLayersMax) {
    return fmt::format("{} layers, expected 1 to {}", shape.layers, kLayersMax);
  }
  if (shape.kv_heads < 1 || shape.kv_heads > kKvHeadsMax) {
    return fmt::format("{} kv heads, expected 1 to {}", shape.kv_heads, kKvHeadsMax);
  }
  if (shape.head_dim < 2 || shape.head_dim > kHeadDimMax || shape.head_dim % 2 != 0) {
    return fmt::format("a head dimension of {}, expected an even one from 2 to {}", shape.head_dim, kHeadDimMax);
  }
  if (shape.dtype != KvDtype::kBf16 && shape.dtype != KvDtype::kFp16 && shape.dtype != KvDtype::kInt8) {
    return fmt::format("dtype {}, expected 1 (bf16), 2 (fp16) or 3 (int8)", static_cast<uint32_t>(shape.dtype));
  }
  if (info.token_ids.empty() || info.token_ids.size() > static_cast<size_t>(kBlockTokensMax)) {
    return fmt::format("{} tokens, expected 1 to {}", info.token_ids.size(), kBlockTokensMax);
  }
  if (const auto bad = std::find_if(info.token_ids.begin(), info.token_ids.end(), [](int32_t id) { return id < 0; });
      bad != info.token_ids.end()) {
    return fmt::format("token id {} at index {}, expected none below 0", *bad, bad - info.token_ids.begin());
  }
  if (info.recipe_id.empty() || info.recipe_id.size() > kRecipeIdBytesMax || !IsVisibleAscii(info.recipe_id)) {
    return fmt::format("a recipe id of {} bytes, expected 1 to {} visible ASCII characters", info.recipe_id.size(),
                       kRecipeIdBytesMax);
  }
  if (info.first_position < 0 || info.first_position > kBlockTokensMax) {
    return fmt::format("first position {}, expected 0 to {}", info.first_position, kBlockTokensMax);
  }
  return "";
}

// What is wrong with the offset table, or an empty string. Groups follow each other without a gap, the padding behind
// their last layer included: a gap's bytes would be under no checksum.
std::string FindTableFault(const std::vector<LayerGroup>& groups, const KvBlockInfo& info, size_t layer_bytes,
                           size_t alignment, size_t header_bytes, size_t block_bytes) {
  int64_t layer = 0;
  size_t offset = header_bytes;
  for (size_t i = 0; i < groups.size(); ++i) {
    const LayerGroup& group = groups[i];
    if (group.first_layer != layer || group.layer_count < 1 || group.layer_count > info.shape.layers - layer) {
      return fmt::format("group {} has layers {} to {} of {}, expected to begin at {}", i, group.first_layer,
                         int64_t{group.first_layer} + group.layer_count, info.shape.layers, layer);
    }
    const size_t expected_bytes = RoundUp(group.layer_count * layer_bytes, alignment);
    if (group.offset != offset || group.bytes != expected_bytes || group.bytes > block_bytes - offset) {
      return fmt::format("group {} has {} bytes at {}, expected {} at {} in a block of {}", i, group.bytes,
                         group.offset, expected_bytes, offset, block_bytes);
    }
    layer += group.layer_count;
    offset += group.bytes;
  }
  if (layer != info.shape.layers || offset != block_bytes) {
    return fmt::format("groups end at layer {} of {} and byte {} of {}", layer, info.shape.layers, offset, block_bytes);
  }
  return "";
}

void PutGroups(const std::vector<LayerGroup>& groups, ByteWriter* writer) {
  for (const LayerGroup& group : groups) {
    writer->Put(group.first_layer);
    writer->Put(group.layer_count);
    writer->Put(static_cast<uint64_t>(group.offset));
    writer->Put(static_cast<uint64_t>(group.bytes));
    writer->Put(group.checksum);
  }
}

// Names the very bytes: the key stands for model, recipe and tokens, the dtype and the table for what the payload's
// bytes mean. Never 0, so that callers may use 0 for "none".
uint64_t ComputeEdition(const KvBlockInfo& info, const std::vector<LayerGroup>& groups) {
  ByteWriter writer;
  writer.PutRaw(info.key.AsBytes());
  writer.Put(static_cast<uint32_t>(info.shape.dtype));
  PutGroups(groups, &writer);
  const uint64_t edition = XXH3_64bits(writer.bytes().data(), writer.size());
  return edition == 0 ? 1 : edition;
}

std::string EncodeHeader(const KvBlockInfo& info, const KvLayerLayout& layout, uint64_t edition,
                         const std::vector<LayerGroup>& groups, size_t block_bytes) {
  const size_t header_bytes = groups.front().offset;
  ByteWriter writer;
  writer.PutRaw(kMagic);
  writer.Put(kFormatVersion);
  writer.Put(static_cast<uint32_t>(header_bytes));
  writer.Put(static_cast<uint64_t>(block_bytes));
  writer.Put(uint32_t{0});  // features
  writer.Put(kGroupAlignmentBytes);
  writer.Put(info.shape.layers);
  writer.Put(info.shape.kv_heads);
  writer.Put(info.shape.head_dim);
  writer.Put(static_cast<uint32_t>(info.shape.dtype));
  // A fingerprint is a SHA-256 as a key is, and has the same hexadecimal form; Create has checked it.
  writer.PutRaw(ChunkKey::FromHex(info.model_fingerprint_hex).value().AsBytes());
  writer.PutRaw(info.key.AsBytes());
  writer.PutString(info.recipe_id);
  writer.PadTo(writer.size() + kRecipeIdBytesMax - info.recipe_id.size());
  writer.Put(info.first_position);
  writer.Put(edition);
  writer.Put(static_cast<uint32_t>(info.token_ids.size()));
  writer.Put(static_cast<uint32_t>(groups.size()));
  for (const size_t part : {layout.key_scales, layout.values, layout.value_scales, layout.bytes}) {
    writer.Put(static_cast<uint64_t>(part));
  }
  writer.PadTo(kFixedHeaderBytes);
  PutGroups(groups, &writer);
  writer.PutRaw({reinterpret_cast<const char*>(info.token_ids.data()), info.token_ids.size() * sizeof(int32_t)});
  writer.PadTo(header_bytes - kChecksumBytes);
  writer.Put(static_cast<uint64_t>(XXH3_64bits(writer.bytes().data(), writer.size())));
  return std::move(writer).Take();
}

absl::Status Damaged(const std::string& what) { return absl::DataLossError("damaged KV block: " + what); }

}  // namespace

size_t KvShape::MatrixBytes(int32_t token_count) const {
  return static_cast<size_t>(kv_heads) * static_cast<size_t>(PaddedTokens(token_count)) *
         static_cast<size_t>(head_dim) * ElementBytes();
}

KvLayerLayout KvShape::LayerLayout(int32_t token_count) const {
  const bool has_scales = dtype == KvDtype::kInt8;
  const size_t key_scales = has_scales ? static_cast<size_t>(kv_heads) * head_dim : 0;
  const size_t value_scales = has_scales ? static_cast<size_t>(kv_heads) * PaddedTokens(token_count) : 0;
  KvLayerLayout layout;
  layout.key_scales = MatrixBytes(token_count);  // a multiple of 64: 32 tokens of at least 2 dimensions
  layout.values = layout.key_scales + RoundUp(key_scales * sizeof(float), kPartAlignmentBytes);
  layout.value_scales = layout.values + MatrixBytes(token_count);
  layout.bytes = layout.value_scales + value_scales * sizeof(float);  // a multiple of 128
  return layout;
}

size_t KvBlockBytes(const KvShape& shape, int32_t token_count) {
  const LayerGroup last = PlanGroups(shape, token_count).back();
  return last.offset + last.bytes;
}

size_t KvBlockBytesMax(const KvShape& shape, int32_t token_count) {
  return HeaderBytes(token_count, shape.layers, kGroupAlignmentBytesMax) +
         shape.layers * RoundUp(shape.LayerLayout(token_count).bytes, kGroupAlignmentBytesMax);
}

size_t KvBlockBytes(const KvBlockInfo& info) {
  return KvBlockBytes(info.shape, static_cast<int32_t>(info.token_ids.size()));
}

absl::StatusOr<KvBlockWriter> KvBlockWriter::Create(const KvBlockInfo& info, std::span<std::byte> bytes) {
  if (const std::string fault = FindFault(info); !fault.empty()) {
    return absl::InvalidArgumentError("KV block with " + fault);
  }
  const absl::StatusOr<ChunkKey> fingerprint = ChunkKey::FromHex(info.model_fingerprint_hex);
  if (!fingerprint.ok() || fingerprint->Hex() != info.model_fingerprint_hex) {
    return absl::InvalidArgumentError(
        fmt::format("KV block with model fingerprint of {} characters, expected 64 "
                    "lower-case hexadecimal digits",
                    info.model_fingerprint_hex.size()));
  }
  if (bytes.size() != KvBlockBytes(info)) {
    return absl::InvalidArgumentError(fmt::format("KV block of {} tokens needs {} bytes, was given {}",
                                                  info.token_ids.size(), KvBlockBytes(info), bytes.size()));
  }
  if (reinterpret_cast<uintptr_t>(bytes.data()) % kGroupAlignmentBytes != 0) {
    return absl::InvalidArgumentError(fmt::format("KV block memory must be aligned to {} bytes", kGroupAlignmentBytes));
  }
  KvBlockWriter writer;
  writer.info_ = info;
  writer.layout_ = info.shape.LayerLayout(static_cast<int32_t>(info.token_ids.size()));
  writer.bytes_ = bytes;
  writer.groups_ = PlanGroups(info.shape, static_cast<int32_t>(info.token_ids.size()));
  return writer;
}

std::span<std::byte> KvBlockWriter::LayerBytes(int32_t layer) {
  // Groups follow each other without a gap and this writer planned them, so that layers are evenly spaced.
  return bytes_.subspan(groups_.front().offset + layer * layout_.bytes, layout_.bytes);
}

uint16_t* KvBlockWriter::Keys(int32_t layer) {
  assert(info_.shape.dtype != KvDtype::kInt8);
  return reinterpret_cast<uint16_t*>(LayerBytes(layer).data());
}

uint16_t* KvBlockWriter::Values(int32_t layer) {
  assert(info_.shape.dtype != KvDtype::kInt8);
  return reinterpret_cast<uint16_t*>(LayerBytes(layer).data() + layout_.values);
}

int8_t* KvBlockWriter::KeyCodes(int32_t layer) {
  assert(info_.shape.dtype == KvDtype::kInt8);
  return reinterpret_cast<int8_t*>(LayerBytes(layer).data());
}

float* KvBlockWriter::KeyScales(int32_t layer) {
  assert(info_.shape.dtype == KvDtype::kInt8);
  return reinterpret_cast<float*>(LayerBytes(layer).data() + layout_.key_scales);
}

int8_t* KvBlockWriter::ValueCodes(int32_t layer) {
  assert(info_.shape.dtype == KvDtype::kInt8);
  return reinterpret_cast<int8_t*>(LayerBytes(layer).data() + layout_.values);
}

float* KvBlockWriter::ValueScales(int32_t layer) {
  assert(info_.shape.dtype == KvDtype::kInt8);
  return reinterpret_cast<float*>(LayerBytes(layer).data() + layout_.value_scales);
}

uint64_t KvBlockWriter::Seal() {
  for (LayerGroup& group : groups_) group.checksum = XXH3_64bits(bytes_.data() + group.offset, group.bytes);
  const uint64_t edition = ComputeEdition(info_, groups_);
  const std::string header = EncodeHeader(info_, layout_, edition, groups_, bytes_.size());
  std::memcpy(bytes_.data(), header.data(), header.size());
  return edition;
}

absl::StatusOr<KvBlockView> KvBlockView::Parse(std::span<const std::byte> bytes) {
  const std::string_view raw(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (raw.size() < kFixedHeaderBytes + kChecksumBytes) {
    return Damaged(fmt::format("{} bytes, shorter than a header", raw.size()));
  }
  if (reinterpret_cast<uintptr_t>(bytes.data()) % alignof(float) != 0) {
    return absl::InvalidArgumentError("KV block memory must be aligned to 4 bytes");
  }
  ByteReader reader(raw);
  if (reader.GetRaw(kMagic.size()) != kMagic) return Damaged("no magic at its start");
  if (const auto version = reader.Get<uint32_t>(); version != kFormatVersion) {
    return Damaged(fmt::format("format version {}, expected {}: another version of EPIC wrote it; compile it again",
                               version, kFormatVersion));
  }
  const auto header_bytes = reader.Get<uint32_t>();
  if (header_bytes < kFixedHeaderBytes + kChecksumBytes || header_bytes > raw.size()) {
    return Damaged(fmt::format("a header of {} bytes in {} bytes", header_bytes, raw.size()));
  }
  ByteReader checksum_reader(raw.substr(header_bytes - kChecksumBytes, kChecksumBytes));
  if (XXH3_64bits(raw.data(), header_bytes - kChecksumBytes) != checksum_reader.Get<uint64_t>()) {
    return Damaged("its header does not match the header's checksum");
  }
  if (const auto block_bytes = reader.Get<uint64_t>(); block_bytes != raw.size()) {
    return Damaged(fmt::format("{} bytes, its header says {}", raw.size(), block_bytes));
  }

  if (const auto features = reader.Get<uint32_t>(); (features & ~kFeaturesKnown) != 0) {
    return Damaged(fmt::format("it needs features {:#x}, this EPIC knows {:#x}: a newer one wrote it; compile it again",
                               features, kFeaturesKnown));
  }
  const auto alignment = reader.Get<uint32_t>();
  if (!std::has_single_bit(alignment) || alignment < kGroupAlignmentBytes || alignment > kGroupAlignmentBytesMax) {
    return Damaged(fmt::format("groups aligned to {} bytes, expected a power of two from {} to {}", alignment,
                               kGroupAlignmentBytes, kGroupAlignmentBytesMax));
  }

  KvBlockView view;
  KvBlockInfo& info = view.info_;
  info.shape.layers = reader.Get<int32_t>();
  info.shape.kv_heads = reader.Get<int32_t>();
  info.shape.head_dim = reader.Get<int32_t>();
  info.shape.dtype = static_cast<KvDtype>(reader.Get<uint32_t>());
  EPIC_ASSIGN_OR_RETURN(const ChunkKey fingerprint, ChunkKey::FromBytes(reader.GetRaw(info.key.bytes.size())));
  info.model_fingerprint_hex = fingerprint.Hex();
  EPIC_ASSIGN_OR_RETURN(info.key, ChunkKey::FromBytes(reader.GetRaw(info.key.bytes.size())));
  const auto recipe_bytes = reader.Get<uint32_t>();
  info.recipe_id = reader.GetRaw(kRecipeIdBytesMax).substr(0, recipe_bytes);
  info.first_position = reader.Get<int32_t>();
  view.edition_ = reader.Get<uint64_t>();
  const auto token_count = reader.Get<uint32_t>();
  const auto group_count = reader.Get<uint32_t>();
  if (recipe_bytes > kRecipeIdBytesMax) return Damaged(fmt::format("a recipe id of {} bytes", recipe_bytes));
  if (HeaderBytes(token_count, group_count, alignment) != header_bytes) {
    return Damaged(
        fmt::format("{} tokens and {} groups in a header of {} bytes", token_count, group_count, header_bytes));
  }
  for (size_t* part :
       {&view.layout_.key_scales, &view.layout_.values, &view.layout_.value_scales, &view.layout_.bytes}) {
    *part = reader.Get<uint64_t>();
  }
  reader.GetRaw(kFixedHeaderBytes - kReservedOffset);
  for (uint32_t i = 0; i < group_count; ++i) {
    LayerGroup group;
    group.first_layer = reader.Get<int32_t>();
    group.layer_count = reader.Get<int32_t>();
    group.offset = reader.Get<uint64_t>();
    group.bytes = reader.Get<uint64_t>();
    group.checksum = reader.Get<uint64_t>();
    view.groups_.push_back(group);
  }
  info.token_ids = reader.GetIntegers(token_count);
  if (const std::string fault = FindFault(info); !fault.empty()) return Damaged(fault);
  if (view.layout_ != info.shape.LayerLayout(static_cast<int32_t>(token_count))) {
    return Damaged(
        fmt::format("layers of {} bytes with values at {} and scales at {} and {}, not as its dtype has them",
                    view.layout_.bytes, view.layout_.values, view.layout_.key_scales, view.layout_.value_scales));
  }
  if (const std::string fault =
          FindTableFault(view.groups_, info, view.layout_.bytes, alignment, header_bytes, raw.size());
      !fault.empty()) {
    return Damaged(fault);
  }
  if (view.edition_ != ComputeEdition(info, view.groups_)) return Damaged("its edition does not match its checksums");
  view.layer_offsets_ = LayerOffsets(view.groups_, view.layout_.bytes);
  view.bytes_ = bytes;
  view.header_bytes_ = header_bytes;
  return view;
}

std::span<const std::byte> KvBlockView::LayerBytes(int32_t layer) const {
  return bytes_.subspan(layer_offsets_[layer], layout_.bytes);
}

const uint16_t* KvBlockView::Keys(int32_t layer) const {
  assert(info_.shape.dtype != KvDtype::kInt8);
  return reinterpret_cast<const uint16_t*>(bytes_.data() + layer_offsets_[layer]);
}

const uint16_t* KvBlockView::Values(int32_t layer) const {
  assert(info_.shape.dtype != KvDtype::kInt8);
  return reinterpret_cast<const uint16_t*>(bytes_.data() + layer_offsets_[layer] + layout_.values);
}

const int8_t* KvBlockView::KeyCodes(int32_t layer) const {
  assert(info_.shape.dtype == KvDtype::kInt8);
  return reinterpret_cast<const int8_t*>(bytes_.data() + layer_offsets_[layer]);
}

const float* KvBlockView::KeyScales(int32_t layer) const {
  assert(info_.shape.dtype == KvDtype::kInt8);
  return reinterpret_cast<const float*>(bytes_.data() + layer_offsets_[layer] + layout_.key_scales);
}

const int8_t* KvBlockView::ValueCodes(int32_t layer) const {
  assert(info_.shape.dtype == KvDtype::kInt8);
  return reinterpret_cast<const int8_t*>(bytes_.data() + layer_offsets_[layer] + layout_.values);
}

const float* KvBlockView::ValueScales(int32_t layer) const {
  assert(info_.shape.dtype == KvDtype::kInt8);
  return reinterpret_cast<const float*>(bytes_.data() + layer_offsets_[layer] + layout_.value_scales);
}

absl::Status KvBlockView::VerifyGroup(size_t group_index) const {
  const LayerGroup& group = groups_[group_index];
  const uint64_t seen = XXH3_64bits(bytes_.data() + group.offset, group.bytes);
  if (seen == group.checksum) return absl::OkStatus();
  return Damaged(fmt::format("layer group {} (layers {} to {}) of chunk {} has checksum {:016x}, expected {:016x}",
                             group_index, group.first_layer, group.first_layer + group.layer_count - 1, info_.key.Hex(),
                             seen, group.checksum));
}

absl::Status KvBlockView::VerifyPayload() const {
  for (size_t i = 0; i < groups_.size(); ++i) EPIC_RETURN_IF_ERROR(VerifyGroup(i));
  return absl::OkStatus();
}

}  // namespace epic
