// The chat layout of a model: recognised from its Jinja source by what it is, rendered by our own code.
//
// A prompt is a list of spans. Template spans carry special tokens; content spans are text of users or documents, which
// the caller encodes with special tokens off (or replaces by chunks). Immutable, thread-safe.
#ifndef EPIC_ENGINE_TEXT_CHAT_TEMPLATE_H_
#define EPIC_ENGINE_TEXT_CHAT_TEMPLATE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace epic {


struct TemplateSpan {
  enum class Kind { kTemplate, kContent, kDefaultSystem } kind = Kind::kTemplate;
  std::string text;   // kTemplate: the literal text, encoded with special tokens on; kDefaultSystem likewise
  int message = -1;   // kContent: which message's content stands here
};

class ChatTemplate {
 public:
  // UNIMPLEMENTED names the reason where the template is not one that we render exactly (ChatML with or without
  // SmolLM2's default system message so far).
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Recognise(const std::string& jinja_source);
  virtual ~ChatTemplate() = default;

  // Lays out a conversation whose messages have these roles, ready for the assistant's next message.
  // INVALID_ARGUMENT names the role that the template does not know or that stands at a wrong place.
  virtual absl::StatusOr<std::vector<TemplateSpan>> Render(const std::vector<std::string>& roles) const = 0;

  virtual std::string name() const = 0;
  // Tokens (written form) that end the assistant's turn, e.g. "<|im_end|>".
  virtual std::vector<std::string> stop_tokens() const = 0;
};

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_CHAT_TEMPLATE_H_
