// The folder that a run writes and comes back to: run.json says what is measured, outcomes.jsonl has a line for each
// example and linker, in the order in which they were done.
//
// Each line is on stable storage before the next request begins. A run that was cut off goes on where it was: a last
// line that was written half is dropped. One run at a time writes a folder. Not thread-safe.
#ifndef EPIC_EVAL_RUN_FOLDER_H_
#define EPIC_EVAL_RUN_FOLDER_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "eval/outcome.h"

namespace epic::eval {

// What makes two runs comparable. A folder holds outcomes of one identity only; which linkers and how many examples
// were asked is not part of it, so that a run can be extended.
struct RunIdentity {
  std::string task;
  std::string data_digest;
  std::string prompt_template;
  std::string metric;
  int32_t output_tokens_max = 0;
  uint64_t seed = 0;
  std::string model;
  std::string fingerprint;
  std::string engine_version;
  std::string processor;
  std::string via;
  friend bool operator==(const RunIdentity&, const RunIdentity&) = default;
};

class RunFolder {
 public:
  // Makes the folder, or opens it where it holds the same identity. FAILED_PRECONDITION naming what differs where it
  // holds another run, where another process writes it, or where a line is damaged; INVALID_ARGUMENT where it holds
  // something else.
  static absl::StatusOr<std::unique_ptr<RunFolder>> Open(const std::string& path, const RunIdentity& identity);
  // What is in a folder that no run writes.
  static absl::StatusOr<std::unique_ptr<RunFolder>> Read(const std::string& path);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  absl::Status Add(const Outcome& outcome);
  absl::Status Add(const Skip& skip);

  const std::string& path() const { return path_; }
  const RunIdentity& identity() const { return identity_; }
  // Null where it has not been done. Valid until the next Add.
  const Outcome* Find(const std::string& example, const std::string& linker) const;
  bool IsSkipped(const std::string& example) const { return skipped_ids_.contains(example); }
  const std::vector<Outcome>& outcomes() const { return outcomes_; }  // in the order in which they were done
  const std::vector<Skip>& skipped() const { return skipped_; }

 private:
  RunFolder(std::string path, RunIdentity identity) : path_(std::move(path)), identity_(std::move(identity)) {}
  absl::Status ReadOutcomes(bool mend);
  absl::Status ReadLine(std::string_view text, const std::string& place);
  absl::Status Append(const nlohmann::ordered_json& json);
  void Take(Outcome outcome);
  void Take(Skip skip);

  const std::string path_;
  const RunIdentity identity_;
  int file_ = -1;
  std::vector<Outcome> outcomes_;
  std::map<std::pair<std::string, std::string>, size_t> index_;
  std::vector<Skip> skipped_;
  std::set<std::string> skipped_ids_;
};

}  // namespace epic::eval

#endif  // EPIC_EVAL_RUN_FOLDER_H_
