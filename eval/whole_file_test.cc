#include "eval/whole_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace epic::eval {
namespace {

TEST(WholeFile, IsWrittenWholeOrNotAtAll) {
  const std::string folder = ::testing::TempDir() + "epic_whole_file_" + std::to_string(getpid());
  std::filesystem::create_directories(folder + "/taken/by a folder");
  const absl::Status nowhere = WriteFileWhole(folder + "/no/x", "new");
  EXPECT_EQ(nowhere.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(nowhere.message()), ::testing::HasSubstr(folder + "/no/x"));
  EXPECT_FALSE(WriteFileWhole(folder + "/taken", "new").ok());
  std::ofstream(folder + "/x") << "old and longer";
  ASSERT_TRUE(WriteFileWhole(folder + "/x", "new").ok());
  std::ifstream file(folder + "/x");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "new");
  // Nothing is left beside them.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 2);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace epic::eval
