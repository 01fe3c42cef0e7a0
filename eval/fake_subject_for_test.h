// A stand-in for a running EPIC: answers by rule, counts what it is asked, fails when told to.
#ifndef EPIC_EVAL_FAKE_SUBJECT_FOR_TEST_H_
#define EPIC_EVAL_FAKE_SUBJECT_FOR_TEST_H_

#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "eval/subject.h"
#include "fmt/format.h"

namespace epic::eval {

class FakeSubject : public Subject {
 public:
  // Full, prefix and legolink:16 answer "right one", all others "wrong", in two tokens and a stop. Each document counts
  // 100 tokens, everything fresh 10. The distribution at every position has token 7 with probability 0.75 for full and
  // prefix, with `shared_probability` for all others; the rest is token 9's.
  double shared_probability = 0.5;
  std::map<std::string, std::vector<absl::Status>> failures;  // by linker: what its next requests answer
  std::set<std::string> refused_documents;

  std::vector<Trial> trials;  // every request, in order
  std::vector<std::string> registered;
  std::vector<std::string> forgotten;

  const SubjectDescription& description() const override { return description_; }
  absl::StatusOr<std::string> Register(const std::string& text) override {
    if (refused_documents.contains(text)) return absl::InvalidArgumentError("the text is no document");
    registered.push_back(text);
    return "id of " + text;
  }
  absl::Status Forget(const std::string& document_id) override {
    forgotten.push_back(document_id);
    return absl::OkStatus();
  }
  absl::StatusOr<TrialResult> Ask(const Trial& trial) override {
    trials.push_back(trial);
    if (std::vector<absl::Status>& waiting = failures[trial.linker]; !waiting.empty()) {
      const absl::Status status = waiting.front();
      waiting.erase(waiting.begin());
      return status;
    }
    const bool runs_all = trial.linker == "full" || trial.linker == "prefix";
    const bool is_right = runs_all || trial.linker == "legolink:16";
    const auto documents = static_cast<int32_t>(trial.document_ids.size());
    TrialResult result;
    result.usage.prompt_tokens = 100 * documents + 10;
    result.usage.cached_tokens = 100 * documents;
    result.usage.selected_tokens = runs_all ? result.usage.prompt_tokens : 10 + (is_right ? 16 * documents : 0);
    result.usage.recomputed_tokens = result.usage.selected_tokens;
    result.timing.ttft_us = runs_all ? 8000 : 1000;
    result.timing.link_us = result.timing.ttft_us - 500;
    if (!trial.continuation.empty()) {
      const double seven = runs_all ? 0.75 : shared_probability;
      const std::vector<TokenProbability> top = {{7, static_cast<float>(std::log(seven))},
                                                 {9, static_cast<float>(std::log(1 - seven))}};
      result.top.assign(trial.continuation.size(), top);
      return result;
    }
    result.text = is_right ? "right one" : "wrong";
    result.token_ids = is_right ? std::vector<int32_t>{7, 8} : std::vector<int32_t>{9};
    result.stopped = true;
    return result;
  }

 private:
  SubjectDescription description_{"fake", "f00d", "0.0", "a test", 64, 4096};
};

}  // namespace epic::eval

#endif  // EPIC_EVAL_FAKE_SUBJECT_FOR_TEST_H_
