#include "storage/manifest_state.h"

#include <utility>

#include "core/byte_codec.h"
#include "xxhash.h"

namespace epic {

std::string EncodeManifestState(const ManifestState& state) {
  ByteWriter writer;
  writer.Put(state.identity);
  writer.Put(state.epoch);
  writer.Put(state.epoch_base_sequence);
  writer.Put(state.record_count);
  writer.Put(state.digest);
  writer.Put(static_cast<uint64_t>(XXH3_64bits(writer.bytes().data(), writer.size())));
  return std::move(writer).Take();
}

absl::StatusOr<ManifestState> DecodeManifestState(std::string_view bytes) {
  ByteReader reader(bytes);
  ManifestState state;
  state.identity = reader.Get<uint64_t>();
  state.epoch = reader.Get<uint64_t>();
  state.epoch_base_sequence = reader.Get<uint64_t>();
  state.record_count = reader.Get<uint64_t>();
  state.digest = reader.Get<uint64_t>();
  if (bytes != EncodeManifestState(state)) return absl::DataLossError("the manifest's record of its state is damaged");
  return state;
}

uint64_t ManifestRecordDigest(std::string_view key, std::string_view value) {
  return XXH3_64bits_withSeed(value.data(), value.size(), XXH3_64bits(key.data(), key.size()));
}

}  // namespace epic
