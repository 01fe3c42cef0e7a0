// What this machine can do at most, measured in the same run as the benchmark that stands beside it: how many
// floating-point operations its cores do when nothing comes from memory, and how fast memory is read and copied.
//
// A shared machine gives another answer every minute, so a benchmark measures this at its start and at its end
// (Calibrator) and keeps the better value of each figure: a limit is what was possible at some time during the run.
#ifndef EPIC_BENCHMARKS_CALIBRATION_H_
#define EPIC_BENCHMARKS_CALIBRATION_H_

#include <cstddef>
#include <string>
#include <vector>

#include "benchmarks/report.h"

namespace epic {

// Multiply-adds of one kind of instruction on registers, a multiply-add counted as two operations.
struct ProductRate {
  std::string instruction;       // "avx2 fma float32", "avx512 fma float32", "avx512 dot bf16"
  double one_thread_gflops = 0;  // 1e9 operations a second
  double all_threads_gflops = 0;
};

// Bytes in 1e9 a second. A copy counts every byte twice: once read, once written.
struct MemoryRate {
  double one_thread = 0;
  double all_threads = 0;
};

struct Calibration {
  int threads = 0;
  std::vector<ProductRate> products;  // those that this processor has; empty where it has not even AVX2
  MemoryRate read_gbps;
  MemoryRate copy_gbps;

  // The fastest kind that the kernels of this processor can use, by all threads; 0 where there is none.
  double PeakGflops() const;
};

class Calibrator {
 public:
  // Measures with 1 and with `threads` threads. `quick`: a tenth of the time and memory, for tests of the programs.
  Calibrator(int threads, bool quick);

  // Measures again and keeps the better value of each figure. Takes about a second, quick a tenth.
  void Measure();
  const Calibration& best() const { return best_; }

  // Adds "calibration" to the report; returns the lines for the table.
  std::string AddTo(Report& report) const;

 private:
  bool quick_;
  Calibration best_;
};

}  // namespace epic

#endif  // EPIC_BENCHMARKS_CALIBRATION_H_
