#include "core/identifiers.h"

#include <map>
#include <string>

#include "core/limits.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using ::testing::HasSubstr;

TEST(IdentifiersTest, AcceptsTheAlphabetUpToTheLimit) {
  EXPECT_TRUE(ValidateDocumentId("document.id", "minutes/2024-06-01:final_v1.2").ok());
  EXPECT_TRUE(ValidateDocumentId("document.id", std::string(kDocumentIdBytesMax, 'x')).ok());
  EXPECT_TRUE(ValidateTenant("tenant", std::string(kTenantBytesMax, 'x')).ok());
  EXPECT_TRUE(ValidateRequestId("request_id", std::string(kRequestIdBytesMax, 'x')).ok());
}

TEST(IdentifiersTest, EveryOtherByteIsRefused) {
  const std::string allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/";
  for (int byte = 0; byte < 256; ++byte) {
    const std::string id = std::string("a") + static_cast<char>(byte);
    EXPECT_EQ(ValidateDocumentId("id", id).ok(), allowed.find(static_cast<char>(byte)) != std::string::npos) << byte;
  }
}

TEST(IdentifiersTest, ErrorsNameFieldValueAndLimit) {
  const absl::Status too_long = ValidateTenant("tenant", std::string(kTenantBytesMax + 1, 'x'));
  EXPECT_EQ(too_long.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(too_long.message()),
            "tenant \"" + std::string(40, 'x') + "...\" has 65 bytes, the limit is 64");
  const absl::Status bad = ValidateDocumentId("document.id", "a b\n");
  EXPECT_EQ(bad.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      std::string(bad.message()),
      "document.id \"a b\\x0a\" has the character \" \" at byte 1; allowed are ASCII letters, digits and - _ . : /");
  EXPECT_THAT(std::string(ValidateDocumentId("document.id", "").message()), HasSubstr("document.id is empty"));
}

TEST(IdentifiersTest, LabelsAreCheckedOneByOne) {
  using Labels = std::map<std::string, std::string>;
  const auto message = [](const Labels& labels) {
    return std::string(ValidateLabels("document.labels", labels).message());
  };
  EXPECT_EQ(message({{"kind", "manual"}, {"draft", ""}}), "");
  EXPECT_THAT(message({{"kind", "a\tmanual"}}), HasSubstr("document.labels[\"kind\"]"));
  EXPECT_THAT(message({{"kind", std::string(kLabelBytesMax + 1, 'x')}}), HasSubstr("the limit is 256"));
  EXPECT_THAT(message({{"", "x"}}), HasSubstr("the name of a label in document.labels is empty"));
  Labels many;
  for (size_t i = 0; i <= kLabelsMax; ++i) many.emplace(fmt::format("label-{}", i), "x");
  EXPECT_THAT(message(many), HasSubstr("33 labels, the limit is 32"));
  EXPECT_EQ(ValidateLabels("document.labels", many).code(), absl::StatusCode::kInvalidArgument);
}

TEST(IdentifiersTest, QuotingCannotForgeALine) {
  EXPECT_EQ(QuoteForMessage("plain"), "\"plain\"");
  EXPECT_EQ(QuoteForMessage("a\"b\\c"), "\"a\\\"b\\\\c\"");
  EXPECT_EQ(QuoteForMessage(std::string("\0\r\n\x1b\xff", 5)), "\"\\x00\\x0d\\x0a\\x1b\\xff\"");
}

}  // namespace
}  // namespace epic
