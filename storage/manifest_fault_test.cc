// Disks that fail or are full, under one of the two copies: what was acknowledged stays, and nothing else is claimed.
#include <sys/mount.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/manifest.h"
#include "storage/manifest_fault_env.h"
#include "storage/manifest_testing.h"
#include "storage/manifest_verify.h"

namespace epic {
namespace {

namespace fs = std::filesystem;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class ManifestFaultTest : public testing::Test {
 protected:
  void Open() {
    manifest_.reset();
    manifest_ = OpenStatus().value();
  }
  absl::StatusOr<std::unique_ptr<Manifest>> OpenStatus() {
    ManifestOptions options = options_;
    options.folder = folder_.path();
    options.env = env_.get();
    options.warn = [this](const std::string& line) { warnings_.push_back(line); };
    return Manifest::Open(std::move(options));
  }
  absl::StatusOr<bool> Put(int number) { return manifest_->PutDocument(TestDocument(number), nullptr); }
  // From now on this operation fails on files below the folder whose names end so.
  void Fail(const std::string& operation, const std::string& folder, const std::string& suffix,
            const rocksdb::IOStatus& status) {
    system_->SetHook([=](const std::string& seen, const std::string& path) {
      const bool hit = seen == operation && path.starts_with(folder + "/") && path.ends_with(suffix);
      return hit ? status : rocksdb::IOStatus::OK();
    });
  }
  void ExpectSound() {
    ManifestReport report;
    EXPECT_TRUE(VerifyManifest(folder_.path(), "", &report).ok());
    EXPECT_THAT(report.faults, IsEmpty());
  }

  const TemporaryFolder folder_;
  const std::shared_ptr<FaultFileSystem> system_ = std::make_shared<FaultFileSystem>();
  const std::unique_ptr<rocksdb::Env> env_ = rocksdb::NewCompositeEnv(system_);
  ManifestOptions options_;
  std::vector<std::string> warnings_;
  std::unique_ptr<Manifest> manifest_;
};

struct WriteFault {
  bool in_copy;
  std::string operation;
  bool is_full;
};

class ManifestWriteFaultTest : public ManifestFaultTest, public testing::WithParamInterface<WriteFault> {};

TEST_P(ManifestWriteFaultTest, StopsTheChangesUntilTheNextOpening) {
  Open();
  ASSERT_TRUE(Put(1).value());
  ASSERT_TRUE(Put(2).value());
  const WriteFault& fault = GetParam();
  const absl::StatusCode code = fault.is_full ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kUnavailable;
  Fail(fault.operation, fault.in_copy ? folder_.copy_path() : folder_.path(), ".log",
       fault.is_full ? rocksdb::IOStatus::NoSpace("no room") : rocksdb::IOStatus::IOError("bad sector"));
  EXPECT_EQ(Put(3).status().code(), code);
  system_->SetHook({});
  // Also with a disk that is well again, and also for the document that may be half there.
  EXPECT_EQ(Put(3).status().code(), code);
  EXPECT_EQ(Put(1).status().code(), code);
  EXPECT_EQ(manifest_->PutChunkList("acme", TestDocument(1).id, TestChunkList(1)).code(), code);
  EXPECT_EQ(manifest_->SetPinned("acme", TestDocument(1).id, true).code(), code);
  EXPECT_EQ(manifest_->DeleteDocument("acme", TestDocument(1).id).code(), code);
  EXPECT_THAT(std::string(Put(4).status().message()), HasSubstr("takes no changes since one failed"));
  EXPECT_THAT(warnings_, Not(IsEmpty()));
  EXPECT_EQ(manifest_->GetDocument("acme", TestDocument(1).id).value(), TestDocument(1));
  Open();
  for (int number : {1, 2})
    EXPECT_EQ(manifest_->GetDocument("acme", TestDocument(number).id).value().id, TestDocument(number).id);
  EXPECT_EQ(manifest_->GetDocument("acme", TestDocument(4).id).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(Put(3).ok());
  EXPECT_TRUE(Put(4).value());
  manifest_.reset();
  ExpectSound();
}

INSTANTIATE_TEST_SUITE_P(Faults, ManifestWriteFaultTest,
                         testing::Values(WriteFault{true, "write", true}, WriteFault{true, "sync", false},
                                         WriteFault{false, "write", false}, WriteFault{false, "sync", true}));

TEST_F(ManifestFaultTest, WritersWhoWaitForAFailedOneAreRefusedToo) {
  Open();
  Fail("sync", folder_.copy_path(), ".log", rocksdb::IOStatus::IOError("bad sector"));
  std::atomic<int> refused{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] { refused += absl::IsUnavailable(Put(i).status()) ? 1 : 0; });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(refused, 8);
  EXPECT_EQ(warnings_.size(), 1u);
  system_->SetHook({});
  Open();
  manifest_.reset();
  ExpectSound();
}

TEST_F(ManifestFaultTest, ChangesThatComeTogetherShareASync) {
  Open();
  const int64_t before = manifest_->counters().changes_total;
  constexpr int kThreads = 16;
  constexpr int kDocuments = 10;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int j = 0; j < kDocuments; ++j) EXPECT_TRUE(Put(i * kDocuments + j).value());
    });
  }
  for (std::thread& thread : threads) thread.join();
  const ManifestCounters counters = manifest_->counters();
  EXPECT_EQ(counters.changes_total - before, kThreads * kDocuments);
  EXPECT_LT(counters.groups_total, counters.changes_total);
  manifest_.reset();
  ExpectSound();
  Open();
  EXPECT_EQ(manifest_->CountDocuments().value(), kThreads * kDocuments);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(ManifestFaultTest, ReadErrorsAreAnsweredFromTheCopyAndRepaired) {
  Open();
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(Put(i).value());
  Open();  // which writes what was in the log into a table
  Open();
  Fail("read", folder_.path(), ".sst", rocksdb::IOStatus::IOError("bad sector"));
  for (int i = 0; i < 20; ++i) EXPECT_EQ(manifest_->GetDocument("acme", TestDocument(i).id).value(), TestDocument(i));
  EXPECT_GT(manifest_->counters().reads_from_copy_total, 0);
  EXPECT_THAT(warnings_, Each(HasSubstr("was read from the copy")));
  EXPECT_TRUE(Put(20).value());
  manifest_.reset();
  // The first reads of the opening fail, and not those of what takes the folder's place.
  std::atomic<int> failures{2};
  system_->SetHook([&](const std::string& operation, const std::string& path) {
    const bool hit = operation == "read" && path.starts_with(folder_.path() + "/") && path.ends_with(".sst");
    return hit && failures-- > 0 ? rocksdb::IOStatus::IOError("bad sector") : rocksdb::IOStatus::OK();
  });
  Open();
  EXPECT_EQ(manifest_->counters().repairs_at_open_total, 1);
  system_->SetHook({});
  manifest_.reset();
  ExpectSound();
}

