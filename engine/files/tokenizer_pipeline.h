// What surrounds the model in tokenizer.json - normaliser, pre-tokenizer, decoder, post-processor - recognised as one
// of the pipelines that we run, and brought to the fields of a TokenizerSpec.
//
// UNIMPLEMENTED names the part that is another one. Used by tokenizer_json.cc alone.
#ifndef EPIC_ENGINE_FILES_TOKENIZER_PIPELINE_H_
#define EPIC_ENGINE_FILES_TOKENIZER_PIPELINE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/files/json_file.h"
#include "engine/text/tokenizer_spec.h"

namespace epic {

// Fills pre_tokenizer, normalizes_nfc, space_prefix, space_prefix_unless_space and decode_strips_space from the top of
// tokenizer.json. REQUIRES: spec.model is "bpe" or "spm".
[[nodiscard]] absl::Status ReadPipeline(const JsonObject& top, TokenizerSpec& spec);

// Fills add_bos and bos_id. REQUIRES: the vocabulary is read, added tokens too.
[[nodiscard]] absl::Status ReadPostProcessor(const JsonObject& top, TokenizerSpec& spec);

// Whether tokenizer.json has text brought to a form that begins with a space mark before added tokens are looked for
// that want normalised text.
[[nodiscard]] absl::StatusOr<bool> NormalizerPrependsSpace(const JsonObject& top);

// The member "type". INVALID_ARGUMENT where it is missing.
[[nodiscard]] absl::StatusOr<std::string> TypeOf(const JsonObject& object);

// UNIMPLEMENTED where the member `key`, if present, is true although only false is run, or the other way round.
// `absent` is what a missing member means.
[[nodiscard]] absl::Status RequireBool(const JsonObject& object, std::string_view key, bool absent, bool expected);

// The id of a token by its written form. INVALID_ARGUMENT where there is none.
[[nodiscard]] absl::StatusOr<int32_t> IdOfToken(const TokenizerSpec& spec, const std::string& text,
                                                const std::string& path);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_TOKENIZER_PIPELINE_H_
