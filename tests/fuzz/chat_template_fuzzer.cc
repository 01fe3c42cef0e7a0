// The Jinja source of a chat template, with a vocabulary that has the control tokens of every layout.
#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/text/tokenizer_spec.h"
#include "tests/fuzz/fuzz_support.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  epic::TokenizerSpec spec;
  spec.tokens = {"<s>",    "</s>",    "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
                 "[INST]", "[/INST]", "<|im_start|>",      "<|im_end|>",          "<|endoftext|>"};
  spec.kinds.assign(spec.tokens.size(), epic::TokenKind::kControl);
  spec.bos_id = 0;
  spec.eos_id = 1;
  spec.chat_template.assign(reinterpret_cast<const char*>(data), size);
  epic::UseChatTemplate(spec);
  return 0;
}
