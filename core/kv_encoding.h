// Turning a KV block of one dtype into one of another, and the dtypes' names.
//
// What an encoding costs in precision, for a source value x:
//   bf16  round to nearest, ties to even: |error| <= |x| / 256
//   fp16  round to nearest, ties to even: |error| <= max(|x| / 2048, 2^-25)
//   int8  scale = (largest magnitude of its channel, or token) / 127, code = x / scale to nearest, ties to even, both
//   in
//         float32: |error| <= scale / 2. All zeros have scale 0.
// The formulas are exact down to the last bit: equal blocks give equal blocks on every machine.
//
// Pure and thread-safe.
#ifndef EPIC_CORE_KV_ENCODING_H_
#define EPIC_CORE_KV_ENCODING_H_

#include <cstddef>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/kv_block.h"

namespace epic {

// Writes the chunk of `source` as a sealed block of dtype `target` into `out`: the same key, recipe and tokens,
// checksums and an edition of its own. The same dtype gives the same payload. `out` is as for KvBlockWriter::Create:
// zero-filled, aligned to 64, KvBlockBytes of the target long; it must not overlap the source.
//
// Checks the source's checksums first, so that damage never gets new ones. Errors leave no block in `out`:
//   DATA_LOSS         the source does not match its checksums, or holds what no encoder writes: an infinity or NaN, a
//                     scale that is negative, not finite or beyond bf16, the code -128; names layer and chunk
//   OUT_OF_RANGE      the target is fp16 and a value is beyond its range; another dtype would hold it
//   INVALID_ARGUMENT  `out` is not as said, or the dtype is unknown
absl::Status EncodeKvBlock(const KvBlockView& source, KvDtype target, std::span<std::byte> out);

// "bf16", "fp16" or "int8".
std::string_view KvDtypeName(KvDtype dtype);
// INVALID_ARGUMENT names the choices.
absl::StatusOr<KvDtype> ParseKvDtype(std::string_view name);

}  // namespace epic

#endif  // EPIC_CORE_KV_ENCODING_H_
