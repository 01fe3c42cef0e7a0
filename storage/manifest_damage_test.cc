// Damage to the manifest's files. In one copy: everything acknowledged is there, and a warning names the file. In both:
// an error that names it. Never a document that is missing in silence.
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "rocksdb/db.h"
#include "storage/manifest.h"
#include "storage/manifest_testing.h"
#include "storage/sequence_file.h"

namespace epic {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr int kDocuments = 60;
constexpr char kPinned[] = "document-00007";

using Damage = std::function<void(const fs::path&)>;

void FlipBit(const fs::path& path, uintmax_t offset, int bit) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(offset));
  char byte = 0;
  file.get(byte);
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(static_cast<char>(byte ^ (1 << bit)));
}

struct Outcome {
  absl::Status status;
  std::vector<std::string> warnings;
};

class ManifestDamageTest : public testing::Test {
 protected:
  // Half of the documents lie in a sorted table, the others in the write-ahead log.
  ManifestDamageTest() {
    for (int i = 0; i < kDocuments; i += kDocuments / 2) {
      const std::unique_ptr<Manifest> manifest = Manifest::Open(intact_.path()).value();
      for (int j = i; j < i + kDocuments / 2; ++j) EXPECT_TRUE(manifest->PutDocument(TestDocument(j), nullptr).value());
      EXPECT_TRUE(manifest->SetPinned("acme", kPinned, true).ok());
    }
  }

  // The files that count, of one kind. Those of the copy have the same names.
  std::vector<std::string> Files(const std::string& kind) const {
    std::vector<std::string> files;
    for (const auto& entry : fs::directory_iterator(intact_.path())) {
      const std::string name = entry.path().filename();
      const bool is_log = name.ends_with(".log") && entry.file_size() > 0;
      if (name.find(kind) != std::string::npos && (is_log || kind != ".log") &&
          fs::exists(fs::path(intact_.copy_path()) / name)) {
        files.push_back(name);
      }
    }
    EXPECT_THAT(files, Not(IsEmpty())) << kind;
    return files;
  }

  enum class In { kPrimary, kCopy, kBoth };

  // Damages a file, opens what is left, and reads everything.
  Outcome OpenDamaged(In where, const std::string& name, const Damage& damage) {
    const TemporaryFolder folder;
    CopyAll(intact_, folder);
    if (where != In::kCopy) damage(fs::path(folder.path()) / name);
    if (where != In::kPrimary) damage(fs::path(folder.copy_path()) / name);
    Outcome outcome;
    const absl::StatusOr<std::unique_ptr<Manifest>> manifest = OpenWithWarnings(folder.path(), &outcome.warnings);
    outcome.status = manifest.status();
    if (!manifest.ok()) {
      // Trying again makes it no better and deletes nothing.
      EXPECT_EQ(Manifest::Open(folder.path()).status(), outcome.status);
      return outcome;
    }
    for (int i = 0; i < kDocuments; ++i) {
      const absl::StatusOr<DocumentRecord> document = (*manifest)->GetDocument("acme", TestDocument(i).id);
      EXPECT_TRUE(document.ok() && *document == TestDocument(i)) << document.status();
    }
    EXPECT_TRUE((*manifest)->IsPinned("acme", kPinned).value());
    EXPECT_EQ((*manifest)->CountDocuments().value(), kDocuments);
    EXPECT_EQ((*manifest)->counters().reads_from_copy_total, 0) << "it was not repaired at the opening";
    if (!outcome.warnings.empty() && outcome.warnings.front().find("kept as") != std::string::npos) {
      const std::string damaged = where == In::kPrimary ? folder.path() : folder.copy_path();
      EXPECT_TRUE(fs::exists(damaged + ".damaged"));
      EXPECT_FALSE(fs::exists(damaged + ".new"));
    }
    return outcome;
  }

  // In one copy, each time the other one: repaired, with a warning that names the file. False where it did no harm.
  bool DamageOneCopy(const std::string& name, const Damage& damage, const std::string& named) {
    const Outcome outcome = OpenDamaged(damages_++ % 2 == 0 ? In::kPrimary : In::kCopy, name, damage);
    EXPECT_TRUE(outcome.status.ok()) << name << ": " << outcome.status;
    EXPECT_THAT(outcome.warnings, AnyOf(IsEmpty(), Contains(HasSubstr(named))));
    return !outcome.warnings.empty();
  }
  bool DamageOneCopy(const std::string& name, const Damage& damage) { return DamageOneCopy(name, damage, name); }

