// How the rows of one step are shared among the prompts that are being linked. Pure.
#ifndef EPIC_ENGINE_ROW_SHARE_H_
#define EPIC_ENGINE_ROW_SHARE_H_

#include <cstdint>
#include <span>
#include <vector>

namespace epic {

// `wanted`: rows that each prompt still has to run, in order of arrival. Returns how many each one runs now, at most
// `rows_max` together, and exactly so many where so many are wanted.
//
// Half goes to the oldest, so that it is never held up by those behind it by more than a factor of two. The other half
// goes round: beginning at another prompt with every `turn`, each gets an equal share, at least kShareRowsMin. So a
// short prompt does not wait for a long one before it, and everybody moves within as many steps as there are prompts.
// What is left over goes in order of arrival.
std::vector<int32_t> ShareRows(std::span<const int64_t> wanted, int32_t rows_max, uint64_t turn);

// Shares below this would cost more in passes over the weights than they give in fairness.
inline constexpr int32_t kShareRowsMin = 16;

}  // namespace epic

#endif  // EPIC_ENGINE_ROW_SHARE_H_
