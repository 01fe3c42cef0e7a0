// What the fuzzers share: an input becomes files in a folder, and a model that opens is used like a real one.
//
// An input is either one file, or several, each behind a line "=== EPIC FILE name ===". Everything lives in one folder
// of the process, in memory where /dev/shm is there. Not thread-safe.
#ifndef EPIC_TESTS_FUZZ_FUZZ_SUPPORT_H_
#define EPIC_TESTS_FUZZ_FUZZ_SUPPORT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/text/tokenizer_spec.h"

namespace epic {

class FuzzFolder {
 public:
  // Writes the files of `input`. What stands before the first such line, or all where there is none, is the file
  // `default_name`. Names that would leave the folder, and files beyond the eighth, are left out.
  FuzzFolder(const uint8_t* data, size_t size, const std::string& default_name);
  ~FuzzFolder();  // deletes the files
  FuzzFolder(const FuzzFolder&) = delete;
  FuzzFolder& operator=(const FuzzFolder&) = delete;

  const std::string& path() const { return path_; }
  // Paths of the files, in the input's order.
  const std::vector<std::string>& files() const { return files_; }

 private:
  void Write(const std::string& name, const char* data, size_t size);

  std::string path_;
  std::vector<std::string> files_;
};

// Opens the model there. Aborts where an error has no message or an unexpected code, or where a model that came out
// breaks a promise of its interface; reads rows of every tensor, takes the fingerprint, encodes and decodes text and
// lays out a conversation.
void OpenAndUseModel(const std::string& path);

// Reads tokenizer.json and what lies beside it there as if a model of many tokens had been opened, and encodes with it.
void UseTokenizerOfFolder(const std::string& folder);

// Recognises the spec's template and lays out conversations with it.
void UseChatTemplate(const TokenizerSpec& spec);

// Aborts with `what` on standard error where `holds` is false.
void Require(bool holds, const std::string& what);

}  // namespace epic

#endif  // EPIC_TESTS_FUZZ_FUZZ_SUPPORT_H_
