// The JSON files of a model folder: the tokenizer alone, as if the weights were sound, and then the folder.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/fuzz_support.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const epic::FuzzFolder folder(data, size, "config.json");
  epic::UseTokenizerOfFolder(folder.path());
  epic::OpenAndUseModel(folder.path());
  return 0;
}
