// Damage to the manifest's files: an error, or everything is there. Never a document that is missing in silence.
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/manifest.h"
#include "storage/manifest_testing.h"
#include "storage/sequence_file.h"

namespace epic {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr int kDocuments = 60;

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void WriteFile(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

class ManifestDamageTest : public testing::Test {
 protected:
  // Half of the documents lie in a sorted table, the others in the write-ahead log.
  ManifestDamageTest() {
    for (int i = 0; i < kDocuments; i += kDocuments / 2) {
      const std::unique_ptr<Manifest> manifest = Manifest::Open(intact_.path()).value();
      for (int j = i; j < i + kDocuments / 2; ++j) EXPECT_TRUE(manifest->PutDocument(TestDocument(j), nullptr).value());
    }
    for (const auto& entry : fs::directory_iterator(intact_.path())) {
      const std::string name = entry.path().filename();
      if (name == "CURRENT" || name == kSequenceFileName || name.starts_with("MANIFEST-") || name.ends_with(".sst") ||
          (name.ends_with(".log") && entry.file_size() > 0)) {
        files_.push_back(name);
      }
    }
  }

  // Opens a copy of the folder in which `damage(path)` was done to one file, and reads everything.
  template <typename Damage>
  absl::Status OpenDamaged(const std::string& name, Damage&& damage) {
    const TemporaryFolder copy;
    fs::copy(intact_.path(), copy.path(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
    damage(fs::path(copy.path()) / name);
    const absl::StatusOr<std::unique_ptr<Manifest>> manifest = Manifest::Open(copy.path());
    if (!manifest.ok()) {
      EXPECT_THAT(std::string(manifest.status().message()), HasSubstr(copy.path()));
      // Trying again makes it no better and deletes nothing.
      EXPECT_EQ(Manifest::Open(copy.path()).status().code(), manifest.status().code());
      return manifest.status();
    }
    absl::Status first_error;
    for (int i = 0; i < kDocuments; ++i) {
      const absl::StatusOr<DocumentRecord> document = (*manifest)->GetDocument("acme", TestDocument(i).id);
      if (document.ok()) {
        EXPECT_EQ(*document, TestDocument(i));
      } else {
        EXPECT_NE(document.status().code(), absl::StatusCode::kNotFound) << "document " << i << " is gone in silence";
        first_error.Update(document.status());
      }
    }
    return first_error;
  }

  const TemporaryFolder intact_;
  std::vector<std::string> files_;
};

TEST_F(ManifestDamageTest, AnIntactCopyOpens) {
  ASSERT_GE(files_.size(), 5u);
  EXPECT_TRUE(OpenDamaged("CURRENT", [](const fs::path&) {}).ok());
}

TEST_F(ManifestDamageTest, FlippedBitsAreNeverASilentLoss) {
  std::mt19937 random(5);
  for (const std::string& name : files_) {
    int errors = 0;
    for (int round = 0; round < 12; ++round) {
      const absl::Status status = OpenDamaged(name, [&](const fs::path& path) {
        std::string bytes = ReadFile(path);
        bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
        WriteFile(path, bytes);
      });
      if (status.ok()) continue;
      ++errors;
      EXPECT_TRUE(status.code() == absl::StatusCode::kDataLoss ||
                  status.code() == absl::StatusCode::kFailedPrecondition)
          << name << ": " << status;
    }
    EXPECT_GT(errors, 0) << name;
  }
}

TEST_F(ManifestDamageTest, FilesThatEndEarlyAreDataLoss) {
  std::mt19937 random(6);
  for (const std::string& name : files_) {
    const uintmax_t bytes = fs::file_size(fs::path(intact_.path()) / name);
    for (const uintmax_t kept : {uintmax_t{0}, bytes / 2, bytes - 1, random() % bytes, random() % bytes}) {
      const absl::Status status = OpenDamaged(name, [&](const fs::path& path) { fs::resize_file(path, kept); });
      // The last record of RocksDB's own MANIFEST may say nothing about documents; then all of them are there.
      if (status.ok() && name.starts_with("MANIFEST-")) continue;
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << name << " cut to " << kept << " of " << bytes;
    }
  }
}

TEST_F(ManifestDamageTest, MissingFilesAreDataLoss) {
  for (const std::string& name : files_) {
    if (name == kSequenceFileName) continue;  // its absence is that of a guard, not of data
    EXPECT_EQ(OpenDamaged(name, [](const fs::path& path) { fs::remove(path); }).code(), absl::StatusCode::kDataLoss)
        << name;
  }
}

TEST_F(ManifestDamageTest, AnOlderCopyOfTheFilesIsDataLoss) {
  const TemporaryFolder old_copy;
  fs::copy(intact_.path(), old_copy.path(), fs::copy_options::recursive);
  {
    const std::unique_ptr<Manifest> manifest = Manifest::Open(intact_.path()).value();
    ASSERT_TRUE(manifest->PutDocument(TestDocument(1000), nullptr).ok());
  }
  fs::copy_file(fs::path(intact_.path()) / kSequenceFileName, fs::path(old_copy.path()) / kSequenceFileName,
                fs::copy_options::overwrite_existing);
  const absl::Status status = Manifest::Open(old_copy.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("had been stored"));
}

}  // namespace
}  // namespace epic
