#include "engine/linker.h"

#include <charconv>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "core/chunk_key.h"
#include "core/nearest_name.h"
#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {
namespace {

constexpr std::string_view kAllowed =
    "full, prefix, naive, naive-last, cacheblend:<percent>, legolink:<k>, random:<percent>, and @plain or @document "
    "behind those that use chunks";

// Parses all of `text` as a number; false where anything is left over.
template <typename T>
bool ParseNumber(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

absl::Status Refuse(std::string_view name, const std::string& why) {
  return absl::InvalidArgumentError(
      fmt::format("linker \"{}\": {}; allowed are {}", name.substr(0, 64), why, kAllowed));
}

// A name without what stands behind "@".
absl::StatusOr<Linker> ParsePolicy(std::string_view name) {
  Linker linker;
  const size_t colon = name.find(':');
  const std::string_view word = name.substr(0, colon);
  const bool has_number = colon != std::string_view::npos;
  const std::string_view number = has_number ? name.substr(colon + 1) : std::string_view();
  if (word == "cacheblend" || word == "random") {
    linker.kind = word == "random" ? LinkerKind::kRandom : LinkerKind::kCacheBlend;
    if (!ParseNumber(number, linker.percent) || !(linker.percent > 0) || linker.percent > 100) {
      return Refuse(name, fmt::format("the percentage must be a number above 0 and at most 100, as in {}:15", word));
    }
    return linker;
  }
  if (word == "legolink") {
    linker.kind = LinkerKind::kLegoLink;
    if (!ParseNumber(number, linker.legolink_tokens) || linker.legolink_tokens < 0) {
      return Refuse(name, "k must be a whole number of tokens, 0 or more and at most 2147483647, as in legolink:16");
    }
    return linker;
  }
  const std::pair<std::string_view, LinkerKind> plain[] = {{"full", LinkerKind::kFull},
                                                           {"prefix", LinkerKind::kPrefix},
                                                           {"naive", LinkerKind::kNaive},
                                                           {"naive-last", LinkerKind::kNaiveLast}};
  for (const auto& [known, kind] : plain) {
    if (word != known) continue;
    if (has_number) return Refuse(name, fmt::format("{} takes no number", known));
    linker.kind = kind;
    return linker;
  }
  const std::vector<std::string> known = {"full", "prefix", "naive", "naive-last", "cacheblend", "legolink", "random"};
  return Refuse(name, "there is no such linker" + NameHint(word, known));
}

std::string PolicyName(const Linker& linker) {
  switch (linker.kind) {
    case LinkerKind::kFull:
      return "full";
    case LinkerKind::kPrefix:
      return "prefix";
    case LinkerKind::kNaive:
      return "naive";
    case LinkerKind::kNaiveLast:
      return "naive-last";
    case LinkerKind::kCacheBlend:
      return fmt::format("cacheblend:{}", linker.percent);
    case LinkerKind::kLegoLink:
      return fmt::format("legolink:{}", linker.legolink_tokens);
    case LinkerKind::kRandom:
      return fmt::format("random:{}", linker.percent);
  }
  return "";
}

}  // namespace

absl::StatusOr<Linker> Linker::Parse(std::string_view name) {
  if (name.empty()) return Linker();
  const size_t at = name.find('@');
  EPIC_ASSIGN_OR_RETURN(Linker linker, ParsePolicy(name.substr(0, at)));
  if (at == std::string_view::npos) return linker;
  linker.recipe_id = name.substr(at + 1);
  if (linker.recipe_id != kPlainRecipeId && linker.recipe_id != kDocumentRecipeId) {
    return Refuse(name, "behind @ stands a recipe for documents, plain or document");
  }
  if (!linker.UsesChunks()) return Refuse(name, "it uses no chunks, so no recipe can be chosen for it");
  if (linker.BaseRecipeId() == kSinkRecipeId) {
    return Refuse(name, fmt::format("it links chunks of recipe {}, no other can be chosen", kSinkRecipeId));
  }
  return linker;
}

std::string Linker::Name() const {
  return recipe_id.empty() ? PolicyName(*this) : fmt::format("{}@{}", PolicyName(*this), recipe_id);
}

std::string Linker::RecipeId() const { return BaseRecipeId() == kSinkRecipeId ? kSinkRecipeId : recipe_id; }

std::string Linker::BaseRecipeId() const {
  return kind == LinkerKind::kLegoLink && legolink_tokens == 0 ? kSinkRecipeId : kPlainRecipeId;
}

bool Linker::UsesChunks() const { return kind != LinkerKind::kFull && kind != LinkerKind::kPrefix; }

}  // namespace epic
