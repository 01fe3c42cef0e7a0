#include "storage/keyed_mutex.h"

#include <array>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace epic {
namespace {

TEST(KeyedMutexTest, HoldersOfOneNameExcludeEachOther) {
  KeyedMutex mutex;
  std::array<int, 3> counters = {};  // each under the lock of its name: the thread sanitizer watches
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      for (int step = 0; step < 500; ++step) {
        const int name = (i + step) % 3;
        const KeyedMutex::Lock lock(mutex, std::to_string(name));
        ++counters[name];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counters[0] + counters[1] + counters[2], 3000);
}

TEST(KeyedMutexTest, HoldersOfDifferentNamesDoNot) {
  KeyedMutex mutex;
  const KeyedMutex::Lock a(mutex, "a");
  const KeyedMutex::Lock b(mutex, "b");  // would never return
}

}  // namespace
}  // namespace epic
