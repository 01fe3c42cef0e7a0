#include "inference_worker/shadow_figures.h"

#include <algorithm>

#include "engine/linker_verdict.h"

namespace epic {

void ShadowWindow::Add(const std::string& linker, bool first_token_agrees, double kl) {
  Checked& checked = linkers_[linker];
  checked.last = ++checks_total_;
  checked.outcomes.push_back({first_token_agrees, kl});
  if (checked.outcomes.size() > checks_max_) checked.outcomes.pop_front();
  if (linkers_.size() <= linkers_max_) return;
  linkers_.erase(std::min_element(linkers_.begin(), linkers_.end(),
                                  [](const auto& a, const auto& b) { return a.second.last < b.second.last; }));
}

std::vector<ShadowFigures> ShadowWindow::Figures() const {
  const VerdictThresholds thresholds;
  std::vector<ShadowFigures> all;
  for (const auto& [linker, checked] : linkers_) {
    ShadowFigures& figures = all.emplace_back();
    figures.linker = linker;
    figures.checks = static_cast<int32_t>(checked.outcomes.size());
    int32_t agreed = 0;
    double kl = 0;
    for (const Outcome& outcome : checked.outcomes) {
      agreed += outcome.first_token_agrees ? 1 : 0;
      kl += outcome.kl;
    }
    figures.first_token_agreement = static_cast<double>(agreed) / figures.checks;
    figures.mean_kl = kl / figures.checks;
    if (figures.checks < thresholds.prompts_min) continue;
    figures.problem =
        JudgeLinker(linker, "", figures.checks, figures.first_token_agreement, figures.mean_kl, thresholds).reason;
  }
  return all;
}

}  // namespace epic
