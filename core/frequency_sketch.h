// How often keys were asked for lately, resident or not, in little memory.
//
// A count-min sketch (Cormode and Muthukrishnan, 2005) with conservative update (Estan and Varghese, SIGCOMM 2002,
// section 4.2.2) whose counts decay exponentially: a use weighs half as much after each half-life. Decay costs nothing,
// because it looks forward (Cormode, Shkapenyuk, Srivastava, Xu: "Forward decay", ICDE 2009): a use at time t adds 2^t,
// and what is kept is the logarithm of the sum. The order of two keys therefore does not change while neither is used,
// so that it can stand in a heap. TinyLFU (Einziger, Friedman, Manes, ACM ToS 2017) halves all counters at intervals
// instead.
//
// Time is counted in uses: a half-life is `half_life_uses_per_block` uses for each of the blocks of Reserve. Pure,
// thread-compatible. 32 to 64 bytes for each of these blocks; less lets blocks that were used once borrow the uses of
// others, which cost more misses in the simulation of docs/decisions/0012 than any other constant.
#ifndef EPIC_CORE_FREQUENCY_SKETCH_H_
#define EPIC_CORE_FREQUENCY_SKETCH_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace epic {

class FrequencySketch {
 public:
  explicit FrequencySketch(double half_life_uses_per_block);

  // Makes room for `blocks` keys that matter; what is known of any key stays known. It does not shrink. Amortised O(1)
  // where `blocks` grows one by one.
  void Reserve(size_t blocks);

  // Counts a use of the key with this hash now. Returns its new LogUses.
  double Record(uint64_t hash);
  // log2 of the decayed number of uses, on a scale that is the sketch's own and the same for all keys and times: only
  // differences mean something. At least the true value; minus infinity for a key that was never used.
  double LogUses(uint64_t hash) const;
  // What LogUses a key has that is used once, now.
  double now() const { return now_; }

 private:
  static constexpr size_t kRows = 4;

  std::array<size_t, kRows> Cells(uint64_t hash) const;
  void Rebase();

  const double half_life_uses_per_block_;
  double now_ = 0;               // in half-lives
  double origin_ = 0;            // what the cells are relative to
  double step_ = 0;              // half-lives a use
  size_t width_ = 0;             // cells in a row, a power of two
  std::vector<uint16_t> cells_;  // see frequency_sketch.cc
};

// log2(2^a + 2^b).
double LogSum(double a, double b);

}  // namespace epic

#endif  // EPIC_CORE_FREQUENCY_SKETCH_H_
