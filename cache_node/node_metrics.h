// What a cache node shows to Prometheus.
#ifndef EPIC_CACHE_NODE_NODE_METRICS_H_
#define EPIC_CACHE_NODE_NODE_METRICS_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "cache_node/cache_node.h"
#include "server/metrics.h"

namespace epic {

// Reads the node's own counters when it is scraped. `metrics` and `node` must outlive it. Thread-safe.
class NodeMetrics {
 public:
  NodeMetrics(Metrics* metrics, const CacheNode* node);
  // The number of documents is counted by the manifest, which reads; so it is told here now and then instead.
  void SetDocuments(int64_t documents) { documents_ = documents; }

 private:
  std::atomic<int64_t> documents_{0};
  std::vector<Metrics::Registration> registrations_;  // last: they read the others
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_NODE_METRICS_H_
