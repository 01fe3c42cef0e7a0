// A GGUF file, or the parts of one: opened and used from the first file of the input.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/fuzz_support.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const epic::FuzzFolder folder(data, size, "model.gguf");
  if (!folder.files().empty()) epic::OpenAndUseModel(folder.files().front());
  return 0;
}
