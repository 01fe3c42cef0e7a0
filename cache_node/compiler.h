// What a cache node asks of a model: to tokenise documents and to compile chunks. The engine stands behind it in a node
// (engine_compiler.h), a worker will where a model is too large to be loaded twice, and tests use a fake without a
// model.
#ifndef EPIC_CACHE_NODE_COMPILER_H_
#define EPIC_CACHE_NODE_COMPILER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/chunk_key.h"
#include "core/kv_block.h"

namespace epic {

// A chunk that stands before another one in its section of a document (recipe "document").
struct ContextChunk {
  ChunkKey key;
  std::vector<int32_t> token_ids;
};

// Thread-safe.
class ChunkCompiler {
 public:
  virtual ~ChunkCompiler() = default;

  virtual const std::string& fingerprint_hex() const = 0;
  virtual KvShape kv_shape() const = 0;
  virtual int32_t vocab_size() const = 0;
  virtual int32_t context_length() const = 0;
  // A recipe without context, "plain" or "sink4"; INVALID_ARGUMENT names the recipes that there are.
  virtual absl::StatusOr<Recipe> RecipeById(const std::string& id) const = 0;

  struct Encoding {
    std::vector<int32_t> ids;
    std::vector<size_t> byte_ends;  // of each token in the text
  };
  // Encodes text of users, in which special tokens are never recognised. INVALID_ARGUMENT names the first byte that is
  // not UTF-8.
  virtual absl::StatusOr<Encoding> EncodeText(std::string_view text) const = 0;

  // A compilation that was accepted. Destroying it does not end it.
  class Job {
   public:
    virtual ~Job() = default;
    virtual void Cancel() = 0;  // on_done follows with CANCELLED unless it was done
  };
  struct Request {
    KvBlockInfo info;
    Recipe recipe;
    // Blocks of the first chunks of the recipe's context, in order; what they leave out of it runs again.
    // Let go of before on_done is called.
    std::vector<std::shared_ptr<const KvBlockView>> context;
    // KvBlockBytes(info) zero bytes that stay in place until on_done; sealed by then.
    std::span<std::byte> block;
    bool urgent = false;  // a request waits for it
    // Exactly once: the edition, or why there is none. From any thread, also before Compile returns; must not block.
    std::function<void(absl::StatusOr<uint64_t>)> on_done;
  };
  // An error here means that on_done is not called: RESOURCE_EXHAUSTED (queue full), INVALID_ARGUMENT (token id outside
  // the vocabulary, longer than the context).
  virtual absl::StatusOr<std::shared_ptr<Job>> Compile(Request request) = 0;
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_COMPILER_H_
