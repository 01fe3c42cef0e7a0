// The one scheme of configuration: every option is declared once, and is then a flag, an environment variable and a
// YAML key of the same name, a row of --help, of --print-config and of docs/configuration.md.
//
//     RouterOptions options;                          // its members hold the defaults
//     Config config("epic-router", "The address that clients talk to.");
//     config.AddBytes("kv-capacity-bytes", &options.kv_capacity_bytes, {.min = 1 << 20}, "Memory for ...");
//     absl::StatusOr<ConfigOutcome> outcome = config.Parse(argc, argv);
//
// "kv-capacity-bytes" is the flag --kv-capacity-bytes, the environment variable EPIC_KV_CAPACITY_BYTES and the key
// kv-capacity-bytes of the file named by --config (or EPIC_CONFIG). A flag wins over the environment, which wins over
// the file, which wins over the default: the value that the bound variable has when the option is declared.
//
// Values: bytes take a suffix KiB, MiB, GiB or TiB ("4GiB"), durations ms, s, min or h ("250ms"; a bare number is
// milliseconds), booleans true or false (a bare --flag is true), lists are separated by commas (a YAML sequence in the
// file; a flag may also be given several times).
//
// Errors: INVALID_ARGUMENT with every problem of all sources in one message, one a line; unknown flags and keys name
// the nearest known one. Unknown EPIC_ variables are let be: orchestrators set such names themselves. Not thread-safe;
// the bound variables must outlive the Config and are changed by a successful Parse only.
#ifndef EPIC_SERVER_CONFIG_H_
#define EPIC_SERVER_CONFIG_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace epic {

// Both inclusive. For bytes and durations they count bytes and milliseconds.
struct ConfigBounds {
  int64_t min = 0;
  int64_t max = std::numeric_limits<int64_t>::max();
};

struct ConfigOutcome {
  // --help, --version, --print-config or --print-config-docs was given: print `output` and exit with 0.
  bool exit = false;
  std::string output;
  // What stood on the command line beside flags. Empty unless AllowPositional was called.
  std::vector<std::string> positional;
};

class Config {
 public:
  // The value of an environment variable, or nothing. Tests pass their own.
  using Environment = std::function<std::optional<std::string>(const std::string& name)>;

  // `description` is one sentence for --help and the documentation.
  Config(std::string program, std::string description);
  ~Config();
  Config(const Config&) = delete;
  Config& operator=(const Config&) = delete;

  // REQUIRES: `name` is lower-case words joined by hyphens, not declared yet, none of config, help, version,
  // print-config, print-config-docs. `description` is a sentence that names the unit where the type does not.
  void AddString(std::string name, std::string* value, std::string description);
  void AddChoice(std::string name, std::string* value, std::vector<std::string> choices, std::string description);
  void AddInt64(std::string name, int64_t* value, ConfigBounds bounds, std::string description);
  void AddInt32(std::string name, int32_t* value, ConfigBounds bounds, std::string description);
  void AddBytes(std::string name, int64_t* value, ConfigBounds bounds, std::string description);
  void AddBytes(std::string name, size_t* value, ConfigBounds bounds, std::string description);
  void AddBool(std::string name, bool* value, std::string description);
  // From 0 to 1.
  void AddShare(std::string name, double* value, std::string description);
  void AddStringList(std::string name, std::vector<std::string>* value, std::string description);
  void AddDuration(std::string name, std::chrono::milliseconds* value, ConfigBounds bounds, std::string description);
  // Words beside flags are then returned instead of refused. `description` names them in --help.
  void AllowPositional(std::string description);

  // Reads the file, the environment and the flags. On error no bound variable has changed.
  absl::StatusOr<ConfigOutcome> Parse(int argc, const char* const* argv);
  absl::StatusOr<ConfigOutcome> Parse(const std::vector<std::string>& arguments, const Environment& environment);

  // One line an option after Parse, itself a file that --config takes: "name: value  # default", where the comment says
  // where the value came from: default, file PATH, environment EPIC_NAME or flag.
  std::string PrintedConfig() const;
  // The program's section of docs/configuration.md.
  std::string Documentation() const;
  std::string Help() const;

 private:
  struct Option;
  struct Problems;
  // Texts that a source gave for an option, as they stood there.
  using Texts = std::vector<std::string>;

  void Add(std::unique_ptr<Option> option);
  Option* Find(std::string_view name) const;
  std::vector<std::string> KnownNames() const;
  // Each reads one source into the options' pending values.
  void ReadFlags(const std::vector<std::string>& arguments, ConfigOutcome* outcome, Problems* problems);
  void ReadEnvironment(const Environment& environment, Problems* problems);
  void ReadFile(const std::string& path, Problems* problems);
  void Offer(Option* option, int precedence, const std::string& origin, const Texts& texts, Problems* problems);

  std::string program_;
  std::string description_;
  bool positional_allowed_ = false;
  std::string positional_description_;
  std::vector<std::unique_ptr<Option>> options_;
  std::string config_path_;  // --config's own value
};

// What main() does with Parse's answer: prints the output or the error and returns the exit code (0 or 2), or nothing
// when the program should go on.
std::optional<int> ExitCodeOf(const absl::StatusOr<ConfigOutcome>& outcome);

}  // namespace epic

#endif  // EPIC_SERVER_CONFIG_H_
