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
  // The tiers. What one counter is for both has the label `tier`.
  const auto tier_value = [&](bool is_counter, const std::string& name, const std::string& help,
                              const Metrics::Labels& labels, std::function<double()> read) {
    const std::string full = "epic_cache_node_tier_" + name;
    registrations_.push_back(is_counter ? metrics->CounterCallback(full, help, labels, std::move(read))
                                        : metrics->GaugeCallback(full, help, labels, std::move(read)));
  };
  const auto host_value = [&](bool is_counter, const std::string& name, const std::string& help, auto field,
                              Metrics::Labels labels = {}) {
    labels["tier"] = "host";
    tier_value(is_counter, name, help, labels,
               [node, field] { return static_cast<double>(node->StoreStats().*field); });
  };
  const auto move_value = [&](bool is_counter, const std::string& name, const std::string& help,
                              const std::string& tier, auto field) {
    tier_value(is_counter, name, help, {{"tier", tier}},
               [node, field] { return static_cast<double>(node->tiers().Stats().*field); });
  };
  const std::string capacity = "Bytes that the tier may take.";
  const std::string used = "Bytes of the tier in use.";
  const std::string blocks = "Blocks in the tier.";
  const std::string evictions = "Blocks that left the tier, by cause.";
  const std::string failures = "Blocks that were not the bytes that had been written; dropped.";
  host_value(false, "capacity_bytes", capacity, &BlockStoreStats::capacity_bytes);
  host_value(false, "used_bytes", used, &BlockStoreStats::used_bytes);
  host_value(false, "blocks", blocks, &BlockStoreStats::blocks);
  host_value(false, "pinned_bytes", "Bytes of pinned documents in memory.", &BlockStoreStats::pinned_bytes);
  host_value(false, "leased_bytes", "Bytes that readers keep in place.", &BlockStoreStats::leased_bytes);
  host_value(false, "largest_free_bytes", "The longest run of free bytes.", &BlockStoreStats::largest_free_bytes);
  host_value(true, "hits_total", "Chunks found in the tier.", &BlockStoreStats::hits_total);
  host_value(true, "misses_total", "Chunks not found in the tier.", &BlockStoreStats::misses_total);
  host_value(true, "evictions_total", evictions, &BlockStoreStats::evictions_for_room_total, {{"cause", "room"}});
  host_value(true, "evictions_total", evictions, &BlockStoreStats::evictions_for_run_total, {{"cause", "run"}});
  host_value(true, "evictions_total", evictions, &BlockStoreStats::evictions_requested_total, {{"cause", "requested"}});
  host_value(true, "evictions_total", evictions, &BlockStoreStats::deletions_total, {{"cause", "deleted"}});
  host_value(true, "evictions_total", evictions, &BlockStoreStats::damaged_total, {{"cause", "damaged"}});
  host_value(true, "checksum_failures_total", failures, &BlockStoreStats::damaged_total);
  if (node->tiers().disk() != nullptr) {
    const auto disk_value = [&](bool is_counter, const std::string& name, const std::string& help, auto field,
                                Metrics::Labels labels = {}) {
      labels["tier"] = "disk";
      tier_value(is_counter, name, help, labels,
                 [node, field] { return static_cast<double>(node->tiers().disk()->TierStats().*field); });
    };
    disk_value(false, "capacity_bytes", capacity, &BlockTierStats::capacity_bytes);
    disk_value(false, "used_bytes", used, &BlockTierStats::used_bytes);
    disk_value(false, "blocks", blocks, &BlockTierStats::blocks);
    move_value(true, "hits_total", "Chunks found in the tier.", "disk", &TieredStoreStats::loads_total);
    tier_value(true, "misses_total", "Chunks not found in the tier.", {{"tier", "disk"}},
               [node] { return static_cast<double>(node->CompileStats().compiled_chunks_total); });
    disk_value(true, "evictions_total", evictions, &BlockTierStats::evictions_total, {{"cause", "room"}});
    disk_value(true, "evictions_total", evictions, &BlockTierStats::deletions_total, {{"cause", "deleted"}});
    disk_value(true, "evictions_total", evictions, &BlockTierStats::checksum_failures_total, {{"cause", "damaged"}});
    disk_value(true, "evictions_total", evictions, &BlockTierStats::read_errors_total, {{"cause", "unreadable"}});
    disk_value(true, "checksum_failures_total", failures, &BlockTierStats::checksum_failures_total);
    disk_value(true, "read_errors_total", "Blocks that the device did not give; dropped.",
               &BlockTierStats::read_errors_total);
    disk_value(true, "write_errors_total", "Writes that the device did not take.", &BlockTierStats::write_errors_total);
    disk_value(true, "no_space_total", "Times the file system had no room for the tier.",
               &BlockTierStats::no_space_total);
    disk_value(true, "read_bytes_total", "Bytes of blocks read.", &BlockTierStats::read_bytes_total);
    disk_value(true, "written_bytes_total", "Bytes of blocks written.", &BlockTierStats::written_bytes_total);
    move_value(true, "promotions_total", "Blocks that came into the tier from the one below.", "host",
               &TieredStoreStats::loads_total);
    move_value(true, "demotions_total", "Blocks that were copied into the tier from the one above.", "disk",
               &TieredStoreStats::writes_total);
    move_value(true, "demotions_skipped_total", "Copies that were not made because the block had left.", "disk",
               &TieredStoreStats::writes_skipped_total);
    move_value(true, "demotions_declined_total", "Copies that the tier had no room for.", "disk",
               &TieredStoreStats::writes_declined_total);
    move_value(false, "queue_blocks", "Blocks that wait to come into the tier.", "host",
               &TieredStoreStats::loads_waiting);
    move_value(false, "queue_blocks", "Blocks that wait to come into the tier.", "disk",
               &TieredStoreStats::writes_waiting);
  }
  counter("manifest_reads_from_copy_total", "Records that only the manifest's second copy could give.",
          [node] { return static_cast<double>(node->manifest().counters().reads_from_copy_total); });
  counter("manifest_repairs_total", "Copies of the manifest that were repaired when it was opened.",
          [node] { return static_cast<double>(node->manifest().counters().repairs_at_open_total); });
  gauge("pinned_documents", "Documents that are pinned.",
        [node] { return static_cast<double>(node->pinned().count()); });
  gauge("compile_queue_chunks", "Chunks that wait to be compiled or are with the compiler.", [node] {
    const CompileQueueStats stats = node->CompileStats();
    return static_cast<double>(stats.waiting + stats.running) + static_cast<double>(node->chunks_waiting());
  });
}

}  // namespace epic