TEST_F(ManifestFaultTest, NothingNewIsTakenWhereOneOfTheDisksIsNearlyFull) {
  std::string tight;
  options_.free_bytes_min = 1000;
  options_.free_bytes = [&](const std::string& folder) -> absl::StatusOr<uint64_t> {
    return folder == tight ? 999 : 1000;
  };
  Open();
  ASSERT_TRUE(Put(1).value());
  for (const std::string& folder : {folder_.path(), folder_.copy_path()}) {
    tight = folder;
    const absl::Status refused = Put(2).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(refused.message()), HasSubstr(folder + " has 999 bytes free, expected at least 1000"));
    EXPECT_EQ(manifest_->PutChunkList("acme", TestDocument(1).id, TestChunkList(1)).code(),
              absl::StatusCode::kResourceExhausted);
    EXPECT_FALSE(Put(1).value()) << "what is there already needs no room";
    EXPECT_TRUE(manifest_->SetPinned("acme", TestDocument(1).id, true).ok());
    EXPECT_TRUE(manifest_->SetPinned("acme", TestDocument(1).id, false).ok());
  }
  EXPECT_TRUE(manifest_->DeleteDocument("acme", TestDocument(1).id).ok());
  tight.clear();
  EXPECT_TRUE(Put(2).value());
}

// A file system of a few megabytes in memory, where this process may mount one.
class SmallDisk {
 public:
  SmallDisk(const std::string& path, const std::string& size) : path_(path) {
    fs::create_directories(path);
    mounted_ = mount("tmpfs", path.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
    error_ = errno;
  }
  ~SmallDisk() {
    if (mounted_) umount2(path_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }
  std::string error() const { return std::strerror(error_); }

 private:
  const std::string path_;
  bool mounted_ = false;
  int error_ = 0;
};

class ManifestFullDiskTest : public ManifestFaultTest, public testing::WithParamInterface<bool> {
 protected:
  const std::string mount_path_ = (fs::path(folder_.path()).parent_path() / "disk").string();
  const SmallDisk disk_{mount_path_, "12m"};
};

// Fills the disk of one copy by registrations, without and with room kept for the rest.
TEST_P(ManifestFullDiskTest, NothingAcknowledgedIsLost) {
  if (!disk_.mounted()) GTEST_SKIP() << "cannot mount a tmpfs: " << disk_.error();
  const bool keeps_room = GetParam();
  options_.copy_folder = mount_path_ + "/copy";
  options_.free_bytes_min = keeps_room ? uint64_t{3} << 20 : 0;
  Open();
  DocumentRecord document = TestDocument(0);
  absl::Status status;
  std::vector<std::string> acknowledged;
  for (int i = 0; status.ok(); ++i) {
    ASSERT_LT(i, 1000);
    document.id = TestDocument(i).id;
    document.text.assign(200'000, static_cast<char>('a' + i % 26));
    status = manifest_->PutDocument(document, nullptr).status();
    if (status.ok()) acknowledged.push_back(document.id);
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(options_.copy_folder));
  ASSERT_GT(acknowledged.size(), 10u);
  if (keeps_room) {
    for (const std::string& id : acknowledged) EXPECT_TRUE(manifest_->SetPinned("acme", id, true).ok());
    EXPECT_TRUE(manifest_->DeleteDocument("acme", acknowledged.back()).ok());
    acknowledged.pop_back();
  } else {
    EXPECT_EQ(manifest_->SetPinned("acme", acknowledged[0], true).code(), absl::StatusCode::kResourceExhausted);
  }
  for (const std::string& id : acknowledged) EXPECT_TRUE(manifest_->GetDocument("acme", id).ok());
  manifest_.reset();
  // A user makes room.
  ASSERT_EQ(mount("tmpfs", mount_path_.c_str(), "tmpfs", MS_REMOUNT, "size=100m"), 0);
  Open();
  for (const std::string& id : acknowledged) EXPECT_EQ(manifest_->IsPinned("acme", id).value(), keeps_room);
  manifest_.reset();
  ManifestReport report;
  EXPECT_TRUE(VerifyManifest(folder_.path(), options_.copy_folder, &report).ok());
}

INSTANTIATE_TEST_SUITE_P(WithAndWithoutRoomKept, ManifestFullDiskTest, testing::Bool());

}  // namespace
}  // namespace epic
