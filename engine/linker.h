// Linkers: the policies that choose which prompt tokens run through the model again (docs/linking.md).
#ifndef EPIC_ENGINE_LINKER_H_
#define EPIC_ENGINE_LINKER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace epic {

enum class LinkerKind { kFull, kPrefix, kNaive, kNaiveLast, kCacheBlend, kLegoLink, kRandom, kSepLink };

struct Linker {
  LinkerKind kind = LinkerKind::kLegoLink;
  double percent = 0;  // kCacheBlend, kRandom: share of chunk tokens that are chosen, in (0, 100]
  // kLegoLink, kSepLink: k, tokens recomputed of each run of chunks. legolink:0 uses recipe "sink4".
  int32_t run_tokens = 16;
  // The recipe that documents' chunks are to be of: "plain" or "document". Empty: that of each document.
  std::string recipe_id = {};

  // "full", "prefix", "naive", "naive-last", "cacheblend:<percent>", "legolink:<k>", "seplink:<k>", "random:<percent>";
  // those that use chunks also with "@plain" or "@document" behind (not legolink:0, which has a recipe of its own). An
  // empty name is legolink:16; what a request without a name gets is linker_gate.h's. INVALID_ARGUMENT names the value,
  // what is allowed, and the nearest known name.
  static absl::StatusOr<Linker> Parse(std::string_view name);
  std::string Name() const;
  // The recipe whose chunks this linker needs: "sink4", recipe_id, or empty for that of each document.
  std::string RecipeId() const;
  // What the prefix of its chunks begins with (RecipeBehind): "plain" or "sink4".
  std::string BaseRecipeId() const;
  // Whether what is recomputed depends on where a run of chunks begins, and is at most run_tokens of it.
  bool MendsRuns() const { return kind == LinkerKind::kLegoLink || kind == LinkerKind::kSepLink; }
  // Whether the linker reads cached chunks at all (full and prefix do not).
  bool UsesChunks() const;
};

}  // namespace epic

#endif  // EPIC_ENGINE_LINKER_H_
