#include "core/frequency_sketch.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/split_mix.h"

namespace epic {
namespace {

constexpr size_t kCellsPerBlockInARow = 4;
constexpr size_t kWidthMin = 64;
// A cell is 0 for "never", or 1 + the distance from the origin in steps of 1/512 half-life: 128 half-lives in 16 bits.
constexpr double kStepsPerHalfLife = 512;
// How far `now` may be from the origin: room is left for what many uses add to it.
constexpr double kOriginDistanceMax = 96;
// How far the origin then moves: uses that are older than the rest are forgotten.
constexpr uint16_t kRebaseHalfLives = 64;

}  // namespace

double LogSum(double a, double b) {
  const double larger = std::max(a, b);
  return std::isinf(larger) ? larger : larger + std::log2(1 + std::exp2(std::min(a, b) - larger));
}

FrequencySketch::FrequencySketch(double half_life_uses_per_block)
    : half_life_uses_per_block_(half_life_uses_per_block), width_(kWidthMin), cells_(kRows * kWidthMin) {
  Reserve(1);
}

void FrequencySketch::Reserve(size_t blocks) {
  step_ = 1 / (half_life_uses_per_block_ * static_cast<double>(std::max<size_t>(blocks, 1)));
  if (blocks * kCellsPerBlockInARow <= width_) return;
  // A cell is chosen by the low bits of a hash: a key's cell in the wider row is one of the narrow one's copies.
  const size_t width = std::bit_ceil(blocks * kCellsPerBlockInARow);
  std::vector<uint16_t> wider(kRows * width);
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t i = 0; i < width; ++i) wider[row * width + i] = cells_[row * width_ + i % width_];
  }
  cells_ = std::move(wider);
  width_ = width;
}

double FrequencySketch::Record(uint64_t hash) {
  now_ += step_;
  if (now_ - origin_ > kOriginDistanceMax) Rebase();
  const double log_uses = LogSum(LogUses(hash), now_);
  const double steps = std::round((log_uses - origin_) * kStepsPerHalfLife) + 1;
  const auto value = static_cast<uint16_t>(std::clamp<double>(steps, 1, std::numeric_limits<uint16_t>::max()));
  for (const size_t cell : Cells(hash)) cells_[cell] = std::max(cells_[cell], value);
  return log_uses;
}

double FrequencySketch::LogUses(uint64_t hash) const {
  uint16_t least = std::numeric_limits<uint16_t>::max();
  for (const size_t cell : Cells(hash)) least = std::min(least, cells_[cell]);
  if (least == 0) return -std::numeric_limits<double>::infinity();
  return origin_ + (least - 1) / kStepsPerHalfLife;
}

std::array<size_t, FrequencySketch::kRows> FrequencySketch::Cells(uint64_t hash) const {
  std::array<size_t, kRows> cells;
  for (size_t row = 0; row < kRows; ++row) {
    cells[row] = row * width_ + (SplitMix(hash + row * kSplitMixStep) & (width_ - 1));
  }
  return cells;
}

void FrequencySketch::Rebase() {
  constexpr auto kSteps = static_cast<uint16_t>(kRebaseHalfLives * kStepsPerHalfLife);
  for (uint16_t& cell : cells_) cell -= std::min(cell, kSteps);
  origin_ += kRebaseHalfLives;
}

}  // namespace epic
