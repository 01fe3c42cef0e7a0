// A safetensors model whose weights are what is fuzzed: one file or several with their index, beside its JSON files.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/fuzz_support.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const epic::FuzzFolder folder(data, size, "model.safetensors");
  epic::OpenAndUseModel(folder.path());
  return 0;
}
