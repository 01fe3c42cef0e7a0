#include "benchmarks/calibration.h"

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>

#include "fmt/format.h"

namespace epic {
namespace {

// Independent chains of multiply-adds: more than latency times units of any processor so far, few enough for registers.
constexpr int kChains = 10;
constexpr int kLoopRounds = 2000;

// Each runs kLoopRounds x kChains instructions and returns something of the result, so that it is not dropped.
__attribute__((target("avx2,fma"))) float Avx2Loop() {
  __m256 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 factor = _mm256_set1_ps(0.999F);
  const __m256 term = _mm256_set1_ps(0.001F);
  for (int round = 0; round < kLoopRounds; ++round) {
#pragma GCC unroll 10
    for (int i = 0; i < kChains; ++i) sums[i] = _mm256_fmadd_ps(sums[i], factor, term);
  }
  for (int i = 1; i < kChains; ++i) sums[0] = _mm256_add_ps(sums[0], sums[i]);
  return _mm256_cvtss_f32(sums[0]);
}

// Bytes that the processor has read, 256 bits at a time.
__attribute__((target("avx2"))) int64_t ReadAll(const std::byte* data, size_t bytes) {
  constexpr size_t kStep = 4 * sizeof(__m256i);
  __m256i sums[4] = {};
  for (size_t at = 0; at + kStep <= bytes; at += kStep) {
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
      const auto* from = reinterpret_cast<const __m256i*>(data + at + i * sizeof(__m256i));
      sums[i] = _mm256_xor_si256(sums[i], _mm256_load_si256(from));
    }
  }
  const __m256i sum = _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3]));
  return _mm256_extract_epi64(sum, 0) ^ _mm256_extract_epi64(sum, 2);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12 warns about its own AVX-512 header
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
__attribute__((target("avx512f"))) float Avx512Loop() {
  __m512 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 factor = _mm512_set1_ps(0.999F);
  const __m512 term = _mm512_set1_ps(0.001F);
  for (int round = 0; round < kLoopRounds; ++round) {
#pragma GCC unroll 10
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_fmadd_ps(sums[i], factor, term);
  }
  for (int i = 1; i < kChains; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}

__attribute__((target("avx512f,avx512bf16,avx512bw,avx512vl"))) float Avx512Bf16Loop() {
  __m512 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512bh factor = _mm512_cvtne2ps_pbh(sums[1], sums[2]);
  for (int round = 0; round < kLoopRounds; ++round) {
#pragma GCC unroll 10
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], factor, factor);
  }
  for (int i = 1; i < kChains; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}
#pragma GCC diagnostic pop

struct ProductLoop {
  const char* name;
  float (*run)();
  int operations;  // of one instruction
};

std::vector<ProductLoop> ProductLoops() {
  std::vector<ProductLoop> loops;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    loops.push_back({"avx2 fma float32", Avx2Loop, 16});
  if (__builtin_cpu_supports("avx512f")) loops.push_back({"avx512 fma float32", Avx512Loop, 32});
  if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    loops.push_back({"avx512 dot bf16", Avx512Bf16Loop, 64});
  }
  return loops;
}

double SecondsOf(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Runs work(thread) in `threads` threads that begin together; the seconds from there until the last one ends.
double ParallelSeconds(int threads, const std::function<void(int)>& work) {
  std::atomic<int> waiting{threads};
  std::vector<std::thread> others;
  const auto run = [&](int thread) {
    --waiting;
    while (waiting.load() > 0) std::this_thread::yield();
    work(thread);
  };
  others.reserve(threads);
  for (int t = 1; t < threads; ++t) others.emplace_back(run, t);
  const double seconds = SecondsOf([&] { run(0); });
  double last = 0;
  last = SecondsOf([&] {
    for (std::thread& other : others) other.join();
  });
  return seconds + last;
}

std::atomic<int64_t> g_sink{0};  // what the loops computed: nobody reads it, but the compiler cannot know

// The best of `repetitions`: a limit is what was reached once.
double ProductGflops(const ProductLoop& loop, int threads, int repetitions, int calls) {
  double best = 0;
  for (int r = 0; r < repetitions; ++r) {
    const double seconds = ParallelSeconds(threads, [&](int) {
      float sum = 0;
      for (int call = 0; call < calls; ++call) sum += loop.run();
      g_sink.fetch_add(static_cast<int64_t>(sum));
    });
    const double operations = static_cast<double>(threads) * calls * kLoopRounds * kChains * loop.operations;
    best = std::max(best, operations / seconds / 1e9);
  }
  return best;
}

struct Aligned {
  void operator()(std::byte* p) const { std::free(p); }
};

std::unique_ptr<std::byte[], Aligned> Allocate(size_t bytes) {
  std::unique_ptr<std::byte[], Aligned> memory(static_cast<std::byte*>(std::aligned_alloc(4096, bytes)));
  if (memory != nullptr) std::memset(memory.get(), 1, bytes);
  return memory;
}

}  // namespace

