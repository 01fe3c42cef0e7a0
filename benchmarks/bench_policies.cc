// Which rows are worth running again: how far from full recompute a prompt ends by each of many choices of rows, at
// equal rows. For finding linkers, not for measuring those that there are (`epic eval` does that, through the servers):
// choices that turned out to be worth nothing have their place here alone.
//
// An example's prompt is evaluation's. Full recompute answers greedily, at most 16 tokens; every policy is then told
// the beginnings of that answer, and the KL divergence of its next-token distributions from full recompute's is
// averaged over them, of the whole vocabulary. What the table compares a policy with is head:<budget> over the same
// kind of chunks, in pairs, with bootstrap intervals over examples.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "benchmarks/policy_model.h"
#include "benchmarks/report.h"
#include "benchmarks/row_policy.h"
#include "core/status_macros.h"
#include "eval/bootstrap.h"
#include "eval/gate.h"
#include "eval/runner.h"
#include "eval/task.h"
#include "fmt/format.h"

namespace epic {
namespace {

struct Options {
  std::string model;
  int threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  std::string format = "table";
  std::string save;
  eval::TaskOptions task;
  std::vector<std::string> policies = {"naive",
                                       "head:16",
                                       "head:32",
                                       "share",
                                       "tail:16",
                                       "head:8+tail:8",
                                       "random",
                                       "blend",
                                       "head:4+blend",
                                       "head:8+blend",
                                       "head:4+stops",
                                       "head:4+pauses",
                                       "head:4+spread",
                                       "naive/behind:4",
                                       "naive/behind:16",
                                       "naive/behind:1000",
                                       "head:16/behind:4",
                                       "head:16/behind:1000",
                                       "head:4+stops/behind:1000",
                                       "naive@document",
                                       "head:16@document",
                                       "share@document",
                                       "head:8+tail:8@document",
                                       "blend@document",
                                       "head:8+blend@document",
                                       "head:4+stops@document",
                                       "head:16@document/behind:1000"};
  int budget = 16;
  bool quick = false;
};

// What one policy made of one example.
struct Measurement {
  std::string example;
  double kl = 0;
  bool first_token_agrees = false;
  int32_t prompt_tokens = 0;
  int32_t selected_rows = 0;
  double recomputed_rows = 0;
  double seconds = 0;
};

// KL(p || q) in nats.
double Divergence(const LogProbabilities& p, const LogProbabilities& q) {
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += std::exp(static_cast<double>(p[i])) * (static_cast<double>(p[i]) - q[i]);
  return std::max(0.0, sum);
}

int32_t Likeliest(const LogProbabilities& p) {
  return static_cast<int32_t>(std::max_element(p.begin(), p.end()) - p.begin());
}

class Bench {
 public:
  Bench(Options options, std::vector<RowPolicy> policies, PolicyModel& model)
      : options_(std::move(options)), model_(model), policies_(std::move(policies)) {}

  absl::Status Run() {
    EPIC_ASSIGN_OR_RETURN(task_, LoadTask());
    for (size_t i = 0; i < task_.examples.size(); ++i) EPIC_RETURN_IF_ERROR(RunExample(i));
    ShowProgress("");
    if (examples_done_ == 0) {
      return absl::InvalidArgumentError("no prompt fits the model's context; take shorter examples");
    }
    return absl::OkStatus();
  }

  int Print() const {
    Report report = StartReport("policies", options_.threads);
    report["model"] = model_.config().name;
    report["task"] = task_.name;
    report["data_digest"] = task_.data_digest;
    report["seed"] = options_.task.seed;
    report["budget"] = options_.budget;
    report["examples"] = examples_done_;
    report["skipped"] = task_.examples.size() - examples_done_;
    for (const RowPolicy& policy : policies_) {
      for (const Measurement& m : measurements_.at(policy.name)) {
        report["results"].push_back({{"example", m.example},
                                     {"policy", policy.name},
                                     {"kl", m.kl},
                                     {"first_token_agrees", m.first_token_agrees},
                                     {"prompt_tokens", m.prompt_tokens},
                                     {"selected_rows", m.selected_rows},
                                     {"recomputed_rows", m.recomputed_rows},
                                     {"link_seconds", m.seconds}});
      }
    }
    return PrintReport(std::move(report), Table(), options_.format, options_.save);
  }

