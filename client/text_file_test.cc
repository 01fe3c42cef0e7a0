#include "client/text_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "core/limits.h"

namespace epic::client {
namespace {

using ::testing::HasSubstr;

class TextFileTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& content) {
    const std::string path = ::testing::TempDir() + "/text_file_test_" +
                             ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".txt";
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  absl::Status Refusal(const std::string& content) { return ReadDocumentFile(Write(content)).status(); }
};

TEST_F(TextFileTest, ReadsText) { EXPECT_EQ(*ReadDocumentFile(Write("Grüße\n")), "Grüße\n"); }

TEST_F(TextFileTest, RefusesWhatIsNotADocument) {
  EXPECT_EQ(ReadDocumentFile("/no/such/file").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(ReadDocumentFile(::testing::TempDir()).status().message()), HasSubstr("is a folder"));
  for (const char* empty : {"", " \n\t\r\n"}) {
    EXPECT_EQ(Refusal(empty).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(Refusal(empty).message()), HasSubstr("is empty"));
  }
  EXPECT_THAT(std::string(Refusal("abc\xff").message()), HasSubstr("byte 3 (0xff)"));
  EXPECT_THAT(std::string(Refusal(std::string("a\0b", 3)).message()), HasSubstr("byte 1 is NUL"));
  EXPECT_THAT(std::string(Refusal(std::string(kDocumentTextBytesMax + 1, 'a')).message()),
              HasSubstr("limit of 4194304 bytes"));
  EXPECT_TRUE(ReadDocumentFile(Write(std::string(kDocumentTextBytesMax, 'a'))).ok());
}

TEST_F(TextFileTest, DocumentIdsComeFromFileNames) {
  EXPECT_EQ(DocumentIdFromPath("/a/b/pump-house manual.v2.txt"), "pump-house-manual.v2");
  EXPECT_EQ(DocumentIdFromPath("minutes.md"), "minutes");
}

}  // namespace
}  // namespace epic::client
