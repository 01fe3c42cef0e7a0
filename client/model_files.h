// The subcommands of `epic models` that work on files of this machine and need no running EPIC.
#ifndef EPIC_CLIENT_MODEL_FILES_H_
#define EPIC_CLIENT_MODEL_FILES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace epic::client {

// Prints what the file is and whether it runs, without loading the weights. Where it does not, the printed text says
// why and the returned error is the same sentence.
absl::Status RunModelsInspect(const std::string& path, bool json);

struct SynthOptions {
  std::string shape;
  int32_t layers = 0;  // 0: all
  int64_t seed = 1;    // at least 0
  std::string folder;  // empty: models/synthetic-...
};

// Writes a model of a published shape with random weights and prints where it is.
absl::Status RunModelsSynth(const SynthOptions& options, bool json);

}  // namespace epic::client

#endif  // EPIC_CLIENT_MODEL_FILES_H_
