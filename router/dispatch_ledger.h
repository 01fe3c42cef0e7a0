// What this router has given to workers that their own reports cannot show yet. Pure: time comes in as an argument.
//
// Requests that arrive between two reports of a worker would otherwise all see the same short queue and all go there.
#ifndef EPIC_ROUTER_DISPATCH_LEDGER_H_
#define EPIC_ROUTER_DISPATCH_LEDGER_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <string>

namespace epic {

// Thread-compatible.
class DispatchLedger {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // A report that was asked for this long after a dispatch shows it: the request has reached the worker's queue by
  // then.
  static constexpr std::chrono::milliseconds kReportDelay{50};

  // Notes that `tokens` rows went to `worker`. Returns the entry's name for Remove.
  uint64_t Add(const std::string& worker, double tokens, TimePoint now);
  // The work is done or refused. Unknown entries are ignored.
  void Remove(uint64_t entry);
  // Rows given to `worker` that a report asked for at `asked` does not show.
  double TokensUnseen(const std::string& worker, TimePoint asked) const;

 private:
  struct Entry {
    std::string worker;
    double tokens = 0;
    TimePoint dispatched;
  };
  uint64_t next_ = 1;
  std::map<uint64_t, Entry> entries_;  // bounded by the requests that run
};

}  // namespace epic

#endif  // EPIC_ROUTER_DISPATCH_LEDGER_H_
