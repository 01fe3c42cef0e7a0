#include "engine/linker_gate.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "core/chunk_key.h"
#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic {
namespace {

constexpr char kMakeOne[] = "epic eval gate --model FILE makes verdicts";

// The name under which a linker over documents of a recipe is judged.
std::string JudgedName(Linker linker, const std::string& recipe_id) {
  linker.recipe_id = recipe_id == kDocumentRecipeId ? recipe_id : "";
  return linker.Name();
}

// The names under which a linker over a prompt is judged.
std::vector<std::string> JudgedNames(const Linker& linker, const std::vector<std::string>& recipe_ids) {
  std::vector<std::string> names;
  if (!linker.RecipeId().empty()) return {JudgedName(linker, linker.RecipeId())};
  for (const std::string& recipe_id : recipe_ids) names.push_back(JudgedName(linker, recipe_id));
  return names;
}

// The files that a path names, in order.
absl::StatusOr<std::vector<std::string>> FilesOf(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    return absl::NotFoundError(fmt::format("there are no verdicts at {}; {}", path, kMakeOne));
  }
  if (!fs::is_directory(status)) return std::vector<std::string>{path};
  std::vector<std::string> files;
  fs::directory_iterator entries(path, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    if (entries->path().extension() == ".json") files.push_back(entries->path().string());
  }
  if (error) return absl::UnavailableError(fmt::format("cannot read {}: {}", path, error.message()));
  std::sort(files.begin(), files.end());
  return files;
}

// Why verdicts of this model do not hold here; empty where they do.
std::string WhyNot(const ModelVerdicts& verdicts, const std::string& engine_version) {
  if (verdicts.engine_version != engine_version) {
    return fmt::format("made by version {}, this is {}", verdicts.engine_version, engine_version);
  }
  if (verdicts.kv_type != kVerdictKvType) {
    return fmt::format("made with KV as {}, here it is {}", verdicts.kv_type, kVerdictKvType);
  }
  if (verdicts.thresholds != VerdictThresholds()) return "its thresholds are not those of this version";
  return "";
}

}  // namespace

absl::StatusOr<LinkerGate> LinkerGate::Create(std::vector<LinkerVerdict> verdicts,
                                              const std::vector<std::string>& allowed) {
  LinkerGate gate;
  gate.verdicts_ = std::move(verdicts);
  for (const std::string& name : allowed) {
    if (name == kAllLinkers) {
      gate.allowed_.push_back(name);
      continue;
    }
    if (name.empty()) return absl::InvalidArgumentError("a linker to be allowed has no name");
    EPIC_ASSIGN_OR_RETURN(const Linker linker, Linker::Parse(name));
    gate.allowed_.push_back(linker.Name());
  }
  return gate;
}

absl::StatusOr<LinkerChoice> LinkerGate::Choose(std::string_view name,
                                                const std::vector<std::string>& recipe_ids) const {
  if (name.empty()) return ChooseDefault(recipe_ids);
  EPIC_ASSIGN_OR_RETURN(const Linker linker, Linker::Parse(name));
  if (!linker.UsesChunks()) return LinkerChoice{linker, ""};
  for (const std::string& judged : JudgedNames(linker, recipe_ids)) {
    const LinkerVerdict* verdict = VerdictOf(judged);
    if (verdict == nullptr || verdict->passes || IsAllowed(linker, judged)) continue;
    return absl::FailedPreconditionError(
        fmt::format("linker {} is refused for this model: {}; name another one, or let the operator vouch for it with "
                    "--allow-linkers",
                    judged, verdict->reason));
  }
  return LinkerChoice{linker, ""};
}

