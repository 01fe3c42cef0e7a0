// Linkers: the policies that choose which prompt tokens run through the model again (docs/linking.md).
#ifndef EPIC_ENGINE_LINKER_H_
#define EPIC_ENGINE_LINKER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace epic {

enum class LinkerKind { kFull, kPrefix, kNaive, kNaiveLast, kCacheBlend, kLegoLink, kRandom };

struct Linker {
  LinkerKind kind = LinkerKind::kLegoLink;
  double percent = 0;            // kCacheBlend, kRandom: share of chunk tokens that are chosen, in (0, 100]
  int32_t legolink_tokens = 16;  // kLegoLink: k, tokens recomputed at the head of each chunk; 0 uses recipe "sink4"
  // The recipe that documents' chunks are to be of: "plain" or "document". Empty: that of each document.
  std::string recipe_id = {};

  // "full", "prefix", "naive", "naive-last", "cacheblend:<percent>", "legolink:<k>", "random:<percent>"; those that use
  // chunks also with "@plain" or "@document" behind (not legolink:0, which has a recipe of its own). An empty name is
  // legolink:16; what a request without a name gets is linker_gate.h's. INVALID_ARGUMENT names the value, what is
  // allowed, and the nearest known name.
  static absl::StatusOr<Linker> Parse(std::string_view name);
  std::string Name() const;
  // The recipe whose chunks this linker needs: "sink4", recipe_id, or empty for that of each document.
  std::string RecipeId() const;
  // What the prefix of its chunks begins with (RecipeBehind): "plain" or "sink4".
  std::string BaseRecipeId() const;
  // Whether the linker reads cached chunks at all (full and prefix do not).
  bool UsesChunks() const;
};

}  // namespace epic

#endif  // EPIC_ENGINE_LINKER_H_
