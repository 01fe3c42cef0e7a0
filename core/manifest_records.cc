#include "core/manifest_records.h"

#include <algorithm>
#include <utility>

#include "core/byte_codec.h"
#include "core/status_macros.h"
#include "fmt/format.h"
#include "xxhash.h"

namespace epic {
namespace {

// Every version keeps the frame: a version byte and a kind byte in front, the checksum of all before it at the end.
// Version 2 added the recipe of a document and the sections of a chunk list; what is of version 1 has neither.
constexpr uint8_t kRecordVersion = 2;
constexpr char kDocumentKind = 'D';
constexpr char kChunkListKind = 'C';
constexpr size_t kChecksumBytes = 8;

absl::Status Damaged(char kind, const std::string& what) {
  return absl::DataLossError(
      fmt::format("damaged {} record: {}", kind == kDocumentKind ? "document" : "chunk list", what));
}

ByteWriter BeginRecord(char kind) {
  ByteWriter writer;
  writer.Put(kRecordVersion);
  writer.Put(kind);
  return writer;
}

std::string EndRecord(ByteWriter writer) {
  writer.Put(static_cast<uint64_t>(XXH3_64bits(writer.bytes().data(), writer.size())));
  return std::move(writer).Take();
}

// A reader that stands behind the frame's two bytes and ends before the checksum.
absl::StatusOr<ByteReader> OpenRecord(char kind, std::string_view bytes, uint8_t* version_seen) {
  if (bytes.size() < 2 + kChecksumBytes)
    return Damaged(kind, fmt::format("{} bytes, shorter than any record", bytes.size()));
  const std::string_view content = bytes.substr(0, bytes.size() - kChecksumBytes);
  ByteReader checksum_reader(bytes.substr(content.size()));
  if (checksum_reader.Get<uint64_t>() != XXH3_64bits(content.data(), content.size())) {
    return Damaged(kind, "its bytes do not match their checksum");
  }
  ByteReader reader(content);
  const auto version = reader.Get<uint8_t>();
  if (version > kRecordVersion) {
    return absl::FailedPreconditionError(
        fmt::format("record of format version {}, this program reads up to {}: it was written by a newer EPIC", version,
                    kRecordVersion));
  }
  if (version < 1) return Damaged(kind, "format version 0");
  if (const char seen = reader.Get<char>(); seen != kind) {
    return Damaged(kind, fmt::format("kind {}, expected {}", static_cast<int>(seen), static_cast<int>(kind)));
  }
  *version_seen = version;
  return reader;
}

absl::Status CloseRecord(char kind, const ByteReader& reader) {
  if (!reader.ok()) return Damaged(kind, "a field reaches behind its end");
  if (reader.remaining() != 0) return Damaged(kind, fmt::format("{} bytes behind its last field", reader.remaining()));
  return absl::OkStatus();
}

bool HasNegative(const std::vector<int32_t>& ids) {
  return std::any_of(ids.begin(), ids.end(), [](int32_t id) { return id < 0; });
}

// Of "document" every chunk has a section, which begins with it or with an earlier chunk that has the same one.
absl::Status CheckSections(const ChunkListRecord& record) {
  const size_t expected = record.recipe.id == kDocumentRecipeId ? record.spans.size() : 0;
  if (record.section_begins.size() != expected) {
    return Damaged(kChunkListKind, fmt::format("{} sections, expected {}", record.section_begins.size(), expected));
  }
  for (size_t i = 0; i < expected; ++i) {
    const int32_t begin = record.section_begins[i];
    if (begin != record.spans[i].begin && (i == 0 || begin != record.section_begins[i - 1])) {
      return Damaged(kChunkListKind, fmt::format("the section of chunk {} begins at token {}", i, begin));
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::span<const int32_t> ChunkListRecord::TokensOf(size_t chunk) const {
  return std::span(token_ids).subspan(spans[chunk].begin, spans[chunk].end - spans[chunk].begin);
}

std::span<const int32_t> ChunkListRecord::ContextOf(size_t chunk) const {
  if (section_begins.empty()) return {};
  return std::span(token_ids).subspan(section_begins[chunk], spans[chunk].begin - section_begins[chunk]);
}

Recipe ChunkListRecord::BaseRecipe() const {
  Recipe base = recipe;
  if (base.id == kDocumentRecipeId) base.id = kPlainRecipeId;
  return base;
}

bool DocumentRecord::SameContent(const DocumentRecord& other) const {
  return text == other.text && token_ids == other.token_ids &&
         token_ids_model_fingerprint == other.token_ids_model_fingerprint && labels == other.labels;
}

std::string EncodeDocumentRecord(const DocumentRecord& record) {
  ByteWriter writer = BeginRecord(kDocumentKind);
  writer.PutString(record.tenant);
  writer.PutString(record.id);
  writer.PutString(record.text);
  writer.PutIntegers(record.token_ids);
  writer.PutString(record.token_ids_model_fingerprint);
  writer.Put(static_cast<uint32_t>(record.labels.size()));
  for (const auto& [name, value] : record.labels) {
    writer.PutString(name);
    writer.PutString(value);
  }
  writer.Put(record.created_unix_ms);
  writer.Put(record.expires_unix_ms);
  writer.PutString(record.recipe_id);
  return EndRecord(std::move(writer));
}

absl::StatusOr<DocumentRecord> DecodeDocumentRecord(std::string_view bytes) {
  uint8_t version = 0;
  EPIC_ASSIGN_OR_RETURN(ByteReader reader, OpenRecord(kDocumentKind, bytes, &version));
  DocumentRecord record;
  record.tenant = reader.GetString();
  record.id = reader.GetString();
  record.text = reader.GetString();
  record.token_ids = reader.GetIntegers();
  record.token_ids_model_fingerprint = reader.GetString();
  const auto label_count = reader.Get<uint32_t>();
  for (uint32_t i = 0; i < label_count && reader.ok(); ++i) {
    std::string name(reader.GetString());
    std::string value(reader.GetString());
    if (!record.labels.emplace(std::move(name), std::move(value)).second) {
      return Damaged(kDocumentKind, "a label stands there twice");
    }
  }
  record.created_unix_ms = reader.Get<int64_t>();
  record.expires_unix_ms = reader.Get<int64_t>();
  if (version >= 2) record.recipe_id = reader.GetString();
  EPIC_RETURN_IF_ERROR(CloseRecord(kDocumentKind, reader));
  if (HasNegative(record.token_ids)) return Damaged(kDocumentKind, "a token id below 0");
  return record;
}

std::string EncodeChunkListRecord(const ChunkListRecord& record) {
  ByteWriter writer = BeginRecord(kChunkListKind);
  writer.PutString(record.model_fingerprint_hex);
  writer.PutString(record.recipe.id);
  writer.PutIntegers(record.recipe.prefix_tokens);
  writer.Put(record.chunker_version);
  writer.PutIntegers(record.token_ids);
  writer.Put(static_cast<uint32_t>(record.spans.size()));
  for (const TokenSpan& span : record.spans) {
    writer.Put(span.begin);
    writer.Put(span.end);
  }
  writer.Put(static_cast<uint32_t>(record.keys.size()));
  for (const ChunkKey& key : record.keys) writer.PutRaw(key.AsBytes());
  writer.PutIntegers(record.section_begins);
  return EndRecord(std::move(writer));
}

absl::StatusOr<ChunkListRecord> DecodeChunkListRecord(std::string_view bytes) {
  uint8_t version = 0;
  EPIC_ASSIGN_OR_RETURN(ByteReader reader, OpenRecord(kChunkListKind, bytes, &version));
  ChunkListRecord record;
  record.model_fingerprint_hex = reader.GetString();
  record.recipe.id = reader.GetString();
  record.recipe.prefix_tokens = reader.GetIntegers();
  record.chunker_version = reader.Get<int32_t>();
  record.token_ids = reader.GetIntegers();
  const auto span_count = reader.Get<uint32_t>();
  int32_t expected_begin = 0;
  for (uint32_t i = 0; i < span_count && reader.ok(); ++i) {
    TokenSpan span;
    span.begin = reader.Get<int32_t>();
    span.end = reader.Get<int32_t>();
    if (reader.ok() && (span.begin != expected_begin || span.end <= span.begin)) {
      return Damaged(kChunkListKind, fmt::format("span {} covers tokens {} to {}, expected to begin at {}", i,
                                                 span.begin, span.end, expected_begin));
    }
    expected_begin = span.end;
    record.spans.push_back(span);
  }
  const auto key_count = reader.Get<uint32_t>();
  for (uint32_t i = 0; i < key_count && reader.ok(); ++i) {
    const std::string_view raw = reader.GetRaw(sizeof(ChunkKey::bytes));
    if (!reader.ok()) break;
    EPIC_ASSIGN_OR_RETURN(const ChunkKey key, ChunkKey::FromBytes(raw));
    record.keys.push_back(key);
  }
  if (version >= 2) record.section_begins = reader.GetIntegers();
  EPIC_RETURN_IF_ERROR(CloseRecord(kChunkListKind, reader));
  if (HasNegative(record.token_ids) || HasNegative(record.recipe.prefix_tokens)) {
    return Damaged(kChunkListKind, "a token id below 0");
  }
  if (static_cast<size_t>(expected_begin) != record.token_ids.size() || record.keys.size() != record.spans.size()) {
    return Damaged(kChunkListKind,
                   fmt::format("{} spans that end at token {} and {} keys for {} tokens", record.spans.size(),
                               expected_begin, record.keys.size(), record.token_ids.size()));
  }
  EPIC_RETURN_IF_ERROR(CheckSections(record));
  return record;
}

}  // namespace epic
