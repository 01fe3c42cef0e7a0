// What shadow checks say of each linker: figures over its last checks, and in words where they fall short of what a
// verdict asks (engine/linker_verdict.h). Pure.
#ifndef EPIC_INFERENCE_WORKER_SHADOW_FIGURES_H_
#define EPIC_INFERENCE_WORKER_SHADOW_FIGURES_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "core/limits.h"

namespace epic {

struct ShadowFigures {
  std::string linker;  // canonical name, with "@document" over documents that were compiled as a whole
  int32_t checks = 0;  // over how many
  double first_token_agreement = 0;
  double mean_kl = 0;  // nats
  // Each figure that a verdict would refuse, beside its threshold; empty where there is none, or too few checks to say.
  std::string problem;
};

// Keeps the last checks of the linkers that were checked last. Clients choose linkers' names, so their number has a
// bound. Thread-compatible.
class ShadowWindow {
 public:
  explicit ShadowWindow(size_t checks_max = kShadowWindowChecks, size_t linkers_max = kShadowLinkersMax)
      : checks_max_(checks_max), linkers_max_(linkers_max) {}

  // REQUIRES: `kl` is finite and not negative.
  void Add(const std::string& linker, bool first_token_agrees, double kl);
  // By name.
  std::vector<ShadowFigures> Figures() const;

 private:
  struct Outcome {
    bool first_token_agrees = false;
    double kl = 0;
  };
  struct Checked {
    std::deque<Outcome> outcomes;
    uint64_t last = 0;  // number of its last check among all
  };

  const size_t checks_max_;
  const size_t linkers_max_;
  uint64_t checks_total_ = 0;
  std::map<std::string, Checked> linkers_;
};

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_SHADOW_FIGURES_H_