 private:
  absl::StatusOr<eval::Task> LoadTask() const {
    if (options_.task.name != "gate") return eval::LoadTask(options_.task);
    EPIC_ASSIGN_OR_RETURN(eval::Task task, eval::LoadGateTask(options_.task.data));
    const size_t taken = options_.task.examples_max == 0 ? task.examples.size() : options_.task.examples_max;
    task.examples.resize(std::min(taken, task.examples.size()));
    return task;
  }

  void ShowProgress(const std::string& text) const {
    std::cerr << "\r\033[K" << text << std::flush;  // one line, rewritten
  }

  absl::Status RunExample(size_t index) {
    const eval::Example& example = task_.examples[index];
    const std::string place = fmt::format("{}: example {} of {}", task_.name, index + 1, task_.examples.size());
    ShowProgress(place + ", full");
    EPIC_ASSIGN_OR_RETURN(const std::vector<PromptSegment> prompt, model_.Prompt(example, false));
    EPIC_ASSIGN_OR_RETURN(const std::vector<PromptSegment> whole, model_.Prompt(example, true));
    const int32_t tokens = SegmentOffsets(prompt).back();
    if (tokens + eval::kReferencePositions > model_.config().context_length) return absl::OkStatus();
    model_.Forget();
    const PolicyModel::Reference reference = model_.RunFull(prompt, eval::kReferencePositions);
    for (const RowPolicy& policy : policies_) {
      ShowProgress(fmt::format("{}, {}", place, policy.name));
      const PolicyModel::Linked linked =
          model_.Link(policy.whole_documents ? whole : prompt, policy, options_.budget, reference.answer);
      Measurement m{example.id, 0, false, tokens, linked.selected_rows, linked.recomputed_rows, linked.seconds};
      for (size_t i = 0; i < reference.answer.size(); ++i) {
        m.kl += Divergence(reference.distributions[i], linked.distributions[i]) /
                static_cast<double>(reference.answer.size());
      }
      m.first_token_agrees = Likeliest(linked.distributions.front()) == reference.answer.front();
      measurements_[policy.name].push_back(std::move(m));
    }
    ++examples_done_;
    return absl::OkStatus();
  }

  std::vector<double> Divergences(const std::string& policy) const {
    std::vector<double> values;
    if (!measurements_.contains(policy)) return values;
    for (const Measurement& m : measurements_.at(policy)) values.push_back(m.kl);
    return values;
  }

  std::string Table() const {
    std::string table = fmt::format(
        "{}, {}, {} examples (seed {}), {} do not fit the context; {}, {} threads\n\n{:<32} {:>8} {:>30} {:>8} {:>7} "
        "{:>7} "
        "{:>9}\n",
        model_.config().name, task_.name, examples_done_, options_.task.seed, task_.examples.size() - examples_done_,
        ProcessorName(), options_.threads, "policy", "KL, nats", fmt::format("to head:{} of its kind", options_.budget),
        "gap", "agrees", "M/N", "rows run");
    for (const RowPolicy& policy : policies_) table += Row(policy);
    return table;
  }

