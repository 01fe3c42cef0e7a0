// Reading the Jinja that chat templates are written in, so that they can be compared. Nothing is executed.
//
// A template is brought to a list of steps in which the author's spelling no longer shows: quotes, blanks inside tags,
// comments, message.role against message['role'], text outside tags against text in expressions, one expression against
// several. White space around tags is treated as `transformers` does it (trim_blocks and lstrip_blocks on). Templates
// of equal steps render equal text.
#ifndef EPIC_ENGINE_TEXT_TEMPLATE_SOURCE_H_
#define EPIC_ENGINE_TEXT_TEMPLATE_SOURCE_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace epic {

struct TemplateStep {
  enum class Kind {
    kText,       // writes `text`
    kRole,       // writes message['role']
    kContent,    // writes message['content']
    kBos,        // writes bos_token
    kEos,        // writes eos_token
    kOther,      // writes {{ text }}, in the form of kStatement: an expression that is not a sum of the above
    kStatement,  // {% text %}, its tokens separated by single spaces, strings in single quotes, a.b as a [ 'b' ]
  } kind = Kind::kText;
  std::string text;

  bool operator==(const TemplateStep&) const = default;
};

// Neighbouring texts are merged and empty ones left out. UNIMPLEMENTED names what is not understood. Linear time.
absl::StatusOr<std::vector<TemplateStep>> ReadTemplateSource(std::string_view source);

// SHA-256 of the steps, in hexadecimal.
std::string HashOfSteps(const std::vector<TemplateStep>& steps);

}  // namespace epic

#endif  // EPIC_ENGINE_TEXT_TEMPLATE_SOURCE_H_
