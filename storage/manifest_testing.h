// For tests only: fresh folders, and records whose contents follow from a number.
#ifndef EPIC_STORAGE_MANIFEST_TESTING_H_
#define EPIC_STORAGE_MANIFEST_TESTING_H_

#include <stdlib.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "core/manifest_records.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

namespace epic {

// Removed with everything in it at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = testing::TempDir() + "/epic-manifest-XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::string TestFingerprint() { return std::string(64, 'a'); }

inline DocumentRecord TestDocument(int number) {
  DocumentRecord document;
  document.tenant = "acme";
  document.id = fmt::format("document-{:05}", number);
  for (int i = 0; i < 50 + number % 50; ++i) document.text += fmt::format("Sentence {} of document {}. ", i, number);
  document.labels = {{"number", std::to_string(number)}};
  document.created_unix_ms = 1'700'000'000'000 + number;
  return document;
}

inline ChunkListRecord TestChunkList(int number, const std::string& recipe_id = "plain") {
  ChunkListRecord chunks;
  chunks.model_fingerprint_hex = TestFingerprint();
  chunks.recipe.id = recipe_id;
  chunks.token_ids = {number, number + 1, number + 2};
  chunks.spans = {{0, 2}, {2, 3}};
  chunks.keys.resize(2);
  chunks.keys[0].bytes.fill(static_cast<uint8_t>(number));
  chunks.keys[1].bytes.fill(static_cast<uint8_t>(number + 1));
  return chunks;
}

}  // namespace epic

#endif  // EPIC_STORAGE_MANIFEST_TESTING_H_
