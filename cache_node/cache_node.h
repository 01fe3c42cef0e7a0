// A cache node without its wire: registers documents, compiles their chunks, holds KV and hands it out.
//
// It puts together the registry of documents (durable), the tiers of blocks (memory and disk, each within a limit), the
// compile queue and a compiler. It is the BlockProvider that transports stand on: in process, and the gRPC services of
// a node process.
//
// Thread-safe. Every call that can wait takes a deadline; one that has passed is DEADLINE_EXCEEDED at once.
#ifndef EPIC_CACHE_NODE_CACHE_NODE_H_
#define EPIC_CACHE_NODE_CACHE_NODE_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cache_node/compile_queue.h"
#include "cache_node/compiler.h"
#include "cache_node/document_registry.h"
#include "cache_node/pinned_documents.h"
#include "core/chunker.h"
#include "storage/block_store.h"
#include "storage/manifest.h"
#include "storage/tiered_store.h"
#include "transfer/block_source.h"

namespace epic {

struct CacheNodeOptions {
  ChunkerOptions chunker;
  CompileQueueOptions compile;
  std::string default_recipe_id = kPlainRecipeId;  // of documents that name none: "plain" or "document"
  DocumentRegistry::Clock clock;                   // milliseconds since 1970; empty: the system's
  size_t pinned_bytes_max = 0;                     // of the host tier, for pinned documents
};

struct ResolvedDocument {
  std::string id;
  Recipe recipe;  // of chunks without context; RecipeBehind gives that of the others
  struct Chunk {
    ChunkKey key;
    std::vector<int32_t> token_ids;
    int32_t context_token_count = 0;  // tokens of the document right before it that it is compiled in sight of
    size_t block_bytes = 0;
    bool resident = false;
  };
  std::vector<Chunk> chunks;
};

struct CacheNodeStatus {
  int64_t documents = 0;
  BlockStoreStats store;
  CompileQueueStats compile;
  int64_t chunks_waiting = 0;  // of documents, not yet with the compiler
};

// Why an operator's order left blocks where they were, and how many went.
struct EvictionReport {
  int64_t evicted_host_blocks = 0;
  int64_t evicted_disk_blocks = 0;
  int64_t kept_blocks = 0;  // under a lease or pinned
};

// What the node found on disk when it started.
struct AdoptionReport {
  int64_t adopted_blocks = 0;
  int64_t orphaned_blocks = 0;  // nothing refers to them any more; dropped
};

class CacheNode : public BlockProvider, private CompileObserver {
 public:
  // Reads the manifest, adopts the blocks of its documents that are on disk, drops those of no document, and begins to
  // compile what is missing for the present model. `compiler` must outlive the node.
  static absl::StatusOr<std::unique_ptr<CacheNode>> Create(const CacheNodeOptions& options,
                                                           std::unique_ptr<Manifest> manifest,
                                                           std::unique_ptr<TieredStore> store, ChunkCompiler* compiler);
  // Shuts down first. REQUIRES: no view that Locate returned is alive.
  ~CacheNode() override;

  struct Created {
    DocumentInfo document;
    bool created = false;
  };
  // See DocumentRegistry for these.
  absl::StatusOr<Created> CreateDocument(const NewDocument& document, Deadline deadline);
  absl::StatusOr<DocumentInfo> GetDocument(const std::string& tenant, const std::string& id, Deadline deadline) const;
  absl::StatusOr<DocumentPage> ListDocuments(const std::string& tenant, int32_t page_size,
                                             const std::string& page_token, Deadline deadline) const;
  // Also frees the KV of chunks that no other document has.
  absl::Status DeleteDocument(const std::string& tenant, const std::string& id, Deadline deadline);
  // Keeps a document's chunks in memory from now on, durably; those that are not there are brought there in the
  // background. RESOURCE_EXHAUSTED: more than pinned_bytes_max.
  struct Pinned {
    int32_t chunk_count = 0;
    int32_t resident_chunk_count = 0;
    size_t bytes = 0;
  };
  absl::StatusOr<Pinned> PinDocument(const std::string& tenant, const std::string& id, Deadline deadline);
  // False where it was not pinned.
  absl::StatusOr<bool> UnpinDocument(const std::string& tenant, const std::string& id, Deadline deadline);
  bool IsPinned(const DocumentName& name) const { return pinned_.Contains(name); }
  // Drops chunks of these documents, or of all where `ids` is empty, from memory, from disk, or both.
  absl::StatusOr<EvictionReport> Evict(const std::string& tenant, const std::vector<std::string>& ids, bool from_host,
                                       bool from_disk, Deadline deadline);
  absl::StatusOr<DocumentInfo> AskForDocument(const std::string& tenant, const std::string& id, Deadline deadline);
  // NOT_FOUND names the document. FAILED_PRECONDITION: another model than the node's.
  absl::StatusOr<std::vector<ResolvedDocument>> ResolveDocuments(const std::string& tenant,
                                                                 const std::vector<std::string>& ids,
                                                                 const std::string& recipe_id,
                                                                 const std::string& model_fingerprint_hex,
                                                                 Deadline deadline);