LinkerChoice LinkerGate::ChooseDefault(const std::vector<std::string>& recipe_ids) const {
  std::string first_reason;
  for (const char* name : kDefaultLinkers) {
    const Linker linker = *Linker::Parse(name);  // a name of ours
    bool passes = true;
    for (const std::string& judged : JudgedNames(linker, recipe_ids)) {
      const LinkerVerdict* verdict = VerdictOf(judged);
      if (IsAllowed(linker, judged) || (verdict != nullptr && verdict->passes)) continue;
      passes = false;
      if (!first_reason.empty()) continue;
      first_reason = verdict == nullptr
                         ? fmt::format("no verdict says that {} keeps this model's answers; {}", judged, kMakeOne)
                         : fmt::format("{} is refused for this model: {}", judged, verdict->reason);
    }
    if (!passes) continue;
    return {linker, first_reason.empty() ? "" : fmt::format("answered by {}: {}", name, first_reason)};
  }
  return {*Linker::Parse("full"), fmt::format("answered by full: {}", first_reason)};
}

void PromptRecipes::AddChunk(const std::string& document_id, bool has_context) {
  Document& document = documents_[document_id];
  ++document.chunks;
  document.has_context = document.has_context || has_context;
}

std::vector<std::string> PromptRecipes::Ids() const {
  bool has_plain = false, has_document = false;
  for (const auto& [id, document] : documents_) {
    has_document = has_document || document.has_context;
    has_plain = has_plain || (!document.has_context && document.chunks > 1);
  }
  std::vector<std::string> ids;
  if (has_plain || !has_document) ids.emplace_back(kPlainRecipeId);
  if (has_document) ids.emplace_back(kDocumentRecipeId);
  return ids;
}

const LinkerVerdict* LinkerGate::VerdictOf(const std::string& linker) const {
  const auto it = std::find_if(verdicts_.begin(), verdicts_.end(),
                               [&](const LinkerVerdict& verdict) { return verdict.linker == linker; });
  return it == verdicts_.end() ? nullptr : &*it;
}

// Who vouches for a linker without naming a recipe vouches for it with any.
bool LinkerGate::IsAllowed(const Linker& linker, const std::string& judged_name) const {
  const std::string without_recipe = JudgedName(linker, "");
  return std::any_of(allowed_.begin(), allowed_.end(), [&](const std::string& allowed) {
    return allowed == kAllLinkers || allowed == judged_name || allowed == without_recipe;
  });
}

std::string RecommendedRecipe(const LinkerGate& gate) {
  const auto links = [&gate](const char* recipe_id) {
    const absl::StatusOr<LinkerChoice> choice = gate.Choose("", {recipe_id});
    return choice.ok() && choice->linker.UsesChunks();
  };
  return links(kPlainRecipeId) && !links(kDocumentRecipeId) ? kPlainRecipeId : kDocumentRecipeId;
}

absl::StatusOr<LoadedGate> LoadLinkerGate(const std::string& path, const std::vector<std::string>& allowed,
                                          const std::string& fingerprint, const std::string& engine_version) {
  std::vector<std::string> files;
  if (!path.empty()) {
    EPIC_ASSIGN_OR_RETURN(files, FilesOf(path));
  }
  LoadedGate loaded;
  std::vector<LinkerVerdict> verdicts;
  std::map<std::string, std::string> judged_by;
  for (const std::string& file : files) {
    EPIC_ASSIGN_OR_RETURN(ModelVerdicts held, ReadVerdicts(file));
    if (held.fingerprint != fingerprint) continue;
    if (const std::string why = WhyNot(held, engine_version); !why.empty()) {
      loaded.notes.push_back(fmt::format("the verdicts in {} do not hold: {}; {}", file, why, kMakeOne));
      continue;
    }
    for (LinkerVerdict& verdict : held.linkers) {
      const auto [other, is_new] = judged_by.emplace(verdict.linker, file);
      if (!is_new) {
        return absl::InvalidArgumentError(
            fmt::format("{} and {} both judge {} for this model; keep one", other->second, file, verdict.linker));
      }
      verdicts.push_back(std::move(verdict));
    }
  }
  EPIC_ASSIGN_OR_RETURN(loaded.gate, LinkerGate::Create(std::move(verdicts), allowed));
  return loaded;
}

}  // namespace epic
