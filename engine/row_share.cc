#include "engine/row_share.h"

#include <algorithm>

namespace epic {

std::vector<int32_t> ShareRows(std::span<const int64_t> wanted, int32_t rows_max, uint64_t turn) {
  std::vector<int32_t> shares(wanted.size(), 0);
  int32_t left = rows_max;
  const auto give = [&](size_t i, int32_t most) {
    const auto rows = static_cast<int32_t>(std::min<int64_t>({wanted[i] - shares[i], most, left}));
    shares[i] += rows;
    left -= rows;
  };
  if (wanted.size() > 1) {
    give(0, (rows_max + 1) / 2);
    const size_t others = wanted.size() - 1;
    const int32_t share = std::max(kShareRowsMin, left / static_cast<int32_t>(others));
    for (size_t i = 0; i < others; ++i) give(1 + (turn + i) % others, share);
  }
  for (size_t i = 0; i < wanted.size(); ++i) give(i, left);
  return shares;
}

}  // namespace epic
