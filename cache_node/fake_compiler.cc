#include "cache_node/fake_compiler.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "fmt/format.h"
#include "transfer/synthetic_blocks.h"

namespace epic {

struct FakeCompiler::State {
  Mutex mutex;
  CondVar changed;
  struct Waiting {
    int64_t id = 0;
    Request request;
  };
  std::deque<Waiting> waiting EPIC_GUARDED_BY(mutex);
  int64_t next_id EPIC_GUARDED_BY(mutex) = 0;
  bool paused EPIC_GUARDED_BY(mutex) = false;
  bool stopping EPIC_GUARDED_BY(mutex) = false;
  int corrupt_next EPIC_GUARDED_BY(mutex) = 0;
  int cancelled EPIC_GUARDED_BY(mutex) = 0;
  std::map<int32_t, absl::Status> failures EPIC_GUARDED_BY(mutex);
  std::vector<int32_t> order EPIC_GUARDED_BY(mutex);
  std::map<int32_t, std::vector<int32_t>> contexts EPIC_GUARDED_BY(mutex);
};

class FakeCompiler::FakeJob : public Job {
 public:
  FakeJob(std::shared_ptr<State> state, int64_t id) : state_(std::move(state)), id_(id) {}

  void Cancel() override {
    std::optional<Request> request;
    {
      MutexLock lock(state_->mutex);
      const auto found = std::find_if(state_->waiting.begin(), state_->waiting.end(),
                                      [this](const State::Waiting& waiting) { return waiting.id == id_; });
      if (found == state_->waiting.end()) return;
      request = std::move(found->request);
      state_->waiting.erase(found);
      ++state_->cancelled;
      state_->changed.NotifyAll();
    }
    request->context.clear();
    request->on_done(absl::CancelledError("cancelled"));
  }

 private:
  const std::shared_ptr<State> state_;
  const int64_t id_;
};

FakeCompiler::FakeCompiler(Options options)
    : options_(std::move(options)), state_(std::make_shared<State>()), thread_([this] { Run(); }) {
  if (options_.paused) Pause();
}

FakeCompiler::~FakeCompiler() {
  std::deque<State::Waiting> waiting;
  {
    MutexLock lock(state_->mutex);
    state_->stopping = true;
    waiting.swap(state_->waiting);
    state_->changed.NotifyAll();
  }
  thread_.join();
  for (State::Waiting& one : waiting) {
    one.request.context.clear();
    one.request.on_done(absl::CancelledError("cancelled"));
  }
}

void FakeCompiler::Pause() {
  MutexLock lock(state_->mutex);
  state_->paused = true;
}

void FakeCompiler::Resume() {
  MutexLock lock(state_->mutex);
  state_->paused = false;
  state_->changed.NotifyAll();
}

void FakeCompiler::CorruptNext(int count) {
  MutexLock lock(state_->mutex);
  state_->corrupt_next = count;
}

void FakeCompiler::FailTokens(int32_t first_token, absl::Status status) {
  MutexLock lock(state_->mutex);
  state_->failures[first_token] = std::move(status);
}

void FakeCompiler::WaitForWaiting(size_t count) {
  MutexLock lock(state_->mutex);
  while (state_->waiting.size() < count) state_->changed.Wait(state_->mutex);
}

int FakeCompiler::CompiledCount(int32_t first_token) const {
  MutexLock lock(state_->mutex);
  return static_cast<int>(std::count(state_->order.begin(), state_->order.end(), first_token));
}

int FakeCompiler::compiled_total() const {
  MutexLock lock(state_->mutex);
  return static_cast<int>(state_->order.size());
}

int FakeCompiler::cancelled_total() const {
  MutexLock lock(state_->mutex);
  return state_->cancelled;
}

std::vector<int32_t> FakeCompiler::order() const {
  MutexLock lock(state_->mutex);
  return state_->order;
}

std::map<int32_t, std::vector<int32_t>> FakeCompiler::contexts() const {
  MutexLock lock(state_->mutex);
  return state_->contexts;
}

std::map<int32_t, bool> FakeCompiler::waiting() const {
  MutexLock lock(state_->mutex);
  std::map<int32_t, bool> waiting;
  for (const State::Waiting& one : state_->waiting) {
    waiting[one.request.info.token_ids.front()] = one.request.urgent;
  }
  return waiting;
}

absl::StatusOr<Recipe> FakeCompiler::RecipeById(const std::string& id) const {
  if (id == "plain") return Recipe{.id = id, .prefix_tokens = {}};
  if (id == "sink4") return Recipe{.id = id, .prefix_tokens = {1, 2, 3, 4}};
  return absl::InvalidArgumentError(fmt::format("recipe \"{}\" does not exist, expected plain or sink4", id));
}

absl::StatusOr<ChunkCompiler::Encoding> FakeCompiler::EncodeText(std::string_view text) const {
  Encoding encoding;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // The only bytes that no UTF-8 text holds: enough for a fake.
    if (byte >= 0xf8) return absl::InvalidArgumentError(fmt::format("byte {} is not UTF-8", i));
    encoding.ids.push_back(byte);
    encoding.byte_ends.push_back(i + 1);
  }
  return encoding;
}

absl::StatusOr<std::shared_ptr<ChunkCompiler::Job>> FakeCompiler::Compile(Request request) {
  MutexLock lock(state_->mutex);
  const int64_t id = state_->next_id++;
  state_->waiting.push_back({id, std::move(request)});
  state_->changed.NotifyAll();
  return std::make_shared<FakeJob>(state_, id);
}

void FakeCompiler::Run() {
  while (true) {
    Request request;
    bool corrupt = false;
    absl::Status failure;
    {
      MutexLock lock(state_->mutex);
      while (!state_->stopping && (state_->paused || state_->waiting.empty())) state_->changed.Wait(state_->mutex);
      if (state_->stopping) return;
      auto next = std::find_if(state_->waiting.begin(), state_->waiting.end(),
                               [](const State::Waiting& waiting) { return waiting.request.urgent; });
      if (next == state_->waiting.end()) next = state_->waiting.begin();
      request = std::move(next->request);
      state_->waiting.erase(next);
      const int32_t first_token = request.info.token_ids.front();
      if (const auto found = state_->failures.find(first_token); found != state_->failures.end()) {
        failure = found->second;
      }
      if (failure.ok()) {
        state_->order.push_back(first_token);
        std::vector<int32_t>& context = state_->contexts[first_token];
        context.clear();
        for (const auto& block : request.context) context.push_back(block->info().token_ids.front());
        corrupt = state_->corrupt_next > 0;
        if (corrupt) --state_->corrupt_next;
      }
    }
    request.context.clear();
    if (!failure.ok()) {
      request.on_done(failure);
      continue;
    }
    const absl::StatusOr<uint64_t> edition = FillSyntheticBlock(request.info, request.block);
    if (corrupt) request.block.back() ^= std::byte{1};
    request.on_done(edition);
  }
}

}  // namespace epic
