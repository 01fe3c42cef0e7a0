// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): a few lines of our own,
// because the generators' distributions of <random> differ from library to library, and what is drawn here must be the
// same everywhere. Pure.
#ifndef EPIC_CORE_SPLIT_MIX_H_
#define EPIC_CORE_SPLIT_MIX_H_

#include <cstdint>

namespace epic {

inline constexpr uint64_t kSplitMixStep = 0x9e3779b97f4a7c15u;

// The number that the generator in this state gives; it then goes on in the state + kSplitMixStep.
constexpr uint64_t SplitMix(uint64_t state) {
  uint64_t z = state + kSplitMixStep;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace epic

#endif  // EPIC_CORE_SPLIT_MIX_H_
