#include "server/metrics.h"

#include <fmt/format.h>
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/text_serializer.h>

#include <cassert>
#include <exception>
#include <utility>

#include "core/sync.h"
#include "server/server_options.h"

namespace epic {
namespace {

// Latencies of a service that answers between a tenth of a second and a minute; finer where TTFT lives.
const std::vector<double> kLatencyBucketSeconds = {0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75,
                                                   1,    1.5,  2,    3,    5,     7.5, 10,   20,  30,  60};
// Two: one scrape may come while another is answered.
constexpr size_t kHttpThreads = 2;

struct CallbackEntry {
  std::string name;
  std::string help;
  Metrics::Labels labels;
  prometheus::MetricType type = prometheus::MetricType::Gauge;
  std::function<double()> read;
};

}  // namespace

// The registry's metrics and the callbacks' values, as one collectable.
class Metrics::Collector : public prometheus::Collectable, public std::enable_shared_from_this<Collector> {
 public:
  prometheus::Registry& registry() { return registry_; }

  std::shared_ptr<void> Register(CallbackEntry entry) {
    auto id = std::make_shared<int>(0);
    const int* const key = id.get();
    {
      MutexLock lock(mutex_);
      entries_.emplace(key, std::move(entry));
    }
    // The handle's end is the entry's end; the lock makes it wait for a scrape that reads the entry.
    return std::shared_ptr<void>(id.get(), [collector = weak_from_this(), id](void*) {
      const std::shared_ptr<Collector> self = collector.lock();
      if (self == nullptr) return;
      MutexLock lock(self->mutex_);
      self->entries_.erase(id.get());
    });
  }

  std::vector<prometheus::MetricFamily> Collect() const override {
    std::vector<prometheus::MetricFamily> families = registry_.Collect();
    std::map<std::string, prometheus::MetricFamily> callback_families;
    MutexLock lock(mutex_);
    for (const auto& [key, entry] : entries_) {
      prometheus::MetricFamily& family = callback_families[entry.name];
      family.name = entry.name;
      family.help = entry.help;
      family.type = entry.type;
      prometheus::ClientMetric metric;
      for (const auto& [label, value] : entry.labels) metric.label.push_back({label, value});
      (entry.type == prometheus::MetricType::Counter ? metric.counter.value : metric.gauge.value) = entry.read();
      family.metric.push_back(std::move(metric));
    }
    for (auto& [name, family] : callback_families) families.push_back(std::move(family));
    return families;
  }

 private:
  prometheus::Registry registry_;
  mutable Mutex mutex_;
  std::map<const int*, CallbackEntry> entries_ EPIC_GUARDED_BY(mutex_);
};

Metrics::Metrics() : collector_(std::make_shared<Collector>()) {}
Metrics::~Metrics() = default;

prometheus::Counter& Metrics::Counter(const std::string& name, const std::string& help, const Labels& labels) {
  assert(name.starts_with("epic_") && name.ends_with("_total"));
  return prometheus::BuildCounter().Name(name).Help(help).Register(collector_->registry()).Add(labels);
}

prometheus::Gauge& Metrics::Gauge(const std::string& name, const std::string& help, const Labels& labels) {
  assert(name.starts_with("epic_") && !name.ends_with("_total"));
  return prometheus::BuildGauge().Name(name).Help(help).Register(collector_->registry()).Add(labels);
}

prometheus::Histogram& Metrics::LatencyHistogram(const std::string& name, const std::string& help,
                                                 const Labels& labels) {
  return Histogram(name, help, kLatencyBucketSeconds, labels);
}

prometheus::Histogram& Metrics::Histogram(const std::string& name, const std::string& help,
                                          const std::vector<double>& bucket_bounds, const Labels& labels) {
  assert(name.starts_with("epic_") && !name.ends_with("_total"));
  return prometheus::BuildHistogram().Name(name).Help(help).Register(collector_->registry()).Add(labels, bucket_bounds);
}

Metrics::Registration Metrics::CounterCallback(const std::string& name, const std::string& help, const Labels& labels,
                                               std::function<double()> read) {
  assert(name.starts_with("epic_") && name.ends_with("_total"));
  return Registration(collector_->Register({name, help, labels, prometheus::MetricType::Counter, std::move(read)}));
}

Metrics::Registration Metrics::GaugeCallback(const std::string& name, const std::string& help, const Labels& labels,
                                             std::function<double()> read) {
  assert(name.starts_with("epic_") && !name.ends_with("_total"));
  return Registration(collector_->Register({name, help, labels, prometheus::MetricType::Gauge, std::move(read)}));
}

std::string Metrics::TextExposition() const { return prometheus::TextSerializer().Serialize(collector_->Collect()); }

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const std::string& address,
                                                                    std::shared_ptr<Metrics> metrics) {
  if (absl::Status status = ValidateHostPort("metrics-listen", address); !status.ok()) return status;
  std::unique_ptr<MetricsServer> server(new MetricsServer());
  server->metrics_ = std::move(metrics);
  try {
    server->exposer_ = std::make_unique<prometheus::Exposer>(address, kHttpThreads);
    server->exposer_->RegisterCollectable(server->metrics_->collector_);
  } catch (const std::exception& error) {
    return absl::FailedPreconditionError(fmt::format(
        "cannot serve metrics on {}: the port is in use or the address is not this machine's; choose another "
        "with --metrics-listen ({})",
        address, error.what()));
  }
  const std::vector<int> ports = server->exposer_->GetListeningPorts();
  server->address_ = fmt::format("{}:{}", address.substr(0, address.rfind(':')), ports.empty() ? 0 : ports[0]);
  return server;
}

MetricsServer::~MetricsServer() = default;

}  // namespace epic