  // In both: refused naming the file, or harmless.
  void DamageBothCopies(const std::string& name, const Damage& damage) { DamageBothCopies(name, damage, name); }
  void DamageBothCopies(const std::string& name, const Damage& damage, const std::string& named) {
    const Outcome outcome = OpenDamaged(In::kBoth, name, damage);
    if (outcome.status.ok()) return;
    EXPECT_EQ(outcome.status.code(), absl::StatusCode::kDataLoss) << name << ": " << outcome.status;
    EXPECT_THAT(std::string(outcome.status.message()), HasSubstr("copy/" + named));
    EXPECT_THAT(std::string(outcome.status.message()), HasSubstr("manifest/" + named));
  }

  const TemporaryFolder intact_;
  int damages_ = 0;
};

TEST_F(ManifestDamageTest, IntactCopiesOpenWithoutAWarning) {
  const Outcome outcome = OpenDamaged(In::kBoth, "CURRENT", [](const fs::path&) {});
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_THAT(outcome.warnings, IsEmpty());
}

class ManifestBitFlipTest : public ManifestDamageTest, public testing::WithParamInterface<std::string> {};

// Bits in each quarter of each file, and near its end, where tables keep their index and their footer.
TEST_P(ManifestBitFlipTest, IsRepairedOrRefused) {
  std::mt19937 random(5);
  int noticed = 0;
  int tried = 0;
  for (const std::string& name : Files(GetParam())) {
    const uintmax_t bytes = fs::file_size(fs::path(intact_.path()) / name);
    std::vector<uintmax_t> offsets = {0, bytes - 1};
    for (uintmax_t region = 0; region < 4; ++region) offsets.push_back((region * bytes + random() % bytes) / 4);
    if (bytes > 2000) offsets.insert(offsets.end(), {bytes - 40, bytes - 150, bytes - 900});
    for (const uintmax_t offset : offsets) {
      const int bit = static_cast<int>(random() % 8);
      SCOPED_TRACE(fmt::format("bit {} of byte {} of {} in {}", bit, offset, bytes, name));
      const Damage flip = [&](const fs::path& path) { FlipBit(path, offset, bit); };
      noticed += DamageOneCopy(name, flip);
      DamageBothCopies(name, flip);
      ++tried;
    }
  }
  // What was not noticed did no harm: padding, and old tables' properties.
  EXPECT_GT(noticed * 3, tried * 2);
}

INSTANTIATE_TEST_SUITE_P(Files, ManifestBitFlipTest,
                         testing::Values(".sst", ".log", "MANIFEST-", "CURRENT", kSequenceFileName));

TEST_F(ManifestDamageTest, FilesThatEndEarlyAreRepairedOrRefused) {
  std::mt19937 random(6);
  for (const std::string kind : {".sst", ".log", "MANIFEST-", "CURRENT", kSequenceFileName}) {
    for (const std::string& name : Files(kind)) {
      const uintmax_t bytes = fs::file_size(fs::path(intact_.path()) / name);
      for (const uintmax_t kept : {uintmax_t{0}, bytes - 1, random() % bytes}) {
        SCOPED_TRACE(fmt::format("{} cut to {} of {}", name, kept, bytes));
        const Damage cut = [&](const fs::path& path) { fs::resize_file(path, kept); };
        const bool noticed = DamageOneCopy(name, cut);
        DamageBothCopies(name, cut);
        // The last record of RocksDB's own MANIFEST may say nothing about documents.
        EXPECT_TRUE(noticed || kind == "MANIFEST-");
      }
    }
  }
}

TEST_F(ManifestDamageTest, FilesThatAreGoneAreRepairedOrRefused) {
  for (const std::string kind : {".sst", ".log", "MANIFEST-", "CURRENT"}) {
    for (const std::string& name : Files(kind)) {
      SCOPED_TRACE(name);
      const Damage remove = [](const fs::path& path) { fs::remove(path); };
      // Nothing says what a log that is gone was called.
      const std::string named = kind == ".log" ? "*.log" : name;
      EXPECT_TRUE(DamageOneCopy(name, remove, named));
      DamageBothCopies(name, remove, named);
      EXPECT_FALSE(OpenDamaged(In::kBoth, name, remove).status.ok());
    }
  }
}