  std::string Row(const RowPolicy& policy) const {
    const std::vector<Measurement>& measured = measurements_.at(policy.name);
    const std::vector<double> values = Divergences(policy.name);
    const auto count = static_cast<double>(measured.size());
    double kl = 0, agrees = 0, selected = 0, run = 0;
    for (const Measurement& m : measured) {
      kl += m.kl / count;
      agrees += m.first_token_agrees ? 1 / count : 0;
      selected += m.selected_rows / (count * m.prompt_tokens);
      run += m.recomputed_rows / (count * m.prompt_tokens);
    }
    const std::string peer = fmt::format("head:{}{}", options_.budget, policy.whole_documents ? "@document" : "");
    std::string difference, gap;
    if (const std::vector<double> peers = Divergences(peer); !peers.empty() && peer != policy.name) {
      const eval::Interval d = eval::BootstrapPairedDifference(values, peers, options_.task.seed);
      difference = fmt::format("{:+.4f} [{:+.4f}, {:+.4f}]", d.mean, d.low, d.high);
    }
    if (const std::vector<double> naive = Divergences("naive"); !naive.empty()) {
      gap = fmt::format("{:.2f}", eval::BootstrapGapClosed(values, naive, options_.task.seed, 1).mean);
    }
    return fmt::format("{:<32} {:>8.4f} {:>30} {:>8} {:>6.0f}% {:>6.1f}% {:>8.1f}%\n", policy.name, kl, difference, gap,
                       100 * agrees, 100 * selected, 100 * run);
  }

  Options options_;
  PolicyModel& model_;
  std::vector<RowPolicy> policies_;
  eval::Task task_;
  std::map<std::string, std::vector<Measurement>> measurements_;  // by policy, in the order of the examples
  size_t examples_done_ = 0;
};

int Fail(const absl::Status& status) {
  std::cerr << "error: " << status.message() << "\n";
  return 1;
}

int Main(const Options& options) {
  std::vector<RowPolicy> policies;
  for (const std::string& name : options.policies) {
    absl::StatusOr<RowPolicy> policy = RowPolicy::Parse(name);
    if (!policy.ok()) return Fail(policy.status());
    if (std::ranges::any_of(policies, [&](const RowPolicy& known) { return known.name == name; })) {
      return Fail(absl::InvalidArgumentError(fmt::format("policy {} is named twice", name)));
    }
    policies.push_back(*std::move(policy));
  }
  absl::StatusOr<std::unique_ptr<PolicyModel>> model = PolicyModel::Open(options.model, options.threads);
  if (!model.ok()) return Fail(model.status());
  Bench bench(options, std::move(policies), **model);
  if (const absl::Status status = bench.Run(); !status.ok()) return Fail(status);
  return bench.Print();
}

}  // namespace
}  // namespace epic

int main(int argc, char** argv) {
  epic::Options options;
  options.task = {.name = "gate", .data = "examples", .examples_max = 0};
  CLI::App app("How far from full recompute a prompt ends, by each of many choices of rows, at equal rows");
  app.add_option("--model", options.model, "a GGUF file or a folder of safetensors")->envname("EPIC_MODEL")->required();
  app.add_option("--threads", options.threads, "compute threads; default: one a core")->check(CLI::Range(1, 1024));
  app.add_option("--task", options.task.name, "a task of `epic eval`, or gate: the questions of `epic eval gate`");
  app.add_option("--data", options.task.data, "the task's data; for gate a folder as examples/ is");
  app.add_option("--examples", options.task.examples_max, "how many, 0: all")->check(CLI::Range(0, 1 << 20));
  app.add_option("--seed", options.task.seed, "which examples, in which order");
  app.add_option("--needle-words", options.task.needle_words, "lengths, comma-separated")->delimiter(',');
  app.add_option("--policies", options.policies, "comma-separated; benchmarks/row_policy.h says which")->delimiter(',');
  app.add_option("--budget", options.budget, "k of the head:<k> whose rows others may spend")
      ->check(CLI::Range(1, 4096));
  app.add_option("--format", options.format)->check(CLI::IsMember({"table", "json"}));
  app.add_option("--save", options.save, "a file that the JSON is written to besides");
  app.add_flag("--quick", options.quick, "two examples and three policies: shows that the program works");
  CLI11_PARSE(app, argc, argv);
  if (options.quick) {
    options.task.examples_max = 2;
    options.policies = {"naive", "head:16", "head:4+blend@document"};
  }
  return epic::Main(options);
}