  // What became of a document since; nothing where it is not, or no more, known to the present model.
  std::optional<DocumentProgress> Progress(const DocumentName& name) const { return registry_->table().Progress(name); }
  // Chunks of a document whose KV is held now.
  int32_t ResidentChunks(const DocumentName& name) const;
  // Waits until any document changed after `seen_change`, or for the deadline, or for WakeWaiters; returns the last
  // change.
  uint64_t WaitForChange(uint64_t seen_change, Deadline deadline) const {
    return registry_->table().WaitForChange(seen_change, deadline);
  }
  void WakeWaiters() { registry_->table().WakeWaiters(); }

  // Leases a query's chunks, in order; an absent one has an empty lease. FAILED_PRECONDITION: another model.
  // INVALID_ARGUMENT: outside the limits, a recipe that is not the model's, or a key that is not that of its tokens.
  // DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED: not compiled in time, no room; then nothing is leased.
  struct LeasedChunk {
    BlockOrigin origin = BlockOrigin::kAbsent;
    BlockStore::Lease lease;
    int64_t compile_us = 0;
  };
  absl::StatusOr<std::vector<LeasedChunk>> LocateLeases(const LocateQuery& query, Deadline deadline);
  // The same for transports that need no more than a view, which keeps its lease.
  absl::StatusOr<std::vector<Located>> Locate(const LocateQuery& query, Deadline deadline) override;

  // Deletes expired documents. To be called every second or so.
  void SweepExpired(Deadline deadline);

  absl::StatusOr<CacheNodeStatus> Status() const;
  BlockStoreStats StoreStats() const { return store_->host().Stats(); }
  TieredStore& tiers() { return *store_; }
  const TieredStore& tiers() const { return *store_; }
  const AdoptionReport& adoption() const { return adoption_; }
  const PinnedDocuments& pinned() const { return pinned_; }
  Manifest& manifest() const { return *manifest_; }
  CompileQueueStats CompileStats() const { return queue_->Stats(); }
  int64_t chunks_waiting() const { return registry_->table().chunks_waiting(); }
  uint64_t damaged_blocks_total() const { return damaged_blocks_; }
  const ChunkCompiler& compiler() const { return *compiler_; }

  // Ends compilation; what waits for it gets UNAVAILABLE. What is held can still be located.
  void Shutdown();

 private:
  CacheNode(const CacheNodeOptions& options, std::unique_ptr<Manifest> manifest, std::unique_ptr<TieredStore> store,
            ChunkCompiler* compiler);
  absl::Status AdoptDisk();
  absl::Status LoadPins();

  std::optional<CompileJob> NextBackgroundJob() override;
  void OnCompileFinished(const CompileJob& job, const absl::Status& status, bool requested) override;

  KvBlockInfo BlockInfo(const ChunkKey& key, const Recipe& recipe, std::vector<int32_t> token_ids) const;
  absl::Status CheckModel(const std::string& model_fingerprint_hex) const;
  absl::Status CheckRecipeId(const std::string& recipe_id) const;
  absl::Status CheckQuery(const LocateQuery& query) const;
  absl::Status CheckChunk(const LocateQuery& query, size_t index, const std::string& tenant) const;
  // The block where it is held and sound; empty where it must be compiled.
  absl::StatusOr<BlockStore::Lease> AcquireHeld(const LocateQuery::Chunk& chunk);
  void DropUnreferenced(const std::vector<ChunkKey>& keys);
  std::vector<PinnedDocuments::Chunk> ChunksToPin(const ChunkListRecord& list) const;
  void ReleasePin(const DocumentName& name);
  CompileJob JobOf(DocumentRegistry::ChunkWork work) const;

  const CacheNodeOptions options_;
  const std::unique_ptr<Manifest> manifest_;
  ChunkCompiler* const compiler_;
  const std::unique_ptr<DocumentRegistry> registry_;
  PinnedDocuments pinned_;
  AdoptionReport adoption_;
  const std::unique_ptr<TieredStore> store_;  // its threads ask the registry
  std::atomic<uint64_t> damaged_blocks_{0};
  std::unique_ptr<CompileQueue> queue_;  // last: its thread uses all the others
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_CACHE_NODE_H_