double Calibration::PeakGflops() const {
  double peak = 0;
  for (const ProductRate& rate : products) peak = std::max(peak, rate.all_threads_gflops);
  return peak;
}

Calibrator::Calibrator(int threads, bool quick) : quick_(quick) {
  best_.threads = threads;
  for (const ProductLoop& loop : ProductLoops()) best_.products.push_back({loop.name, 0, 0});
  Measure();
}

void Calibrator::Measure() {
  const int threads = best_.threads;
  const int repetitions = quick_ ? 1 : 5;
  const int calls = quick_ ? 50 : 500;
  const std::vector<ProductLoop> loops = ProductLoops();
  for (size_t i = 0; i < loops.size(); ++i) {
    ProductRate& rate = best_.products[i];
    rate.one_thread_gflops = std::max(rate.one_thread_gflops, ProductGflops(loops[i], 1, repetitions, calls));
    rate.all_threads_gflops = std::max(rate.all_threads_gflops, ProductGflops(loops[i], threads, repetitions, calls));
  }
  // Several times the largest last-level cache that a thread may have to itself; halved into from and to for the copy.
  const size_t bytes = (quick_ ? size_t{16} : size_t{256}) << 20;
  const auto memory = Allocate(bytes * static_cast<size_t>(threads));
  if (memory == nullptr || loops.empty()) return;
  const auto rate = [&](int used, const std::function<void(std::byte*)>& pass) {
    double best = 0;
    for (int r = 0; r < repetitions; ++r) {
      const double seconds = ParallelSeconds(used, [&](int thread) { pass(memory.get() + bytes * thread); });
      best = std::max(best, static_cast<double>(used) * static_cast<double>(bytes) / seconds / 1e9);
    }
    return best;
  };
  const auto read = [&](std::byte* from) { g_sink.fetch_add(ReadAll(from, bytes)); };
  const auto copy = [&](std::byte* from) { std::memcpy(from + bytes / 2, from, bytes / 2); };
  best_.read_gbps.one_thread = std::max(best_.read_gbps.one_thread, rate(1, read));
  best_.read_gbps.all_threads = std::max(best_.read_gbps.all_threads, rate(threads, read));
  best_.copy_gbps.one_thread = std::max(best_.copy_gbps.one_thread, rate(1, copy));
  best_.copy_gbps.all_threads = std::max(best_.copy_gbps.all_threads, rate(threads, copy));
}

std::string Calibrator::AddTo(Report& report) const {
  Report products = Report::array();
  std::string table = fmt::format("calibration of this machine in this run, 1 / {} threads:\n", best_.threads);
  for (const ProductRate& rate : best_.products) {
    products.push_back({{"instruction", rate.instruction},
                        {"one_thread_gflops", rate.one_thread_gflops},
                        {"all_threads_gflops", rate.all_threads_gflops}});
    table += fmt::format("  {:<26} {:>8.0f} / {:>8.0f} GFLOP/s\n", rate.instruction, rate.one_thread_gflops,
                         rate.all_threads_gflops);
  }
  table += fmt::format("  {:<26} {:>8.1f} / {:>8.1f} GB/s\n", "memory read", best_.read_gbps.one_thread,
                       best_.read_gbps.all_threads);
  table += fmt::format("  {:<26} {:>8.1f} / {:>8.1f} GB/s\n", "memory copy (read + write)", best_.copy_gbps.one_thread,
                       best_.copy_gbps.all_threads);
  report["calibration"] = {{"products", products},
                           {"read_gbps_one_thread", best_.read_gbps.one_thread},
                           {"read_gbps_all_threads", best_.read_gbps.all_threads},
                           {"copy_gbps_one_thread", best_.copy_gbps.one_thread},
                           {"copy_gbps_all_threads", best_.copy_gbps.all_threads}};
  return table;
}

}  // namespace epic
