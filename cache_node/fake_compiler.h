// A compiler without a model, for tests: tokens are the bytes of the text, K and V are made from token ids.
#ifndef EPIC_CACHE_NODE_FAKE_COMPILER_H_
#define EPIC_CACHE_NODE_FAKE_COMPILER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cache_node/compiler.h"
#include "core/sync.h"

namespace epic {

// Compiles one chunk after the other on a thread of its own, urgent ones first. Thread-safe.
class FakeCompiler : public ChunkCompiler {
 public:
  struct Options {
    std::string fingerprint_hex = std::string(64, 'a');  // as the synthetic blocks have it
    KvShape shape;
    bool paused = false;  // from the start
  };
  explicit FakeCompiler(Options options);
  // Cancels what it has not begun.
  ~FakeCompiler() override;

  // While paused, jobs are accepted and wait.
  void Pause();
  void Resume();
  // The next `count` blocks have a byte turned after they were sealed.
  void CorruptNext(int count);
  // Chunks that begin with this token fail with `status`; OK: they do not.
  void FailTokens(int32_t first_token, absl::Status status);
  // Returns once `count` jobs have been accepted and wait in a paused compiler.
  void WaitForWaiting(size_t count);

  // How often chunks that begin with this token were compiled to the end.
  int CompiledCount(int32_t first_token) const;
  int compiled_total() const;
  int cancelled_total() const;
  // First tokens of the chunks that were compiled, in order.
  std::vector<int32_t> order() const;
  // For each chunk that was compiled, by its first token: the first tokens of the context blocks that it was given
  // last.
  std::map<int32_t, std::vector<int32_t>> contexts() const;
  // Those that wait: first token and whether it is urgent.
  std::map<int32_t, bool> waiting() const;

  const std::string& fingerprint_hex() const override { return options_.fingerprint_hex; }
  KvShape kv_shape() const override { return options_.shape; }
  int32_t vocab_size() const override { return 4096; }
  int32_t context_length() const override { return 8192; }
  absl::StatusOr<Recipe> RecipeById(const std::string& id) const override;
  absl::StatusOr<Encoding> EncodeText(std::string_view text) const override;
  absl::StatusOr<std::shared_ptr<Job>> Compile(Request request) override;

 private:
  class FakeJob;
  struct State;
  void Run();

  const Options options_;
  const std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_FAKE_COMPILER_H_
