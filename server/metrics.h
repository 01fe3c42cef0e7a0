// Prometheus metrics of a process: a registry with our naming rules, and the HTTP endpoint that shows it.
//
// Names begin with epic_ and their role (epic_router_, epic_cache_node_, epic_worker_), base units last (_seconds,
// _bytes), _total for counters only. One Metrics a process; several roles of one process share it. Thread-safe.
#ifndef EPIC_SERVER_METRICS_H_
#define EPIC_SERVER_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace prometheus {
class Exposer;
}

namespace epic {

class Metrics {
 public:
  using Labels = std::map<std::string, std::string>;

  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // The metric of that name and those labels, made at the first call. References stay valid as long as this object.
  // REQUIRES: the name follows the rules above; one name has one kind and one help text. Label values come from small
  // fixed sets, never from what clients send.
  prometheus::Counter& Counter(const std::string& name, const std::string& help, const Labels& labels = {});
  prometheus::Gauge& Gauge(const std::string& name, const std::string& help, const Labels& labels = {});
  // Buckets from 10 ms to 60 s, in seconds.
  prometheus::Histogram& LatencyHistogram(const std::string& name, const std::string& help, const Labels& labels = {});
  prometheus::Histogram& Histogram(const std::string& name, const std::string& help,
                                   const std::vector<double>& bucket_bounds, const Labels& labels = {});

  // Values that are read when they are scraped, for numbers that a component counts itself.
  // `read` must be thread-safe and not block. Returned handles end the registration when they are destroyed; what
  // `read` refers to must live until then. Keep the handle in the object that `read` looks at, as its last member.
  class [[nodiscard]] Registration {
   public:
    Registration() = default;
    Registration(Registration&&) = default;
    Registration& operator=(Registration&&) = default;

   private:
    friend class Metrics;
    explicit Registration(std::shared_ptr<void> entry) : entry_(std::move(entry)) {}
    std::shared_ptr<void> entry_;
  };
  Registration CounterCallback(const std::string& name, const std::string& help, const Labels& labels,
                               std::function<double()> read);
  Registration GaugeCallback(const std::string& name, const std::string& help, const Labels& labels,
                             std::function<double()> read);

  // Everything in Prometheus' text format.
  std::string TextExposition() const;

 private:
  friend class MetricsServer;
  class Collector;
  std::shared_ptr<Collector> collector_;
};

// Serves Metrics as http://ADDRESS/metrics until destroyed.
class MetricsServer {
 public:
  // INVALID_ARGUMENT: not HOST:PORT. FAILED_PRECONDITION: the port is in use. Keeps `metrics` alive.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& address,
                                                              std::shared_ptr<Metrics> metrics);
  ~MetricsServer();
  // HOST:PORT with the chosen port.
  const std::string& address() const { return address_; }

 private:
  MetricsServer() = default;
  std::string address_;
  std::shared_ptr<Metrics> metrics_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace epic

#endif  // EPIC_SERVER_METRICS_H_
