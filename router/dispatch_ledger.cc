#include "router/dispatch_ledger.h"

namespace epic {

uint64_t DispatchLedger::Add(const std::string& worker, double tokens, TimePoint now) {
  entries_[next_] = {worker, tokens, now};
  return next_++;
}

void DispatchLedger::Remove(uint64_t entry) { entries_.erase(entry); }

double DispatchLedger::TokensUnseen(const std::string& worker, TimePoint asked) const {
  double tokens = 0;
  for (const auto& [name, entry] : entries_) {
    if (entry.worker == worker && asked < entry.dispatched + kReportDelay) tokens += entry.tokens;
  }
  return tokens;
}

}  // namespace epic
