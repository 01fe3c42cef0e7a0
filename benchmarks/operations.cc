#include "benchmarks/operations.h"

#include "engine/link_job.h"

namespace epic {
namespace {

double KeyValueProducts(const ModelConfig& config) {
  return 2.0 * config.width * 2.0 * config.kv_heads * config.head_dim;
}

// Keys seen by rows at positions 0 .. count - 1, each of which sees itself and all before it.
double CausalKeys(double count) { return count * (count + 1) / 2; }

}  // namespace

double LayerProducts(const ModelConfig& config) {
  const double queries = static_cast<double>(config.heads) * config.head_dim;
  return KeyValueProducts(config) + 2.0 * config.width * (2.0 * queries + 3.0 * config.ffn_width);
}

double AttentionPerKey(const ModelConfig& config) { return 4.0 * config.heads * config.head_dim; }

double OutputProducts(const ModelConfig& config) { return 2.0 * config.width * config.vocab_size; }

Operations LinkOperations(const ModelConfig& config, const Linker& linker, std::span<const PromptSegment> prompt,
                          std::span<const int32_t> selected) {
  double prompt_tokens = 0;
  for (const PromptSegment& segment : prompt) prompt_tokens += static_cast<double>(segment.token_ids.size());
  double keys = 0;  // whatever is cached, a row sees every position up to its own
  for (const int32_t position : selected) keys += position + 1.0;
  const auto rows = static_cast<double>(selected.size());
  const double layers = config.layers;

  Operations operations;
  operations.products = OutputProducts(config);
  if (linker.kind == LinkerKind::kCacheBlend && config.layers > kCacheBlendFullLayers) {
    // Layers before the one where it chooses run in full; there, keys and values of all rows, the rest of the chosen.
    const double full_layers = kCacheBlendFullLayers - 1;
    operations.products += prompt_tokens * (full_layers * LayerProducts(config) + KeyValueProducts(config)) +
                           rows * (LayerProducts(config) - KeyValueProducts(config)) +
                           rows * (layers - kCacheBlendFullLayers) * LayerProducts(config);
    operations.attention =
        AttentionPerKey(config) * (full_layers * CausalKeys(prompt_tokens) + (layers - full_layers) * keys);
    return operations;
  }
  operations.products += rows * layers * LayerProducts(config);
  operations.attention = AttentionPerKey(config) * layers * keys;
  if (linker.kind == LinkerKind::kNaiveLast) {
    for (const PromptSegment& segment : prompt) {
      if (segment.is_chunk) continue;
      const auto fresh = static_cast<double>(segment.token_ids.size());
      operations.products += fresh * layers * LayerProducts(config);
      operations.attention += AttentionPerKey(config) * layers * CausalKeys(fresh);
    }
  }
  return operations;
}

}  // namespace epic
