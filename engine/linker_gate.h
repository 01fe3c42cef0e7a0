// Which linker a request gets: what it names, or the default where the model's verdicts bear it (decision 0009).
//
// A request that names no linker gets the first of kDefaultLinkers whose verdict passes, or that the operator vouches
// for, else `full`; where it is not the very first, a note says why. A named linker whose verdict does not pass is
// refused with the numbers that failed, unless the operator vouches for it; one without a verdict is the client's own
// choice. `full` and `prefix` recompute what they do not have in exactly this context: there is nothing to judge.
//
// Chunks that were compiled in sight of each other are another matter than chunks compiled alone: a linker has a
// verdict for each, under its name and under its name with "@document", and a prompt needs those of all its documents.
// Immutable, safe from any thread.
#ifndef EPIC_ENGINE_LINKER_GATE_H_
#define EPIC_ENGINE_LINKER_GATE_H_

#include <array>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/linker.h"
#include "engine/linker_verdict.h"

namespace epic {

// What a request that names none may get: the cheapest first.
inline constexpr std::array<const char*, 3> kDefaultLinkers = {"legolink:16", "legolink:64", "cacheblend:15"};
// In place of names: the operator vouches for every linker.
inline constexpr char kAllLinkers[] = "all";

// By which recipes the documents of a prompt are compiled, as far as it makes a difference: a document of one chunk is
// the same by either.
class PromptRecipes {
 public:
  // A chunk of the prompt; `has_context`: it was compiled in sight of others.
  void AddChunk(const std::string& document_id, bool has_context);
  // "plain", "document" or both; "plain" where it makes no difference.
  std::vector<std::string> Ids() const;

 private:
  struct Document {
    int chunks = 0;
    bool has_context = false;
  };
  std::map<std::string, Document> documents_;
};

struct LinkerChoice {
  Linker linker;
  std::string note;  // where the request named none and did not get the first of the defaults: why, and what to do
};

class LinkerGate {
 public:
  // Nothing is known: a request that names no linker gets `full`, every named linker is taken.
  LinkerGate() = default;
  // `allowed`: linkers that the operator vouches for, by name, or "all". INVALID_ARGUMENT for a name that is none.
  static absl::StatusOr<LinkerGate> Create(std::vector<LinkerVerdict> verdicts,
                                           const std::vector<std::string>& allowed);

  // `recipe_ids`: of the prompt's documents, at least one. INVALID_ARGUMENT for a name that is none;
  // FAILED_PRECONDITION for a linker that is refused.
  absl::StatusOr<LinkerChoice> Choose(std::string_view name, const std::vector<std::string>& recipe_ids) const;

  const std::vector<LinkerVerdict>& verdicts() const { return verdicts_; }
  const std::vector<std::string>& allowed() const { return allowed_; }  // canonical names

 private:
  LinkerChoice ChooseDefault(const std::vector<std::string>& recipe_ids) const;
  const LinkerVerdict* VerdictOf(const std::string& linker) const;
  bool IsAllowed(const Linker& linker, const std::string& judged_name) const;

  std::vector<LinkerVerdict> verdicts_;
  std::vector<std::string> allowed_;
};

// How documents should be compiled that name no recipe: "document", in which a linker loses nothing inside a document,
// but "plain" where by the verdicts a default linker passes over that and none over "document".
std::string RecommendedRecipe(const LinkerGate& gate);

struct LoadedGate {
  LinkerGate gate;
  std::vector<std::string> notes;  // what was left out and why, for the log
};

// Reads the verdicts that hold for this model and this version of the engine from a file, or from every *.json of a
// folder. Files of other models are left out silently, those of this one that another version, KV type or other
// thresholds made with a note. An empty path: no verdicts. NOT_FOUND for a path that is not there; INVALID_ARGUMENT for
// a file that is damaged, or two that judge the same linker.
absl::StatusOr<LoadedGate> LoadLinkerGate(const std::string& path, const std::vector<std::string>& allowed,
                                          const std::string& fingerprint, const std::string& engine_version);

}  // namespace epic

#endif  // EPIC_ENGINE_LINKER_GATE_H_
