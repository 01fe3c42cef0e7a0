#include "core/nearest_name.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace epic {
namespace {

const std::vector<std::string> kLinkers = {"full", "prefix", "naive", "naive-last", "cacheblend", "legolink"};

TEST(EditDistanceTest, CountsEdits) {
  EXPECT_EQ(EditDistance("", ""), 0u);
  EXPECT_EQ(EditDistance("abc", ""), 3u);
  EXPECT_EQ(EditDistance("", "abc"), 3u);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3u);
  EXPECT_EQ(EditDistance("saturday", "sunday"), 3u);
  EXPECT_EQ(EditDistance("port", "prot"), 1u);  // a swap is one edit
  EXPECT_EQ(EditDistance("ca", "abc"), 3u);     // optimal string alignment: no byte is edited twice
}

TEST(NearestNameTest, FindsWhatWasMeant) {
  EXPECT_EQ(NearestName("legolnik", kLinkers), "legolink");
  EXPECT_EQ(NearestName("LegoLink", kLinkers), "legolink");
  EXPECT_EQ(NearestName("cache-blend", kLinkers), "cacheblend");
  EXPECT_EQ(NearestName("naive_last", kLinkers), "naive-last");
  EXPECT_EQ(NearestName("naiv", kLinkers), "naive");
}

TEST(NearestNameTest, IsSilentWhereNothingIsNear) {
  EXPECT_EQ(NearestName("speculative", kLinkers), std::nullopt);
  EXPECT_EQ(NearestName("", kLinkers), std::nullopt);
  EXPECT_EQ(NearestName("full", {}), std::nullopt);
  EXPECT_EQ(NearestName(std::string(100'000, 'f'), kLinkers), std::nullopt);
}

TEST(NearestNameTest, HintsReadAsTheEndOfASentence) {
  EXPECT_EQ(NameHint("ful", kLinkers), " (did you mean \"full\"?)");
  EXPECT_EQ(NameHint("speculative", kLinkers), " (known: full, prefix, naive, naive-last, cacheblend, legolink)");
}

}  // namespace
}  // namespace epic
