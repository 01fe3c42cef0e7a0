// What the tiers of a cache node cost: a hit in memory with many readers, the disk tier beside plain files, bookkeeping
// in memory, hit ratios over shuffled queries, and how soon a node with 100,000 chunks on disk gives its first hit.
//
// Parts: hits, disk, memory, batches, restart. The disk part takes turns with plain files round by round and states
// ratios within a round; reads of both go past the page cache.
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "benchmarks/report.h"
#include "cache_node/cache_node.h"
#include "cache_node/fake_compiler.h"
#include "fmt/format.h"
#include "storage/disk_tier.h"
#include "storage/scratch_block.h"
#include "storage/tiered_store.h"
#include "transfer/synthetic_blocks.h"

namespace epic {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

// SmolLM2-135M's shape: a block of 512 tokens takes 11.8 MB.
constexpr KvShape kModelShape{.layers = 30, .kv_heads = 3, .head_dim = 64};
constexpr int32_t kChunkTokens = 512;
// A block that takes one page.
constexpr KvShape kPageShape{.layers = 1, .kv_heads = 1, .head_dim = 16};
constexpr int kReaders = 16;

struct Options {
  std::string parts = "hits,disk,memory,batches,restart";
  std::string folder = ".";
  uint64_t disk_bytes = uint64_t{2} << 30;
  int rounds = 5;
  bool quick = false;
  std::string format = "table";
  std::string save;
};

[[noreturn]] void Fail(const std::string& what, const absl::Status& status) {
  std::cerr << fmt::format("error: {}: {}\n", what, std::string(status.message()));
  std::exit(1);
}
void Require(const absl::Status& status, const char* what) {
  if (!status.ok()) Fail(what, status);
}
template <typename Value>
Value Require(absl::StatusOr<Value> value, const char* what) {
  if (!value.ok()) Fail(what, value.status());
  return *std::move(value);
}

double Seconds(steady_clock::time_point begun) {
  return std::chrono::duration<double>(steady_clock::now() - begun).count();
}

std::vector<int32_t> Tokens(int32_t number, int32_t count) {
  std::vector<int32_t> ids(static_cast<size_t>(count), 7);
  ids[0] = number % 4096;
  ids[1 % ids.size()] = number / 4096;
  return ids;
}
KvBlockInfo Info(const KvShape& shape, int32_t number, int32_t tokens) {
  return SyntheticBlockInfo(shape, Recipe{.id = kPlainRecipeId, .prefix_tokens = {}}, "default",
                            Tokens(number, tokens));
}

void Publish(TieredStore& store, const KvBlockInfo& info) {
  BlockStore::Reservation reservation = Require(store.host().Reserve(KvBlockBytes(info)), "reserving a block");
  Require(FillSyntheticBlock(info, reservation.bytes()).status(), "filling a block");
  Require(store.Publish(std::move(reservation), 1e6).status(), "publishing a block");
}

std::unique_ptr<DiskTier> OpenDisk(const std::string& folder, size_t capacity_bytes) {
  auto policy = Require(MakeEvictionPolicy(EvictionPolicyNames().front(), capacity_bytes), "making a policy");
  return Require(DiskTier::Open({.folder = folder, .capacity_bytes = capacity_bytes}, std::move(policy)),
                 "opening the disk tier");
}

class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& parent) : path_(parent + "/epic-tiers-XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) Fail(parent, absl::UnavailableError("no folder can be made there"));
  }
  ~TemporaryFolder() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The same bytes in one plain file: what the disk tier is measured against.
