// A KV block. Each input is parsed as it is, and once more with its checksums and edition made right, as a hostile
// sender would: what then parses is read to its last byte and encoded in every dtype.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "core/kv_block_testing.h"
#include "core/kv_encoding.h"
#include "tests/fuzz/fuzz_support.h"
#include "xxhash.h"

namespace {

constexpr size_t kTableOffset = 256;
constexpr size_t kGroupEntryBytes = 32;

template <typename Integer>
Integer Get(std::span<const std::byte> bytes, size_t offset) {
  Integer value;
  std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}

void Put(std::span<std::byte> bytes, size_t offset, uint64_t value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(value));
}

// Leaves alone what is not even long enough to have checksums.
void MakeChecksumsRight(std::span<std::byte> block) {
  if (block.size() < kTableOffset + 8) return;
  const auto header_bytes = Get<uint32_t>(block, 12);
  if (header_bytes < kTableOffset + 8 || header_bytes > block.size()) return;
  const size_t groups =
      std::min<size_t>(Get<uint32_t>(block, 164), (header_bytes - 8 - kTableOffset) / kGroupEntryBytes);
  for (size_t i = 0; i < groups; ++i) {
    const size_t entry = kTableOffset + i * kGroupEntryBytes;
    const auto offset = Get<uint64_t>(block, entry + 8);
    const auto bytes = Get<uint64_t>(block, entry + 16);
    if (offset > block.size() || bytes > block.size() - offset) continue;
    Put(block, entry + 24, XXH3_64bits(block.data() + offset, bytes));
  }
  std::string named(reinterpret_cast<const char*>(block.data()) + 80, 32);  // key, dtype, table
  named.append(reinterpret_cast<const char*>(block.data()) + 44, 4);
  named.append(reinterpret_cast<const char*>(block.data()) + kTableOffset, groups * kGroupEntryBytes);
  Put(block, 152, XXH3_64bits(named.data(), named.size()));
  Put(block, header_bytes - 8, XXH3_64bits(block.data(), header_bytes - 8));
}

void Use(std::span<const std::byte> block) {
  const absl::StatusOr<epic::KvBlockView> view = epic::KvBlockView::Parse(block);
  if (!view.ok()) {
    epic::Require(view.status().code() == absl::StatusCode::kDataLoss, view.status().ToString());
    return;
  }
  const bool intact = view->VerifyPayload().ok();
  for (const epic::KvDtype dtype : {epic::KvDtype::kBf16, epic::KvDtype::kFp16, epic::KvDtype::kInt8}) {
    epic::KvBlockInfo info = view->info();
    info.shape.dtype = dtype;
    const epic::PageAlignedBytes out(epic::KvBlockBytes(info));
    if (!epic::EncodeKvBlock(*view, dtype, out.span()).ok()) continue;
    epic::Require(intact, "a damaged block was encoded");
    const absl::StatusOr<epic::KvBlockView> encoded = epic::KvBlockView::Parse(out.span());
    epic::Require(encoded.ok() && encoded->VerifyPayload().ok(), "what was encoded is no block");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const epic::PageAlignedBytes memory(size);
  std::copy_n(reinterpret_cast<const std::byte*>(data), size, memory.span().begin());
  Use(memory.span());
  MakeChecksumsRight(memory.span());
  Use(memory.span());
  return 0;
}
