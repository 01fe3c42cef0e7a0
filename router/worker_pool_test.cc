#include "router/worker_pool.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "router/generate_router.h"
#include "router/parallel.h"

namespace epic {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using TimePoint = std::chrono::steady_clock::time_point;
using std::chrono::milliseconds;

// A worker that only reports.
class ReportingWorker final : public WorkerBackend {
 public:
  absl::Status Infer(const CallScope&, const v1::InferRequest&,
                     const std::function<bool(v1::GenerateResponse*)>&) override {
    return absl::UnimplementedError("only reports");
  }
  absl::StatusOr<v1::GetWorkerStatusResponse> GetWorkerStatus(const CallScope&,
                                                              const v1::GetWorkerStatusRequest& request) override {
    MutexLock lock(mutex_);
    ++asked_;
    if (!answers_) return absl::UnavailableError("nobody there");
    v1::GetWorkerStatusResponse report = report_;
    for (const std::string& key : request.chunk_keys()) report.add_resident(resident_.contains(key));
    return report;
  }
  absl::Status CheckHealth(const CallScope&) override { return absl::OkStatus(); }

  void SetAnswers(bool answers) {
    MutexLock lock(mutex_);
    answers_ = answers;
  }
  void Hold(const std::string& key) {
    MutexLock lock(mutex_);
    resident_.insert(key);
  }
  void SetReport(int64_t queued_tokens, double tokens_per_second, double pull_bytes_per_second) {
    MutexLock lock(mutex_);
    report_.set_queued_tokens(queued_tokens);
    report_.set_prefill_tokens_per_second(tokens_per_second);
    report_.set_pull_bytes_per_second(pull_bytes_per_second);
  }
  int asked() {
    MutexLock lock(mutex_);
    return asked_;
  }

 private:
  Mutex mutex_;
  bool answers_ EPIC_GUARDED_BY(mutex_) = true;
  int asked_ EPIC_GUARDED_BY(mutex_) = 0;
  v1::GetWorkerStatusResponse report_ EPIC_GUARDED_BY(mutex_);
  std::set<std::string> resident_ EPIC_GUARDED_BY(mutex_);
};

class WorkerPoolTest : public testing::Test, public Backends {
 protected:
  std::shared_ptr<CacheNodeBackend> CacheNode(const std::string&) override { return nullptr; }
  std::shared_ptr<WorkerBackend> Worker(const std::string& address) override { return workers_.at(address); }

  void SetUp() override {
    for (const auto& [address, worker] : workers_) worker->SetReport(0, 1000, 1e6);
  }

  // A prompt of `chunks` chunks of 1 MB, whose linking takes `link_tokens` rows.
  static ExpandedPrompt Prompt(int chunks, double link_tokens) {
    ExpandedPrompt prompt;
    for (int i = 0; i < chunks; ++i) {
      v1::ResolvedChunk& chunk = prompt.distinct_chunks.emplace_back();
      chunk.set_key(std::string(32, static_cast<char>('a' + i)));
      chunk.set_block_bytes(1'000'000);
    }
    prompt.chunk_bytes = chunks * 1e6;
    prompt.link_tokens = link_tokens;
    return prompt;
  }

  std::vector<WorkerView> Candidates(const ExpandedPrompt& prompt) {
    std::vector<WorkerView> candidates = pool_.Look(scope_).healthy;
    pool_.AskForChunks(scope_, prompt.distinct_chunks, &candidates);
    return candidates;
  }

