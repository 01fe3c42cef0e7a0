#include "cache_node/node_metrics.h"

#include <functional>
#include <string>
#include <utility>

namespace epic {

NodeMetrics::NodeMetrics(Metrics* metrics, const CacheNode* node) {
  const auto gauge = [&](const std::string& name, const std::string& help, std::function<double()> read) {
    registrations_.push_back(metrics->GaugeCallback("epic_cache_node_" + name, help, {}, std::move(read)));
  };
  const auto counter = [&](const std::string& name, const std::string& help, std::function<double()> read) {
    registrations_.push_back(metrics->CounterCallback("epic_cache_node_" + name, help, {}, std::move(read)));
  };
  const auto store_gauge = [&](const std::string& name, const std::string& help, size_t BlockStoreStats::*field) {
    gauge(name, help, [node, field] { return static_cast<double>(node->StoreStats().*field); });
  };
  const auto store_counter = [&](const std::string& name, const std::string& help, uint64_t BlockStoreStats::*field) {
    counter(name, help, [node, field] { return static_cast<double>(node->StoreStats().*field); });
  };
  const auto compile_counter = [&](const std::string& name, const std::string& help,
                                   uint64_t CompileQueueStats::*field) {
    counter(name, help, [node, field] { return static_cast<double>(node->CompileStats().*field); });
  };

  gauge("documents", "Documents in the manifest.", [this] { return static_cast<double>(documents_); });
  store_gauge("kv_blocks", "Compiled chunks whose keys and values are held.", &BlockStoreStats::blocks);
  store_gauge("kv_used_bytes", "Bytes of the host tier in use.", &BlockStoreStats::used_bytes);
  store_gauge("kv_capacity_bytes", "Bytes of the host tier.", &BlockStoreStats::capacity_bytes);
  store_gauge("leases", "Claims of readers that keep blocks in place.", &BlockStoreStats::leases);
  store_counter("kv_hits_total", "Chunks that were held when a request asked for them.", &BlockStoreStats::hits_total);
  store_counter("kv_misses_total", "Chunks that were not held when a request asked for them.",
                &BlockStoreStats::misses_total);
  store_counter("kv_evictions_total", "Blocks that made room for others.", &BlockStoreStats::evictions_total);
  compile_counter("compiled_chunks_total", "Chunks that were compiled.", &CompileQueueStats::compiled_chunks_total);
  compile_counter("compiled_tokens_total", "Tokens of the chunks that were compiled.",
                  &CompileQueueStats::compiled_tokens_total);
  compile_counter("compile_failures_total", "Chunks that could not be compiled.", &CompileQueueStats::failures_total);
  compile_counter("compile_postponed_total", "Background chunks that leases left no room for.",
                  &CompileQueueStats::postponed_total);
  counter("damaged_blocks_total", "Blocks whose checksums or tokens did not hold, and that were compiled again.",
          [node] { return static_cast<double>(node->CompileStats().damaged_total + node->damaged_blocks_total()); });
  gauge("compile_queue_chunks", "Chunks that wait to be compiled or are with the compiler.", [node] {
    const CompileQueueStats stats = node->CompileStats();
    return static_cast<double>(stats.waiting + stats.running) + static_cast<double>(node->chunks_waiting());
  });
}

}  // namespace epic
