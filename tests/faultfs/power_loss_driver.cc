// What power_loss_test.py kills and looks at afterwards: changes to durable things, each reported when it begins and
// when it was acknowledged.
//
//   power_loss_driver write FOLDER THREADS SEED   changes until it is killed; a line for each event
//   power_loss_driver look FOLDER                 reads keys, a line `PART KEY` each, answers `PART KEY STATE`; then
//                                                 `PART total NUMBER` for each part
//
// Events are `begin PART KEY STATE` and `done PART KEY STATE`: the key goes into the state, and has gone into it. A
// part is a thing that has promised to be durable. To test another, derive from Part and add it in OpenParts.
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "core/sync.h"
#include "fmt/format.h"
#include "storage/disk_tier.h"
#include "storage/disk_tier_testing.h"
#include "storage/manifest.h"
#include "storage/scratch_block.h"

namespace epic {
namespace {

using Random = std::mt19937_64;

[[noreturn]] void Fail(const std::string& message) {
  std::cerr << message << std::endl;
  std::_Exit(1);
}

void Report(const char* event, const std::string& part, const std::string& key, const std::string& state) {
  const std::string line = fmt::format("{} {} {} {}\n", event, part, key, state);
  if (write(STDOUT_FILENO, line.data(), line.size()) != static_cast<ssize_t>(line.size())) std::_Exit(0);
}

// Thread-safe. A key is changed by one thread at a time.
class Part {
 public:
  explicit Part(std::string name) : name_(std::move(name)) {}
  virtual ~Part() = default;
  const std::string& name() const { return name_; }
  // One change, reported.
  virtual void Change(Random& random) = 0;
  virtual std::string StateOf(const std::string& key) = 0;
  // How many keys are there, in whatever state but `absent`.
  virtual int64_t Total() = 0;
  // Ends the process where something is there that must not be.
  virtual void Check() {}

 private:
  const std::string name_;
};

// Documents with their chunk list: `present` or `pinned`, with every byte as it was written, or `absent`.
class Documents : public Part {
 public:
  explicit Documents(std::shared_ptr<Manifest> manifest) : Part("document"), manifest_(std::move(manifest)) {
    std::string after;
    while (true) {
      const auto page = manifest_->ListDocuments(kTenant, after, 100);
      if (!page.ok()) Fail(page.status().ToString());
      if (page->empty()) break;
      for (const DocumentRecord& document : *page) present_.push_back(NumberOf(document.id));
      after = page->back().id;
    }
    if (!present_.empty()) next_number_ = present_.back() + 1;
  }

  void Change(Random& random) override {
    if (const uint64_t kind = random() % 6; kind < 2) {
      if (const int64_t number = TakePresent(random); number >= 0) Delete(number);
    } else if (kind == 2) {
      if (const int64_t number = TakePresent(random); number >= 0) Pin(number, random() % 3 != 0);
    } else {
      Put(NextNumber());
    }
  }

  std::string StateOf(const std::string& key) override {
    const int64_t number = NumberOf(key);
    const auto document = manifest_->GetDocument(kTenant, key);
    const auto chunks = manifest_->GetChunkList(kTenant, key, Chunks(number).model_fingerprint_hex, kPlainRecipeId);
    if (absl::IsNotFound(document.status()) && absl::IsNotFound(chunks.status())) return "absent";
    if (!document.ok() || !chunks.ok())
      return fmt::format("half: {}; {}", document.status().ToString(), chunks.status().ToString());
    const bool same =
        *document == Record(number) && EncodeChunkListRecord(*chunks) == EncodeChunkListRecord(Chunks(number));
    if (!same) return "other than written";
    return manifest_->IsPinned(kTenant, key).value() ? "pinned" : "present";
  }

  int64_t Total() override { return manifest_->CountDocuments().value(); }

 private:
  static constexpr char kTenant[] = "acme";
  static std::string KeyOf(int64_t number) { return fmt::format("{:09}", number); }
  static int64_t NumberOf(const std::string& key) { return std::atoll(key.c_str()); }

  // What a number stands for is the same in every process. Some are so large that the write buffer fills up.
  static DocumentRecord Record(int64_t number) {
    DocumentRecord document;
    document.tenant = kTenant;
    document.id = KeyOf(number);
    const int sentences = number % 50 == 7 ? 30000 : 10 + static_cast<int>(number % 200);
    for (int i = 0; i < sentences; ++i) document.text += fmt::format("Sentence {} of document {}. ", i, number);
    document.created_unix_ms = 1'700'000'000'000 + number;
    return document;
  }

  static ChunkListRecord Chunks(int64_t number) {
    ChunkListRecord chunks;
    chunks.model_fingerprint_hex = std::string(64, 'a');
    chunks.recipe.id = kPlainRecipeId;
    chunks.token_ids = {static_cast<int32_t>(number), 1, 2};
    chunks.spans = {{0, 2}, {2, 3}};
    chunks.keys.resize(2);
    chunks.keys[0].bytes.fill(static_cast<uint8_t>(number));
    chunks.keys[1].bytes.fill(static_cast<uint8_t>(number + 1));
    return chunks;
  }

  int64_t NextNumber() {
    const MutexLock lock(mutex_);
    return next_number_++;
  }

  // A document that nobody else will choose; negative where there is none.
  int64_t TakePresent(Random& random) {
    const MutexLock lock(mutex_);
    if (present_.empty()) return -1;
    std::swap(present_[random() % present_.size()], present_.back());
    const int64_t number = present_.back();
    present_.pop_back();
    return number;
  }