  TimePoint now_ = TimePoint(std::chrono::hours(1));
  const CallScope scope_{std::chrono::steady_clock::now() + std::chrono::minutes(1)};
  std::map<std::string, std::shared_ptr<ReportingWorker>> workers_ = {{"w1:1", std::make_shared<ReportingWorker>()},
                                                                      {"w2:1", std::make_shared<ReportingWorker>()}};
  const std::unique_ptr<Membership> membership_ = *MakeStaticMembership({"n:1"}, {"w1:1", "w2:1"});
  WorkerPool pool_{membership_.get(), this, WorkerPoolOptions(), [this] { return now_; }};
};

TEST_F(WorkerPoolTest, AYoungReportIsUsedAgain) {
  EXPECT_THAT(pool_.Look(scope_).healthy, SizeIs(2));
  now_ += milliseconds(100);
  pool_.Look(scope_);
  EXPECT_EQ(workers_["w1:1"]->asked(), 1);
  now_ += milliseconds(1);
  pool_.Look(scope_);
  EXPECT_EQ(workers_["w1:1"]->asked(), 2);
}

TEST_F(WorkerPoolTest, AWorkerThatFailedIsLeftAloneForAWhile) {
  workers_["w1:1"]->SetAnswers(false);
  WorkersSeen seen = pool_.Look(scope_);
  ASSERT_THAT(seen.healthy, SizeIs(1));
  EXPECT_EQ(seen.healthy[0].address, "w2:1");
  EXPECT_THAT(seen.problems, ElementsAre("w1:1: nobody there"));
  now_ += milliseconds(900);
  pool_.Look(scope_);
  EXPECT_EQ(workers_["w1:1"]->asked(), 1);
  workers_["w1:1"]->SetAnswers(true);
  now_ += milliseconds(200);
  EXPECT_THAT(pool_.Look(scope_).healthy, SizeIs(2));
}

TEST_F(WorkerPoolTest, WhenAllFailedTheyAreAskedAgainAtOnce) {
  for (const auto& [address, worker] : workers_) worker->SetAnswers(false);
  EXPECT_THAT(pool_.Look(scope_).healthy, IsEmpty());
  workers_["w2:1"]->SetAnswers(true);
  EXPECT_THAT(pool_.Look(scope_).healthy, SizeIs(1));
}

TEST_F(WorkerPoolTest, ANotedFailureCounts) {
  pool_.Look(scope_);
  pool_.NoteFailure("w1:1", "the stream broke");
  const WorkersSeen seen = pool_.Look(scope_);
  EXPECT_THAT(seen.problems, ElementsAre("w1:1: the stream broke"));
}

TEST_F(WorkerPoolTest, ChunksAttractAndQueuesRepel) {
  const ExpandedPrompt prompt = Prompt(1, 100);
  workers_["w2:1"]->Hold(prompt.distinct_chunks[0].key());
  // Pulling takes one second: less than that much queue in front of the holder does not send the request away.
  workers_["w2:1"]->SetReport(900, 1000, 1e6);
  auto placement = pool_.Place("r", prompt, Candidates(prompt));
  EXPECT_EQ(placement->address(), "w2:1");
  EXPECT_EQ(placement->reason(), "nearest chunks");
  placement->Seen();
  workers_["w2:1"]->SetReport(1100, 1000, 1e6);
  placement = pool_.Place("r", prompt, Candidates(prompt));
  EXPECT_EQ(placement->address(), "w1:1");
  EXPECT_EQ(placement->reason(), "shortest queue");
}

TEST_F(WorkerPoolTest, AHotDocumentSpreadsOverWorkersBetweenTwoReports) {
  const ExpandedPrompt prompt = Prompt(1, 300);
  workers_["w2:1"]->Hold(prompt.distinct_chunks[0].key());
  const std::vector<WorkerView> candidates = Candidates(prompt);
  std::map<std::string, int> placed;
  std::vector<std::unique_ptr<WorkerPool::Placement>> running;
  for (int i = 0; i < 20; ++i) {
    running.push_back(pool_.Place(fmt::format("r{}", i), prompt, candidates));
    ++placed[running.back()->address()];
  }
  // One second of pulling is worth three requests of queue: the holder gets that many more, not all.
  EXPECT_GE(placed["w2:1"], 11);
  EXPECT_GE(placed["w1:1"], 7);
}

TEST_F(WorkerPoolTest, DispatchedWorkCountsUntilAReportShowsIt) {
  const ExpandedPrompt prompt = Prompt(0, 500);
  std::vector<WorkerView> candidates = Candidates(prompt);
  const auto first = pool_.Place("r1", prompt, candidates);
  const auto second = pool_.Place("r2", prompt, candidates);
  EXPECT_NE(first->address(), second->address());
  // A report asked for well after the dispatch shows an empty queue: the work was done.
  now_ += milliseconds(60);
  candidates = Candidates(prompt);
  workers_[first->address()]->SetReport(0, 1000, 1e6);
  const auto third = pool_.Place("r1", prompt, candidates);
  EXPECT_EQ(third->address(), first->address()) << "the same request among equals goes the same way";
}

TEST_F(WorkerPoolTest, AReportThatDoesNotComeLeavesTheOldOne) {
  const ExpandedPrompt prompt = Prompt(1, 100);
  workers_["w1:1"]->Hold(prompt.distinct_chunks[0].key());
  std::vector<WorkerView> candidates = pool_.Look(scope_).healthy;
  workers_["w1:1"]->SetAnswers(false);
  pool_.AskForChunks(scope_, prompt.distinct_chunks, &candidates);
  ASSERT_THAT(candidates, SizeIs(2));
  EXPECT_EQ(candidates[0].status.resident_size(), 0);
}

TEST(DispatchLedgerTest, EntriesLiveUntilRemovedOrSeen) {
  DispatchLedger ledger;
  const TimePoint start(std::chrono::hours(1));
  const uint64_t entry = ledger.Add("w", 100, start);
  ledger.Add("w", 10, start + milliseconds(20));
  ledger.Add("other", 1, start);
  EXPECT_EQ(ledger.TokensUnseen("w", start), 110);
  EXPECT_EQ(ledger.TokensUnseen("w", start + DispatchLedger::kReportDelay), 10);
  EXPECT_EQ(ledger.TokensUnseen("w", start + milliseconds(20) + DispatchLedger::kReportDelay), 0);
  ledger.Remove(entry);
  ledger.Remove(12345);
  EXPECT_EQ(ledger.TokensUnseen("w", start), 10);
}

TEST(RunInParallelTest, EveryItemOnce) {
  for (const size_t count : {size_t{0}, size_t{1}, size_t{100}}) {
    std::vector<std::atomic<int>> calls(count);
    RunInParallel(count, [&](size_t i) { ++calls[i]; });
    for (const auto& call : calls) EXPECT_EQ(call, 1);
  }
}

WorkerView ViewOf(const std::string& address, const std::string& name, const std::string& fingerprint) {
  WorkerView view;
  view.address = address;
  view.status.mutable_model()->set_name(name);
  view.status.mutable_model()->set_fingerprint(fingerprint);
  return view;
}

TEST(WorkersOfModelTest, NameFingerprintDefaultAndOnly) {
  const std::vector<WorkerView> one = {ViewOf("a", "smol", "f1"), ViewOf("b", "smol", "f1")};
  EXPECT_THAT(*WorkersOfModel("", "", one), SizeIs(2));
  EXPECT_THAT(*WorkersOfModel("smol", "", one), SizeIs(2));
  const std::vector<WorkerView> two = {ViewOf("a", "smol", "f1"), ViewOf("b", "large", "f2"),
                                       ViewOf("c", "smol", "f3")};
  EXPECT_EQ(WorkersOfModel("large", "", two)->at(0).address, "b");
  EXPECT_EQ(WorkersOfModel("f3", "", two)->at(0).address, "c");
  EXPECT_EQ(WorkersOfModel("", "large", two)->at(0).address, "b");
  EXPECT_EQ(WorkersOfModel("", "", two).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(WorkersOfModel("smol", "", two).status().message()), HasSubstr("smol (f1), smol (f3)"));
  const absl::Status unknown = WorkersOfModel("smoll", "", two).status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("did you mean \"smol\"?"));
}

}  // namespace
}  // namespace epic
