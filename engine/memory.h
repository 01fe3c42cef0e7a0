// Whether a model fits this machine, asked before its weights are read.
//
// A model that does not fit would be loaded for minutes and then be killed by the kernel, or make the machine swap.
#ifndef EPIC_ENGINE_MEMORY_H_
#define EPIC_ENGINE_MEMORY_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace epic {

// Bytes that this process may still take: what the kernel calls available, and no more than what the memory limits of
// its control groups leave. Nothing where the system does not say.
std::optional<uint64_t> AvailableMemoryBytes();

// RESOURCE_EXHAUSTED with both numbers where `needed_bytes` are more than `available_bytes`. `model` is for the
// message.
absl::Status CheckModelFits(const std::string& model, uint64_t needed_bytes, std::optional<uint64_t> available_bytes);

}  // namespace epic

#endif  // EPIC_ENGINE_MEMORY_H_
