#include "storage/disk_adoption.h"

#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

ChunkKey Key(uint8_t number) {
  ChunkKey key;
  key.bytes.fill(number);
  return key;
}
std::pair<ChunkKey, DiskIndexEntry> Entry(uint8_t number, uint32_t segment, uint64_t offset, uint64_t bytes) {
  return {Key(number), {.segment = segment, .offset = offset, .block_bytes = bytes, .sequence = number}};
}
std::vector<ChunkKey> Kept(const DiskAdoption& adoption) {
  std::vector<ChunkKey> keys;
  for (const AdoptedBlock& block : adoption.blocks) keys.push_back(block.owned.key);
  return keys;
}

const std::map<uint32_t, size_t> kSegments = {{1, 40960}, {2, 8192}};

TEST(DiskAdoptionTest, KeepsWhatFitsInTheOrderOfItsPlace) {
  const std::vector entries = {Entry(1, 2, 0, 8192), Entry(2, 1, 8192, 4097), Entry(3, 1, 0, 8192),
                               Entry(4, 1, 32768, 8192)};
  const DiskAdoption adoption = AdoptBlocks(entries, kSegments);
  EXPECT_THAT(Kept(adoption), ElementsAre(Key(3), Key(2), Key(4), Key(1)));
  EXPECT_THAT(adoption.dropped, IsEmpty());
  EXPECT_EQ(adoption.blocks[1].owned.range, (DiskRange{1, 8192, 8192})) << "with its padding";
}

TEST(DiskAdoptionTest, DropsWhatLiesInNoSegment) {
  const std::vector entries = {
      Entry(1, 3, 0, 4096),                  // no such segment
      Entry(2, 2, 4096, 4097),               // beyond its end
      Entry(3, 2, 100, 64),                  // not where a block begins
      Entry(4, 1, 0, 0),                     // no bytes
      Entry(5, 1, 0, UINT64_MAX),            // sizes whose sum overflows
      Entry(6, 1, UINT64_MAX - 4095, 8192),  //
      Entry(7, 1, 4096, 4096),
  };
  const DiskAdoption adoption = AdoptBlocks(entries, kSegments);
  EXPECT_THAT(Kept(adoption), ElementsAre(Key(7)));
  EXPECT_THAT(adoption.dropped, ElementsAre(Key(1), Key(2), Key(3), Key(4), Key(5), Key(6)));
}

TEST(DiskAdoptionTest, OfBlocksThatOverlapTheLastOneWrittenStays) {
  // 5 took the place of 1 and 2; 3 touches it but does not overlap; 4 begins within 6.
  const std::vector entries = {Entry(1, 1, 0, 4096),     Entry(2, 1, 4096, 8192),  Entry(5, 1, 0, 8192),
                               Entry(3, 1, 12288, 4096), Entry(6, 1, 20480, 8192), Entry(4, 1, 24576, 8192)};
  const DiskAdoption adoption = AdoptBlocks(entries, kSegments);
  EXPECT_THAT(Kept(adoption), ElementsAre(Key(5), Key(3), Key(6)));
  EXPECT_THAT(adoption.dropped, ElementsAre(Key(1), Key(2), Key(4)));
}

}  // namespace
}  // namespace epic