TEST_F(ManifestDamageTest, AFolderThatIsGoneIsMadeFromTheOther) {
  for (const In where : {In::kPrimary, In::kCopy}) {
    const Outcome outcome = OpenDamaged(where, ".", [](const fs::path& path) { fs::remove_all(path.parent_path()); });
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_THAT(outcome.warnings, Contains(HasSubstr("there was no copy of the manifest in")));
  }
}

// An old copy of all files is sound in itself: only the other copy knows better.
TEST_F(ManifestDamageTest, OldCopiesOfTheFilesAreReplaced) {
  const TemporaryFolder folder;
  CopyAll(intact_, folder);
  for (int round = 0; round < 2; ++round) {
    const std::unique_ptr<Manifest> manifest = Manifest::Open(folder.path()).value();
    ASSERT_TRUE(manifest->PutDocument(TestDocument(1000 + round), nullptr).ok());
  }
  fs::remove_all(folder.path());
  fs::copy(intact_.path(), folder.path());
  std::vector<std::string> warnings;
  EXPECT_TRUE(OpenWithWarnings(folder.path(), &warnings).value()->GetDocument("acme", TestDocument(1001).id).ok());
  EXPECT_THAT(warnings, Contains(AnyOf(HasSubstr("was behind that in"), HasSubstr("it got the later ones"))));
}

TEST_F(ManifestDamageTest, ATableOfAnotherTimeIsNoticedByCountAndDigest) {
  // RocksDB opens it: what is missing was never in its files.
  const TemporaryFolder folder;
  CopyAll(intact_, folder);
  {
    rocksdb::DB* database = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open({}, folder.path(), &database).ok());
    rocksdb::WriteBatch batch;
    std::unique_ptr<rocksdb::Iterator> iterator(database->NewIterator({}));
    iterator->Seek("D");
    batch.Delete(iterator->key());
    iterator.reset();
    ASSERT_TRUE(database->Write({}, &batch).ok());
    delete database;
  }
  std::vector<std::string> warnings;
  EXPECT_TRUE(OpenWithWarnings(folder.path(), &warnings).value()->GetDocument("acme", TestDocument(0).id).ok());
  EXPECT_THAT(warnings, Contains(HasSubstr("records where")));
}

TEST_F(ManifestDamageTest, DamageWhileOpenIsAnsweredFromTheCopyAndRepairedLater) {
  const TemporaryFolder folder;
  CopyAll(intact_, folder);
  std::vector<std::string> warnings;
  {
    const std::unique_ptr<Manifest> manifest = OpenWithWarnings(folder.path(), &warnings).value();
    for (const auto& entry : fs::directory_iterator(folder.path())) {
      if (entry.path().extension() != ".sst") continue;
      // All of the data, and neither index nor footer, which are in memory.
      for (uintmax_t i = 0; i < entry.file_size() / 2; i += 100) FlipBit(entry.path(), i, 3);
    }
    for (int i = 0; i < kDocuments; ++i) {
      EXPECT_EQ(manifest->GetDocument("acme", TestDocument(i).id).value(), TestDocument(i));
    }
    const auto listed = manifest->ListDocuments("acme", "", kDocuments).value();
    ASSERT_EQ(listed.size(), size_t{kDocuments});
    for (int i = 0; i < kDocuments; ++i) EXPECT_EQ(listed[i], TestDocument(i));
    EXPECT_GT(manifest->counters().reads_from_copy_total, 0);
    EXPECT_EQ(manifest->counters().reads_from_copy_total, static_cast<int64_t>(warnings.size()));
    EXPECT_THAT(warnings, Each(HasSubstr("was read from the copy in " + folder.copy_path())));
    EXPECT_THAT(warnings, Each(HasSubstr(".sst")));
  }
  warnings.clear();
  EXPECT_EQ(OpenWithWarnings(folder.path(), &warnings).value()->counters().repairs_at_open_total, 1);
  EXPECT_THAT(warnings, Contains(HasSubstr(".sst")));
}

}  // namespace
}  // namespace epic
