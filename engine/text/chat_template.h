// The chat layout of a model: recognised from its Jinja source by what it is, rendered by our own code.
//
// No Jinja is executed. The source is brought to a form in which spelling does not show (template_source.h). Then it is
// either of ChatML's structure, whatever its default system message says, or that form's hash stands in our table of
// published templates (chat_template_table.cc). docs/chat-templates.md lists the layouts.
//
// A rendered prompt is a list of spans. Template spans are the layout's own text, encoded with special tokens on; text
// spans are of users, encoded with special tokens off; an opaque span stands for a part that has its tokens already: a
// chunk of a document, or token ids. All spans put together are what `apply_chat_template` writes for the same
// messages with add_generation_prompt on and no tools. What a template trims off a message is trimmed off its text, as
// far as the nearest opaque part: documents are never trimmed, and stand where their message has them.
//
// A message that a template would leave out without a word is refused instead, as are roles that it refuses.
//
// Beginning of sequence: BOS stands in a span where the template writes it. Where it does not but the model's tokenizer
// starts every sequence with BOS, BuildChatPrompt (engine/prompt.h) puts it there.
//
// Immutable, thread-safe.
#ifndef EPIC_ENGINE_TEXT_CHAT_TEMPLATE_H_
#define EPIC_ENGINE_TEXT_CHAT_TEMPLATE_H_

#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer_spec.h"

namespace epic {

struct ChatPart {
  std::string_view text;   // must outlive the call of Render
  bool is_opaque = false;  // stands for itself; `text` is not looked at
};

struct ChatMessage {
  std::string_view role;
  std::vector<ChatPart> parts;
};

struct TemplateSpan {
  enum class Kind { kTemplate, kText, kOpaque } kind = Kind::kTemplate;
  std::string text;  // kTemplate and kText
  int message = -1;  // kOpaque: this part of this message
  int part = -1;

  bool operator==(const TemplateSpan&) const = default;
};

class ChatTemplate {
 public:
  // Reads spec.chat_template. UNIMPLEMENTED names the reason where it is empty, not one that we render exactly, or
  // writes a token that the vocabulary does not have. Such a model can still be given raw prompts.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Recognise(const TokenizerSpec& spec);
  virtual ~ChatTemplate() = default;

  // Lays out a conversation, ready for the assistant's next message. Neighbouring spans are of different kinds, but for
  // opaque ones. `today` is written by the layouts that name the date (llama-3.2 alone), and ignored by the others.
  // INVALID_ARGUMENT, naming the message, where there is none, where a role is not "system", "user" or "assistant" or
  // stands where the template refuses it, and where a message or part would be left out of the prompt.
  virtual absl::StatusOr<std::vector<TemplateSpan>> Render(std::span<const ChatMessage> messages,
                                                           std::chrono::year_month_day today) const = 0;

  // Short and stable, e.g. "chatml", "llama-3.1"; docs/chat-templates.md lists them.
  virtual std::string name() const = 0;
  // Tokens (written form) that end the assistant's turn, e.g. "<|im_end|>". Every one is among control_tokens().
  virtual std::vector<std::string> stop_tokens() const = 0;
  // Tokens that the layout writes and text of users must never contain. All of them are in the vocabulary that the
  // template was recognised with.
  virtual std::vector<std::string> control_tokens() const = 0;
};

// Makes the tokens that the layout writes control tokens of the vocabulary. Some files (Yi's, for one) list them as
// ordinary or user-defined ones, and then text of users could end a turn. To be called before Tokenizer::Create.
void ProtectControlTokens(const ChatTemplate& chat_template, TokenizerSpec& spec);

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_CHAT_TEMPLATE_H_
