// For tests only: fresh folders, and records whose contents follow from a number.
#ifndef EPIC_STORAGE_MANIFEST_TESTING_H_
#define EPIC_STORAGE_MANIFEST_TESTING_H_

#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/manifest_records.h"
#include "fmt/format.h"
#include "gtest/gtest.h"
#include "storage/manifest.h"

namespace epic {

// An empty folder, removed at the end with all that stands beside it under longer names, such as its copy.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = testing::TempDir() + "/epic-manifest-XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    path_ = root_ + "/manifest";
    std::filesystem::create_directory(path_);
  }
  ~TemporaryFolder() {
    std::error_code error;
    std::filesystem::remove_all(root_, error);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string copy_path() const { return path_ + "-copy"; }

 private:
  std::string root_;
  std::string path_;
};

// Puts all that stands in the folder and beside it in the place of what is there in another one.
inline void CopyAll(const TemporaryFolder& from, const TemporaryFolder& to) {
  namespace fs = std::filesystem;
  const fs::path target = fs::path(to.path()).parent_path();
  for (const auto& entry : fs::directory_iterator(target)) fs::remove_all(entry.path());
  fs::copy(fs::path(from.path()).parent_path(), target, fs::copy_options::recursive);
}

// Opens it with the defaults, adding each warning to `warnings`.
inline absl::StatusOr<std::unique_ptr<Manifest>> OpenWithWarnings(const std::string& folder,
                                                                  std::vector<std::string>* warnings) {
  ManifestOptions options;
  options.folder = folder;
  options.warn = [warnings](const std::string& line) { warnings->push_back(line); };
  return Manifest::Open(std::move(options));
}

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
