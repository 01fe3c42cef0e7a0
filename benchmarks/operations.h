// How many floating-point operations a linker needs for a prompt, counted exactly from the rows that run in each layer
// and the keys that each row sees (docs/linking.md). A multiply-add counts as two. Norms, activations and the softmax
// are left out: they are of the order of the width, the products of its square.
#ifndef EPIC_BENCHMARKS_OPERATIONS_H_
#define EPIC_BENCHMARKS_OPERATIONS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "engine/files/model_config.h"
#include "engine/linker.h"
#include "engine/prompt.h"

namespace epic {

struct Operations {
  double products = 0;   // with weights: projections, feed-forward, and the output matrix for one row
  double attention = 0;  // queries with keys, and weights with values
  double total() const { return products + attention; }
};

// Of one row through one layer, without attention.
double LayerProducts(const ModelConfig& config);
// Of one query row in one layer, for each key that it sees.
double AttentionPerKey(const ModelConfig& config);
// Of the output matrix for one row.
double OutputProducts(const ModelConfig& config);

// From the prompt to the logits of its last row. `selected`: the rows that ran through all layers, as
// GenerationStats::selected_positions has them. CacheBlend: with all rows of layer 0 and all keys and values of layer
// 1, the chosen rows' others of layer 1. naive-last: with its fresh segments compiled alone.
Operations LinkOperations(const ModelConfig& config, const Linker& linker, std::span<const PromptSegment> prompt,
                          std::span<const int32_t> selected);

}  // namespace epic

#endif  // EPIC_BENCHMARKS_OPERATIONS_H_
