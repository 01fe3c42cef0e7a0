#include "core/sha256.h"

#include <string>

#include "gtest/gtest.h"

namespace epic {
namespace {

TEST(Sha256Test, KnownAnswers) {
  const std::string text = "abc";
  EXPECT_EQ(Sha256Hex(std::as_bytes(std::span(text.data(), text.size()))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

}  // namespace
}  // namespace epic
