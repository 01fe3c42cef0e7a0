// A cache node with a fake compiler on a real manifest and a real block store, for the tests of this folder.
#ifndef EPIC_CACHE_NODE_NODE_HARNESS_H_
#define EPIC_CACHE_NODE_NODE_HARNESS_H_

#include <stdlib.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "cache_node/cache_node.h"
#include "cache_node/fake_compiler.h"
#include "core/status_macros.h"
#include "gtest/gtest.h"
#include "storage/disk_tier.h"
#include "storage/tiered_store.h"
#include "transfer/synthetic_blocks.h"

namespace epic {

inline std::string FreshFolder() {
  std::string folder = (std::filesystem::path(testing::TempDir()) / "epic_node_XXXXXX").string();
  EXPECT_NE(mkdtemp(folder.data()), nullptr);
  return folder;
}

// Far enough that only a call that hangs meets it.
inline Deadline Soon() { return std::chrono::steady_clock::now() + std::chrono::seconds(120); }

inline std::vector<int32_t> TokenRange(int32_t first, int32_t count) {
  std::vector<int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

// Documents of token ids are cut into chunks of 8 tokens, so that a chunk is known by its first token.
class NodeHarness {
 public:
  struct Options {
    FakeCompiler::Options compiler{.shape = kSmallSyntheticShape};
    size_t capacity_bytes = size_t{1} << 20;
    std::string eviction_policy = "lru";                         // an order that a test can follow
    size_t disk_capacity_bytes = 0;                              // 0: memory only
    std::function<std::unique_ptr<BlockTier>()> make_disk = {};  // instead of a real one
    TieredStoreOptions tiers = {};
    size_t pinned_bytes_max = size_t{1} << 19;
    std::string default_recipe_id = "plain";
    CompileQueueOptions compile{.retry_delay = std::chrono::milliseconds(1)};
  };
  NodeHarness() : NodeHarness(Options{}) {}
  explicit NodeHarness(Options options) : options_(std::move(options)), folder_(FreshFolder()) { Start(); }
  ~NodeHarness() {
    Stop();
    std::filesystem::remove_all(folder_);
  }

  // As the end of the process and a new one: memory is lost, the folder stays.
  void Restart(FakeCompiler::Options compiler) {
    Stop();
    options_.compiler = std::move(compiler);
    Start();
  }
  void Restart() { Restart(options_.compiler); }

  CacheNode& node() { return *node_; }
  std::string disk_folder() const { return folder_ + "/blocks"; }
  const std::string& folder() const { return folder_; }
  // Between a Stop and a Start somebody may look at the folder, or change what is in it.
  void Stop() {
    node_.reset();
    compiler_.reset();
  }
  void StartAgain() { Start(); }
  FakeCompiler& compiler() { return *compiler_; }
  std::atomic<int64_t>& now_unix_ms() { return now_unix_ms_; }

  absl::StatusOr<CacheNode::Created> Create(const std::string& id, std::vector<int32_t> token_ids,
                                            const std::string& tenant = "", const std::string& recipe_id = "") {
    NewDocument document;
    document.tenant = tenant;
    document.recipe_id = recipe_id;
    document.id = id;
    document.token_ids = std::move(token_ids);
    return node_->CreateDocument(document, Soon());
  }
  absl::StatusOr<CacheNode::Created> CreateText(const std::string& id, const std::string& text) {
    NewDocument document;
    document.id = id;
    document.text = text;
    return node_->CreateDocument(document, Soon());
  }
  // Waits until the document is in this phase and returns what it is then.
  DocumentProgress WaitFor(const std::string& id, DocumentPhase phase, const std::string& tenant = "default") {
    uint64_t seen = 0;
    while (true) {
      const std::optional<DocumentProgress> progress = node_->Progress({tenant, id});
      if (progress.has_value() && progress->phase == phase) return *progress;
      const uint64_t change = node_->WaitForChange(seen, Soon());
      EXPECT_NE(change, seen) << "nothing happened for two minutes";
      if (change == seen) return {};
      seen = change;
    }
  }

 private:
  void Start() {
    compiler_ = std::make_unique<FakeCompiler>(options_.compiler);
    CacheNodeOptions node_options;
    node_options.chunker = {.target_tokens = 8, .tail_tokens_min = 1};
    node_options.compile = options_.compile;
    node_options.default_recipe_id = options_.default_recipe_id;
    node_options.clock = [this] { return now_unix_ms_.load(); };
    node_options.pinned_bytes_max = options_.pinned_bytes_max;
    absl::StatusOr<std::unique_ptr<Manifest>> manifest = Manifest::Open(folder_ + "/manifest");
    ASSERT_TRUE(manifest.ok()) << manifest.status();
    absl::StatusOr<std::unique_ptr<BlockStore>> host =
        BlockStore::Create({.capacity_bytes = options_.capacity_bytes,
                            .protect_published = true,
                            .eviction_policy = options_.eviction_policy});
    ASSERT_TRUE(host.ok()) << host.status();
    std::unique_ptr<BlockTier> disk;
    if (options_.make_disk) {
      disk = options_.make_disk();
    } else if (options_.disk_capacity_bytes > 0) {
      auto policy = MakeEvictionPolicy(options_.eviction_policy, options_.disk_capacity_bytes);
      ASSERT_TRUE(policy.ok()) << policy.status();
      auto opened = DiskTier::Open({.folder = disk_folder(),
                                    .capacity_bytes = options_.disk_capacity_bytes,
                                    .segment_bytes = size_t{1} << 20,
                                    .free_bytes_min = 0},
                                   *std::move(policy));
      ASSERT_TRUE(opened.ok()) << opened.status();
      disk = *std::move(opened);
    }
    auto store = std::make_unique<TieredStore>(options_.tiers, *std::move(host), std::move(disk));
    auto node = CacheNode::Create(node_options, *std::move(manifest), std::move(store), compiler_.get());
    ASSERT_TRUE(node.ok()) << node.status();
    node_ = *std::move(node);
  }
  Options options_;
  const std::string folder_;
  std::atomic<int64_t> now_unix_ms_{1'000'000};
  std::unique_ptr<FakeCompiler> compiler_;
  std::unique_ptr<CacheNode> node_;
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_NODE_HARNESS_H_
