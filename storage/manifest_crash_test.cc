// kill -9 at random moments: what was acknowledged is there, what was not is there wholly or not at all.
//
// The test starts its own program again as a child that writes to the manifest and says on a pipe what it is about to
// do and what was acknowledged. The parent kills it and compares the folder with what it has read.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/killed_child_testing.h"
#include "storage/manifest.h"
#include "storage/manifest_testing.h"

namespace epic {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

constexpr int kRounds = 20;

constexpr int kWriters = 4;

// One line, so that those of several writers do not mix: shorter than a pipe takes in one piece.
void Writes(Manifest* manifest, int first_number) {
  for (int number = first_number;; number += kWriters) {
    const ChunkListRecord chunks = TestChunkList(number);
    const std::string id = TestDocument(number).id;
    ReportToParent(fmt::format("put {}\n", number));
    ASSERT_TRUE(manifest->PutDocument(TestDocument(number), &chunks).value());
    ReportToParent(fmt::format("acknowledged-put {}\n", number));
    if (number % 5 == 0) {
      ReportToParent(fmt::format("pin {}\n", number));
      ASSERT_TRUE(manifest->SetPinned("acme", id, true).ok());
      ReportToParent(fmt::format("acknowledged-pin {}\n", number));
    }
    if (number % 3 != 0) continue;
    ReportToParent(fmt::format("delete {}\n", number));
    ASSERT_TRUE(manifest->DeleteDocument("acme", id).ok());
    ReportToParent(fmt::format("acknowledged-delete {}\n", number));
  }
}

// The child: writers beside each other put documents, pin every fifth and delete every third one, until it is killed.
// Does nothing when run by hand.
TEST(ManifestCrashChild, DISABLED_WritesUntilKilled) {
  const char* const folder = std::getenv(kChildFolderVariable);
  if (folder == nullptr) GTEST_SKIP() << "started by ManifestCrashTest only";
  const std::unique_ptr<Manifest> manifest = Manifest::Open(folder).value();
  const int first_number = std::atoi(std::getenv(kChildFirstNumberVariable));
  std::vector<std::thread> writers;
  for (int i = 0; i < kWriters; ++i) writers.emplace_back(Writes, manifest.get(), first_number + i);
  for (std::thread& writer : writers) writer.join();
}

enum class Expected { kPresent, kAbsent, kEither };

struct Expectation {
  Expected document = Expected::kEither;
  Expected pin = Expected::kAbsent;
};

void Note(const std::string& report, std::map<int, Expectation>* expected) {
  std::istringstream lines(report);
  std::string what;
  int number = 0;
  while (lines >> what >> number) {
    Expectation& expectation = (*expected)[number];
    if (what == "put" || what == "delete") expectation.document = Expected::kEither;
    if (what == "acknowledged-put") expectation.document = Expected::kPresent;
    if (what == "acknowledged-delete") expectation.document = Expected::kAbsent;
    if (what == "pin") expectation.pin = Expected::kEither;
    if (what == "acknowledged-pin") expectation.pin = Expected::kPresent;
  }
}

void Settle(bool is_there, const std::string& what, Expected* expected) {
  EXPECT_TRUE(*expected == Expected::kEither || is_there == (*expected == Expected::kPresent)) << what;
  *expected = is_there ? Expected::kPresent : Expected::kAbsent;
}

// Compares what is there with what must be, and expects the same from now on.
void CheckAndSettle(const Manifest& manifest, std::map<int, Expectation>* expected) {
  int64_t present = 0;
  for (auto& [number, expectation] : *expected) {
    const std::string what = fmt::format("document {}", number);
    const std::string id = TestDocument(number).id;
    const absl::StatusOr<DocumentRecord> document = manifest.GetDocument("acme", id);
    ASSERT_TRUE(document.ok() || absl::IsNotFound(document.status())) << document.status();
    ASSERT_EQ(document.ok(), manifest.GetChunkList("acme", id, TestFingerprint(), "plain").ok())
        << "half of a batch: " << what;
    Settle(document.ok(), what, &expectation.document);
    if (!document.ok()) {
      EXPECT_TRUE(absl::IsNotFound(manifest.IsPinned("acme", id).status())) << what;
      continue;
    }
    ASSERT_EQ(*document, TestDocument(number));
    Settle(manifest.IsPinned("acme", id).value(), "the pin of " + what, &expectation.pin);
    ++present;
  }
  EXPECT_EQ(manifest.CountDocuments().value(), present);
}

TEST(ManifestCrashTest, WhatWasAcknowledgedSurvivesKill) {
  const TemporaryFolder folder;
  std::mt19937 random(11);
  std::map<int, Expectation> expected;
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE(fmt::format("round {}", round));
    const int first_number = expected.empty() ? 1 : expected.rbegin()->first + 1;
    Note(RunAndKillChild("ManifestCrashChild.*", folder.path(), first_number, 1 + static_cast<int>(random() % 120)),
         &expected);
    if (round % 5 < 2) {
      // Either copy alone holds all of it.
      const TemporaryFolder half;
      CopyAll(folder, half);
      std::filesystem::remove_all(round % 5 == 0 ? half.path() : half.copy_path());
      const absl::StatusOr<std::unique_ptr<Manifest>> manifest = Manifest::Open(half.path());
      ASSERT_TRUE(manifest.ok()) << manifest.status();
      std::map<int, Expectation> expected_of_half = expected;
      CheckAndSettle(**manifest, &expected_of_half);
    }
    std::vector<std::string> warnings;
    const absl::StatusOr<std::unique_ptr<Manifest>> manifest = OpenWithWarnings(folder.path(), &warnings);
    ASSERT_TRUE(manifest.ok()) << manifest.status();
    EXPECT_THAT(warnings, Each(HasSubstr("it got the later ones"))) << "a crash is no damage";
    CheckAndSettle(**manifest, &expected);
  }
  EXPECT_GT(expected.size(), size_t{kRounds});
}

}  // namespace
}  // namespace epic