  void Put(int64_t number) {
    Report("begin", name(), KeyOf(number), "present");
    const ChunkListRecord chunks = Chunks(number);
    const absl::StatusOr<bool> put = manifest_->PutDocument(Record(number), &chunks);
    if (!put.ok()) Fail(put.status().ToString());
    Report("done", name(), KeyOf(number), "present");
    const MutexLock lock(mutex_);
    present_.push_back(number);
  }

  void Pin(int64_t number, bool pinned) {
    const char* const state = pinned ? "pinned" : "present";
    Report("begin", name(), KeyOf(number), state);
    const absl::Status set = manifest_->SetPinned(kTenant, KeyOf(number), pinned);
    if (!set.ok()) Fail(set.ToString());
    Report("done", name(), KeyOf(number), state);
    const MutexLock lock(mutex_);
    present_.push_back(number);
  }

  void Delete(int64_t number) {
    Report("begin", name(), KeyOf(number), "absent");
    const absl::Status deleted = manifest_->DeleteDocument(kTenant, KeyOf(number));
    if (!deleted.ok()) Fail(deleted.ToString());
    Report("done", name(), KeyOf(number), "absent");
  }

  const std::shared_ptr<Manifest> manifest_;
  Mutex mutex_;
  int64_t next_number_ EPIC_GUARDED_BY(mutex_) = 0;
  std::vector<int64_t> present_ EPIC_GUARDED_BY(mutex_);
};

// Blocks of the disk tier, which promises nothing after power loss but this: what it gives is what was written.
class Blocks : public Part {
 public:
  explicit Blocks(std::unique_ptr<DiskTier> disk) : Part("block"), disk_(std::move(disk)) {}

  void Change(Random& random) override {
    const TestBlock block = BlockOf(static_cast<int>(random() % kBlocks));
    if (random() % 4 == 0) {
      disk_->Drop(block.key());
    } else if (const absl::Status written = disk_->Write(block.view(), 1).status(); !written.ok()) {
      Fail(written.ToString());
    }
  }
  std::string StateOf(const std::string& /*key*/) override { return "absent"; }
  int64_t Total() override { return 0; }

  void Check() override {
    for (int number = 0; number < kBlocks; ++number) {
      const TestBlock block = BlockOf(number);
      const std::optional<BlockTier::Entry> entry = disk_->Find(block.key());
      if (!entry) continue;
      ScratchBlock read(entry->block_bytes);
      // An entry that is not sound is found out, and gone.
      if (!disk_->Read(block.key(), read.padded_bytes()).ok()) continue;
      if (!std::equal(read.bytes().begin(), read.bytes().end(), block.bytes().begin(), block.bytes().end())) {
        Fail(fmt::format("block {} is other than written", number));
      }
    }
  }

 private:
  static constexpr int kBlocks = 150;
  // Of many sizes, so that ranges are cut and joined.
  static TestBlock BlockOf(int number) { return TestBlock(number, 1 + number % 7, 32 + 32 * (number % 5)); }

  const std::unique_ptr<DiskTier> disk_;
};

using Parts = std::vector<std::unique_ptr<Part>>;

Parts OpenParts(const std::string& folder) {
  absl::StatusOr<std::unique_ptr<Manifest>> manifest = Manifest::Open(folder + "/manifest");
  if (!manifest.ok()) Fail(manifest.status().ToString());
  Parts parts;
  parts.push_back(std::make_unique<Documents>(*std::move(manifest)));
  // Less than all blocks take, so that some are evicted.
  DiskTierOptions options;
  options.folder = folder + "/blocks";
  options.capacity_bytes = size_t{5} << 20;
  options.segment_bytes = size_t{1} << 20;
  options.free_bytes_min = 0;
  auto disk = DiskTier::Open(options, std::make_unique<TestLruPolicy>());
  if (!disk.ok()) Fail(disk.status().ToString());
  parts.push_back(std::make_unique<Blocks>(*std::move(disk)));
  return parts;
}

[[noreturn]] void WriteUntilKilled(const Parts& parts, int thread_count, uint64_t seed) {
  const auto change = [&](int thread) {
    Random random(seed * 1000 + static_cast<uint64_t>(thread));
    while (true) parts[random() % parts.size()]->Change(random);
  };
  std::vector<std::thread> threads;
  for (int thread = 0; thread < thread_count; ++thread) threads.emplace_back(change, thread);
  for (std::thread& thread : threads) thread.join();
  std::abort();  // not reached
}

void Look(const Parts& parts) {
  std::map<std::string, Part*> by_name;
  for (const auto& part : parts) by_name[part->name()] = part.get();
  std::string name;
  std::string key;
  while (std::cin >> name >> key) std::cout << fmt::format("{} {} {}\n", name, key, by_name.at(name)->StateOf(key));
  for (const auto& part : parts) {
    part->Check();
    std::cout << fmt::format("{} total {}\n", part->name(), part->Total());
  }
}

}  // namespace
}  // namespace epic

int main(int argc, char** argv) {
  // Standard output is for what was done and found.
  spdlog::set_default_logger(spdlog::stderr_logger_mt("power_loss_driver"));
  const std::string mode = argc > 2 ? argv[1] : "";
  if (mode == "write" && argc == 5) {
    epic::WriteUntilKilled(epic::OpenParts(argv[2]), std::atoi(argv[3]), std::strtoull(argv[4], nullptr, 10));
  } else if (mode == "look" && argc == 3) {
    epic::Look(epic::OpenParts(argv[2]));
  } else {
    std::cerr << "power_loss_driver write FOLDER THREADS SEED | look FOLDER" << std::endl;
    return 2;
  }
}
