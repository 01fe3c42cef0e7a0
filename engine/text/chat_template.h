// The chat layout of a model: recognised from its Jinja source by what it is, rendered by our own code.
//
// A prompt is a list of spans. Template spans carry special tokens; content spans are text of users or documents, which
// the caller encodes with special tokens off (or replaces by chunks). Each span is encoded alone, so the ids are those
// of the whole rendered text wherever no content begins with white space (which would join the line end before it).
//
// No Jinja is executed. The source is brought to a form in which spelling does not show (template_source.h) and
// compared with the layouts that we render: ChatML, and ChatML that opens with a system message of its own where the
// conversation brings none, as SmolLM2's does.
//
// Immutable, thread-safe.
#ifndef EPIC_ENGINE_TEXT_CHAT_TEMPLATE_H_
#define EPIC_ENGINE_TEXT_CHAT_TEMPLATE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace epic {

struct TemplateSpan {
  enum class Kind { kTemplate, kContent } kind = Kind::kTemplate;
  std::string text;  // kTemplate: the literal text (a default system message included), encoded with special tokens on
  int message = -1;  // kContent: which message's content stands here
};

class ChatTemplate {
 public:
  // UNIMPLEMENTED names the reason where the template is empty or not one that we render exactly.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Recognise(const std::string& jinja_source);
  virtual ~ChatTemplate() = default;

  // Lays out a conversation whose messages have these roles, ready for the assistant's next message. Neighbouring
  // template text is one span; every message has exactly one content span, in order.
  // INVALID_ARGUMENT where there is no message, or naming a role that is not "system", "user" or "assistant".
  virtual absl::StatusOr<std::vector<TemplateSpan>> Render(const std::vector<std::string>& roles) const = 0;

  virtual std::string name() const = 0;  // "chatml" or "chatml-default-system"
  // Tokens (written form) that end the assistant's turn, e.g. "<|im_end|>". A loader checks that the vocabulary has
  // them as control tokens (Tokenizer::IsControl), or text of users could end a turn.
  virtual std::vector<std::string> stop_tokens() const = 0;
};

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_CHAT_TEMPLATE_H_
