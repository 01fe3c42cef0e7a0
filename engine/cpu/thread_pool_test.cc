#include "engine/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace epic {
namespace {

TEST(ThreadPoolTest, EveryIndexRunsOnceOnAKnownThread) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (const int count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(count);
      std::atomic<bool> thread_in_range{true};
      pool.ParallelFor(count, [&](int64_t index, int thread) {
        runs[index].fetch_add(1);
        if (thread < 0 || thread >= pool.threads()) thread_in_range = false;
      });
      for (const auto& run : runs) EXPECT_EQ(run.load(), 1);
      EXPECT_TRUE(thread_in_range);
    }
  }
}

TEST(ThreadPoolTest, WhatALoopWroteIsThereForTheNext) {
  ThreadPool pool(3);
  std::vector<int> values(64, 0);
  for (int round = 0; round < 500; ++round) {
    pool.ParallelFor(64, [&](int64_t index, int) { ++values[63 - index]; });
    pool.ParallelFor(64, [&](int64_t index, int) { ++values[index]; });
  }
  for (const int value : values) EXPECT_EQ(value, 1000);
}

}  // namespace
}  // namespace epic