class PlainFile {
 public:
  PlainFile(const std::string& path, size_t bytes)
      : descriptor_(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_DIRECT, 0600)) {
    if (descriptor_ < 0 || posix_fallocate(descriptor_, 0, static_cast<off_t>(bytes)) != 0) {
      Fail(path, absl::UnavailableError("cannot be made for direct I/O"));
    }
  }
  ~PlainFile() { close(descriptor_); }
  void Write(std::span<const std::byte> bytes, size_t offset) {
    if (pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset)) !=
        static_cast<ssize_t>(bytes.size())) {
      Fail("a plain write", absl::UnavailableError("it fell short"));
    }
  }
  void Read(std::span<std::byte> bytes, size_t offset) {
    if (pread(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset)) !=
        static_cast<ssize_t>(bytes.size())) {
      Fail("a plain read", absl::UnavailableError("it fell short"));
    }
  }

 private:
  const int descriptor_;
};

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options), report_(StartReport("tiers", kReaders)) {
    report_["results"] = Report::object();
  }

  int Run() {
    std::istringstream names(options_.parts);
    std::set<std::string> parts;
    for (std::string name; std::getline(names, name, ',');) parts.insert(name);
    const std::vector<std::pair<std::string, void (Bench::*)()>> known = {{"hits", &Bench::Hits},
                                                                          {"disk", &Bench::Disk},
                                                                          {"memory", &Bench::Memory},
                                                                          {"batches", &Bench::Batches},
                                                                          {"restart", &Bench::Restart}};
    for (const std::string& part : parts) {
      if (std::none_of(known.begin(), known.end(), [&](const auto& one) { return one.first == part; })) {
        std::cerr << fmt::format("error: --parts has '{}', expected hits, disk, memory, batches or restart\n", part);
        return 2;
      }
    }
    for (const auto& [name, part] : known) {
      if (!parts.contains(name)) continue;
      std::cerr << name << "...\n";
      (this->*part)();
    }
    return PrintReport(report_, fmt::format("{}\n\n{}", report_["processor"].get<std::string>(), table_),
                       options_.format, options_.save);
  }

 private:
  void Line(const std::string& text) { table_ += text + "\n"; }

  // From the call to the first byte of the payload, by 16 readers at once, first alone and then while another thread
  // has blocks written to disk.
  void Hits() {
    const int blocks = options_.quick ? 4 : 32;
    const KvBlockInfo sample = Info(kModelShape, 0, kChunkTokens);
    const TemporaryFolder folder(options_.folder);
    TieredStore store({},
                      Require(BlockStore::Create({.capacity_bytes = (blocks + 2) * (KvBlockBytes(sample) + 4096)}),
                              "making the host tier"),
                      OpenDisk(folder.path() + "/disk", size_t{4} << 30));
    std::vector<KvBlockInfo> infos;
    for (int i = 0; i < blocks; ++i) {
      infos.push_back(Info(kModelShape, i, kChunkTokens));
      Publish(store, infos.back());
    }
    store.WaitForWrites(steady_clock::now() + std::chrono::minutes(5));
    for (const bool writing : {false, true}) {
      std::atomic<bool> stop{false};
      std::thread writer([&] {
        for (size_t i = 0; writing && !stop; i = (i + 1) % infos.size()) {
          store.disk()->Drop(infos[i].key);
          store.QueueMissingCopies();
          store.WaitForWrites(steady_clock::now() + std::chrono::minutes(1));
        }
      });
      const int operations = options_.quick ? 200 : 20'000;
      std::vector<std::vector<double>> microseconds(kReaders);
      std::vector<std::thread> readers;
      for (int reader = 0; reader < kReaders; ++reader) {
        readers.emplace_back([&, reader] {
          std::mt19937 random(static_cast<uint32_t>(reader));
          std::vector<double>& mine = microseconds[static_cast<size_t>(reader)];
          mine.reserve(static_cast<size_t>(operations));
          for (int i = 0; i < operations; ++i) {
            const KvBlockInfo& info = infos[random() % infos.size()];
            const steady_clock::time_point begun = steady_clock::now();
            const auto lease = store.host().Acquire(info.key, info.token_ids);
            if (!lease.ok()) Fail("a hit", lease.status());
            const volatile uint16_t first = *lease->view().Keys(0);
            static_cast<void>(first);
            mine.push_back(Seconds(begun) * 1e6);
          }
        });
      }
      for (std::thread& reader : readers) reader.join();
      stop = true;
      writer.join();
      std::vector<double> all;
      for (const auto& one : microseconds) all.insert(all.end(), one.begin(), one.end());
      const double p50 = Percentile(all, 0.5);
      const double p99 = Percentile(all, 0.99);
      const char* const beside = writing ? "beside copies to disk" : "alone";
      report_["results"]["hits"][writing ? "beside_copies" : "alone"] = {{"p50_us", p50}, {"p99_us", p99}};
      Line(fmt::format("hit in memory, {} readers, {}: p50 {:.1f} us, p99 {:.1f} us, {} hits", kReaders, beside, p50,
                       p99, all.size()));
      if (!writing) {
        AddUpperBar(report_, "hit in memory, p50 in us", p50, 10);
        AddUpperBar(report_, "hit in memory, p99 in us", p99, 50);
      }
    }
  }

  void Disk() {
    const KvBlockInfo sample = Info(kModelShape, 0, kChunkTokens);
    const size_t block_bytes = KvBlockBytes(sample);
    const size_t count = options_.quick ? 3 : std::max<size_t>(8, options_.disk_bytes / block_bytes);
    std::vector<std::unique_ptr<ScratchBlock>> blocks;
    std::vector<KvBlockView> views;
    for (size_t i = 0; i < count; ++i) {
      const KvBlockInfo info = Info(kModelShape, static_cast<int32_t>(i), kChunkTokens);
      blocks.push_back(std::make_unique<ScratchBlock>(block_bytes));
      Require(FillSyntheticBlock(info, blocks.back()->bytes()).status(), "filling a block");
      views.push_back(Require(KvBlockView::Parse(blocks.back()->bytes()), "reading a block"));
    }
    const size_t padded_bytes = blocks.front()->padded_bytes().size();
    ScratchBlock out(block_bytes);
    std::vector<double> write_ratios;
    std::vector<double> read_ratios;
    std::vector<double> plain_read;
    std::vector<double> plain_write;
    double amplification = 0;
    const int rounds = options_.quick ? 1 : options_.rounds;
    for (int round = 0; round < rounds; ++round) {
      double plain_write_s = 0;
      double plain_read_s = 0;
      double tier_write_s = 0;
      double tier_read_s = 0;
      const auto plain = [&] {
        const TemporaryFolder folder(options_.folder);
        PlainFile file(folder.path() + "/plain", count * padded_bytes);
        const steady_clock::time_point begun = steady_clock::now();
        for (size_t i = 0; i < count; ++i) file.Write(blocks[i]->padded_bytes(), i * padded_bytes);
        plain_write_s = Seconds(begun);
        const steady_clock::time_point reading = steady_clock::now();
        for (size_t i = 0; i < count; ++i) file.Read(out.padded_bytes(), i * padded_bytes);
        plain_read_s = Seconds(reading);
      };
      const auto tier = [&] {
        const TemporaryFolder folder(options_.folder);
        const std::unique_ptr<DiskTier> disk =
            OpenDisk(folder.path() + "/disk", 2 * count * padded_bytes + (size_t{256} << 20));
        const steady_clock::time_point begun = steady_clock::now();
        for (const KvBlockView& view : views) Require(disk->Write(view, 1e6).status(), "writing a block");
        tier_write_s = Seconds(begun);
        const steady_clock::time_point reading = steady_clock::now();
        for (const KvBlockView& view : views)
          Require(disk->Read(view.info().key, out.padded_bytes()), "reading a block");
        tier_read_s = Seconds(reading);
        const DiskTierStats stats = disk->Stats();
        report_["results"]["disk"]["direct_io"] = stats.direct_io;
        uint64_t index_bytes = 0;
        for (const auto& file : fs::recursive_directory_iterator(folder.path() + "/disk/index")) {
          if (file.is_regular_file()) index_bytes += file.file_size();
        }
        amplification =
            static_cast<double>(stats.written_bytes_total + index_bytes) / static_cast<double>(count * block_bytes);
      };
      if (round % 2 == 0) {
        plain();
        tier();
      } else {
        tier();
        plain();
      }
      write_ratios.push_back(plain_write_s / tier_write_s);
      read_ratios.push_back(plain_read_s / tier_read_s);
      const double megabytes = static_cast<double>(count * block_bytes) / 1e6;
      plain_read.push_back(megabytes / plain_read_s);
      plain_write.push_back(megabytes / plain_write_s);
      std::cerr << fmt::format("round {} of {}\n", round + 1, rounds);
    }
    const double read = Median(read_ratios);
    const double write = Median(write_ratios);
    auto& results = report_["results"]["disk"];
    results["bytes"] = count * block_bytes;
    results["read_ratios"] = read_ratios;
    results["write_ratios"] = write_ratios;
    results["plain_read_mb_s"] = Median(plain_read);
    results["plain_write_mb_s"] = Median(plain_write);
    results["write_amplification"] = amplification;
    Line(
        fmt::format("disk tier, {} blocks of {:.1f} MB, {} rounds: read {:.2f} and write {:.2f} of a plain file's "
                    "{:.0f} and {:.0f} MB/s; write amplification {:.3f}, index included",
                    count, static_cast<double>(block_bytes) / 1e6, rounds, read, write, Median(plain_read),
                    Median(plain_write), amplification));
    AddBar(report_, "disk tier read over a plain sequential read", read, 0.7);
    AddBar(report_, "disk tier write over a plain sequential write", write, 0.7);
  }

  // What the heap holds for each chunk that is resident, in the store and in the node's table of documents.
  void Memory() {
    const int chunks = options_.quick ? 500 : 50'000;
    const auto heap_bytes = [] { return static_cast<double>(mallinfo2().uordblks); };
    const double before = heap_bytes();
    TieredStore store({},
                      Require(BlockStore::Create({.capacity_bytes = static_cast<size_t>(chunks) * 8192 + (1 << 20)}),
                              "making the host tier"),
                      nullptr);
    DocumentTable table;
    constexpr int kChunksPerDocument = 10;
    for (int first = 0; first < chunks; first += kChunksPerDocument) {
      DocumentTable::NewList list;
      list.name = {"default", fmt::format("document-{}", first)};
      list.own_recipe_id = list.recipe_id = kPlainRecipeId;
      for (int i = first; i < first + kChunksPerDocument; ++i) {
        // 512 tokens, as usual chunks have, so that what is kept for each token would show.
        const KvBlockInfo info = Info({.layers = 1, .kv_heads = 1, .head_dim = 2}, i, kChunkTokens);
        Publish(store, info);
        list.keys.push_back(info.key);
      }
      table.Add(list);
    }
    const double overhead = (heap_bytes() - before) / chunks;
    report_["results"]["memory"] = {{"chunks", chunks}, {"heap_bytes_per_chunk", overhead}};
    Line(fmt::format(
        "bookkeeping for a resident chunk of {} tokens: {:.0f} bytes of heap ({} chunks, store and table of "
        "documents)",
        kChunkTokens, overhead, chunks));
    AddUpperBar(report_, "heap bytes a resident chunk, beyond its block", overhead, 1024);
  }

  // Queries of eight documents each, drawn by a Zipf law, shuffled anew for every batch, over a working set that memory
  // has not the room for. Real blocks come from the real disk tier.
  void Batches() {
    const int chunks = options_.quick ? 500 : 2000;
    constexpr size_t kChunksPerQuery = 8;
    constexpr int kBatches = 10;
    constexpr double kExponent = 0.9;
    const TemporaryFolder folder(options_.folder);
    const size_t page = KvBlockBytes(Info(kPageShape, 0, 32)) <= 4096 ? 4096 : 8192;
    TieredStore store({},
                      Require(BlockStore::Create({.capacity_bytes = static_cast<size_t>(chunks) * page * 4 / 5}),
                              "making the host tier"),
                      OpenDisk(folder.path() + "/disk", size_t{1} << 30));
    std::vector<KvBlockInfo> infos;
    for (int i = 0; i < chunks; ++i) {
      infos.push_back(Info(kPageShape, i, 32));
      Publish(store, infos.back());
      if (store.CopiesAreBehind()) store.WaitForWrites(steady_clock::now() + std::chrono::minutes(1));
    }
    store.WaitForWrites(steady_clock::now() + std::chrono::minutes(1));
    // Every chunk once, so that all of them are the working set, and as many again as a Zipf law draws them; the same
    // queries in every batch, in another order.
    std::vector<double> weights;
    for (int i = 0; i < chunks; ++i) weights.push_back(std::pow(i + 1, -kExponent));
    std::mt19937 random(5);
    std::discrete_distribution<int> draw(weights.begin(), weights.end());
    std::vector<int> wanted(static_cast<size_t>(chunks));
    std::iota(wanted.begin(), wanted.end(), 0);
    for (int i = 0; i < chunks; ++i) wanted.push_back(draw(random));
    std::shuffle(wanted.begin(), wanted.end(), random);
    std::vector<std::vector<int>> asked;
    for (size_t i = 0; i < wanted.size(); i += kChunksPerQuery) {
      asked.emplace_back(wanted.begin() + static_cast<ptrdiff_t>(i),
                         wanted.begin() + static_cast<ptrdiff_t>(std::min(i + kChunksPerQuery, wanted.size())));
    }
    std::vector<double> ratios;
    for (int batch = 0; batch < kBatches; ++batch) {
      std::shuffle(asked.begin(), asked.end(), random);
      int hits = 0;
      for (const std::vector<int>& query : asked) {
        for (const int number : query) {
          const KvBlockInfo& info = infos[static_cast<size_t>(number)];
          if (store.host().Acquire(info.key, info.token_ids).ok()) {
            ++hits;
          } else {
            Load(store, info);
          }
        }
      }
      ratios.push_back(static_cast<double>(hits) / static_cast<double>(wanted.size()));
    }
    report_["results"]["batches"] = {{"chunks", chunks}, {"queries", asked.size()}, {"hit_ratios", ratios}};
    Line(fmt::format(
        "working set of 1.25 times the memory tier, {} shuffled queries a batch: hit ratio {:.3f} in batch 1, "
        "{:.3f} in batch 10",
        asked.size(), ratios.front(), ratios.back()));
    AddBar(report_, "hit ratio of batch 10 over batch 1", ratios.back() / ratios.front(), 0.95);
  }

  static void Load(TieredStore& store, const KvBlockInfo& info) {
    BlockStore::Reservation reservation = Require(store.host().Reserve(KvBlockBytes(info)), "reserving a block");
    Mutex mutex;
    CondVar loaded;
    bool done = false;
    absl::Status outcome;
    Require(store.Load(info, reservation.padded_bytes(),
                       [&](absl::StatusOr<uint64_t> edition) {
                         MutexLock lock(mutex);
                         outcome = edition.status();
                         done = true;
                         loaded.NotifyAll();
                       }),
            "asking for a block");
    {
      MutexLock lock(mutex);
      while (!done) loaded.Wait(mutex);
    }
    Require(outcome, "loading a block");
    Require(store.Publish(std::move(reservation), 0).status(), "publishing a block");
  }

  void Restart() {
    const int documents = options_.quick ? 20 : 10'000;
    constexpr int kChunksPerDocument = 10;
    constexpr int kTokensPerChunk = 8;
    const TemporaryFolder folder(options_.folder);
    const size_t disk_bytes = static_cast<size_t>(documents) * kChunksPerDocument * 4096 * 2 + (size_t{64} << 20);
    FakeCompiler compiler({.shape = kPageShape});
    const auto document_tokens = [](int document) {
      std::vector<int32_t> ids;
      for (int i = 0; i < kChunksPerDocument; ++i) {
        const std::vector<int32_t> chunk = Tokens(document * kChunksPerDocument + i, kTokensPerChunk);
        ids.insert(ids.end(), chunk.begin(), chunk.end());
      }
      return ids;
    };
    {
      const std::unique_ptr<Manifest> manifest =
          Require(Manifest::Open(folder.path() + "/manifest"), "opening the manifest");
      const std::unique_ptr<DiskTier> disk = OpenDisk(folder.path() + "/disk", disk_bytes);
      std::atomic<int> next{0};
      std::vector<std::thread> writers;
      for (int writer = 0; writer < kReaders; ++writer) {
        writers.emplace_back([&] {
          for (int number = next++; number < documents; number = next++) {
            DocumentRecord record;
            record.tenant = "default";
            record.id = fmt::format("document-{:06}", number);
            record.token_ids = document_tokens(number);
            record.token_ids_model_fingerprint = compiler.fingerprint_hex();
            ChunkListRecord list;
            list.model_fingerprint_hex = compiler.fingerprint_hex();
            list.recipe = Recipe{.id = kPlainRecipeId, .prefix_tokens = {}};
            list.token_ids = record.token_ids;
            for (int i = 0; i < kChunksPerDocument; ++i) {
              const KvBlockInfo info = Info(kPageShape, number * kChunksPerDocument + i, kTokensPerChunk);
              list.spans.push_back({i * kTokensPerChunk, (i + 1) * kTokensPerChunk});
              list.keys.push_back(info.key);
              ScratchBlock block(KvBlockBytes(info));
              Require(FillSyntheticBlock(info, block.bytes()).status(), "filling a block");
              Require(disk->Write(Require(KvBlockView::Parse(block.bytes()), "reading a block"), 1e6).status(),
                      "writing a block");
            }
            Require(manifest->PutDocument(record, &list).status(), "registering a document");
          }
        });
      }
      for (std::thread& writer : writers) writer.join();
    }
    const steady_clock::time_point begun = steady_clock::now();
    std::unique_ptr<Manifest> manifest = Require(Manifest::Open(folder.path() + "/manifest"), "opening the manifest");
    auto store = std::make_unique<TieredStore>(
        TieredStoreOptions{}, Require(BlockStore::Create({.capacity_bytes = size_t{64} << 20}), "making the host tier"),
        OpenDisk(folder.path() + "/disk", disk_bytes));
    CacheNodeOptions node_options;
    const std::unique_ptr<CacheNode> node =
        Require(CacheNode::Create(node_options, std::move(manifest), std::move(store), &compiler), "starting the node");
    const double started_s = Seconds(begun);
    LocateQuery query = SyntheticQuery({Tokens(documents * kChunksPerDocument / 2, kTokensPerChunk)});
    const auto located = Require(node->Locate(query, steady_clock::now() + std::chrono::minutes(1)), "the first hit");
    const double first_hit_s = Seconds(begun);
    if (located.front().origin != BlockOrigin::kHeld || compiler.compiled_total() > 0) {
      Fail("the first hit", absl::InternalError("the chunk was compiled, not found on disk"));
    }
    report_["results"]["restart"] = {
        {"chunks", node->adoption().adopted_blocks}, {"started_s", started_s}, {"first_hit_s", first_hit_s}};
    Line(fmt::format("restart with {} chunks on disk: ready after {:.2f} s, first hit after {:.2f} s, nothing compiled",
                     node->adoption().adopted_blocks, started_s, first_hit_s));
    AddUpperBar(report_, "seconds to the first hit after a restart", first_hit_s, 10);
  }

  const Options options_;
  Report report_;
  std::string table_;
};

}  // namespace
}  // namespace epic

int main(int argc, char** argv) {
  epic::Options options;
  CLI::App app("What the tiers of a cache node cost.", "bench-tiers");
  app.add_option("--parts", options.parts, "Parts to run, with commas between: hits, disk, memory, batches, restart")
      ->capture_default_str();
  app.add_option("--folder", options.folder, "Where files are made, and removed again")->capture_default_str();
  app.add_option("--disk-bytes", options.disk_bytes, "Bytes of blocks in the disk part")->capture_default_str();
  app.add_option("--rounds", options.rounds, "Rounds of the disk part")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--quick", options.quick, "As little of everything as runs through all of it");
  app.add_option("--format", options.format, "table or json")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  app.add_option("--save", options.save, "Also write the JSON to this file");
  CLI11_PARSE(app, argc, argv);
  return epic::Bench(options).Run();
}
