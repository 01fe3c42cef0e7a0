#include "engine/memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace epic {
namespace {

using testing::HasSubstr;

TEST(MemoryTest, TheMachineSaysWhatIsFree) {
  const std::optional<uint64_t> available = AvailableMemoryBytes();
  ASSERT_TRUE(available.has_value());
  EXPECT_GT(*available, uint64_t{1} << 20);
  EXPECT_LT(*available, uint64_t{1} << 50);
}

TEST(MemoryTest, AModelThatDoesNotFitIsRefusedWithBothNumbers) {
  EXPECT_TRUE(CheckModelFits("m.gguf", 1000, 1000).ok());
  EXPECT_TRUE(CheckModelFits("m.gguf", 1000, std::nullopt).ok());
  const absl::Status status = CheckModelFits("m.gguf", uint64_t{17} << 30, uint64_t{3} << 30);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  for (const char* part : {"m.gguf", "17.0 GiB", "3.0 GiB", "18253611008", "3221225472"}) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
}

}  // namespace
}  // namespace epic
