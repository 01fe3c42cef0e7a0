#include "server/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <utility>

#include "core/nearest_name.h"
#include "core/status_macros.h"
#include "server/config_values.h"
#include "server/server_options.h"

namespace epic {
namespace {

constexpr int kFromFile = 1;
constexpr int kFromEnvironment = 2;
constexpr int kFromFlag = 3;
// A configuration file is written by hand; a larger one is the wrong file.
constexpr size_t kConfigFileBytesMax = 1u << 20;

std::string EnvironmentName(std::string_view option) {
  std::string name = "EPIC_";
  for (const char c : option) name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

std::string Quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}

absl::Status CheckBounds(int64_t value, const ConfigBounds& bounds, std::string (*format)(int64_t)) {
  if (value >= bounds.min && value <= bounds.max) return absl::OkStatus();
  if (bounds.max == std::numeric_limits<int64_t>::max()) {
    return absl::InvalidArgumentError(fmt::format("{} is below the least value {}", format(value), format(bounds.min)));
  }
  return absl::InvalidArgumentError(
      fmt::format("{} is outside [{}, {}]", format(value), format(bounds.min), format(bounds.max)));
}

// NameHint's list of all known names would be a page here; --help shows them with their meaning.
std::string Suggestion(std::string_view name, const std::vector<std::string>& known) {
  const std::optional<std::string> nearest = NearestName(name, known);
  return nearest.has_value() ? fmt::format("; did you mean {}?", *nearest) : "; see --help";
}

std::string FormatInteger(int64_t value) { return std::to_string(value); }

std::string BoundsText(const ConfigBounds& bounds, std::string (*format)(int64_t)) {
  if (bounds.max != std::numeric_limits<int64_t>::max()) {
    return fmt::format(", {} to {}", format(bounds.min), format(bounds.max));
  }
  return bounds.min == std::numeric_limits<int64_t>::min() ? "" : fmt::format(", at least {}", format(bounds.min));
}

absl::StatusOr<std::string> Single(const std::vector<std::string>& texts) {
  if (texts.size() != 1) {
    return absl::InvalidArgumentError(fmt::format("takes one value; {} were given", texts.size()));
  }
  return texts[0];
}

std::vector<std::string> SplitList(const std::vector<std::string>& texts) {
  std::vector<std::string> items;
  for (const std::string& text : texts) {
    std::stringstream stream(text);
    for (std::string item; std::getline(stream, item, ',');) {
      const size_t first = item.find_first_not_of(' ');
      if (first == std::string::npos) continue;
      items.push_back(item.substr(first, item.find_last_not_of(' ') - first + 1));
    }
  }
  return items;
}

}  // namespace

struct Config::Option {
  std::string name;
  std::string type;  // for people: "size, at least 1MiB"
  std::string description;
  bool is_bool = false;
  // Checks the texts and returns what stores their value, so that nothing changes before everything was checked.
  std::function<absl::StatusOr<std::function<void()>>(const Texts&)> parse;
  std::function<std::string()> format;  // the bound variable's present value, as YAML
  std::string default_text;

  int pending_precedence = 0;
  std::function<void()> pending;
  std::string pending_origin;
  std::string origin = "default";
};

struct Config::Problems {
  std::vector<std::string> messages;
  void Add(std::string message) { messages.push_back(std::move(message)); }
};

Config::Config(std::string program, std::string description)
    : program_(std::move(program)), description_(std::move(description)) {
  AddString("config", &config_path_, "YAML file with any of these options as keys.");
}

Config::~Config() = default;

void Config::Add(std::unique_ptr<Option> option) {
  assert(Find(option->name) == nullptr && "an option is declared once");
  option->default_text = option->format();
  options_.push_back(std::move(option));
}

Config::Option* Config::Find(std::string_view name) const {
  for (const auto& option : options_) {
    if (option->name == name) return option.get();
  }
  return nullptr;
}

std::vector<std::string> Config::KnownNames() const {
  std::vector<std::string> names;
  for (const auto& option : options_) names.push_back(option->name);
  return names;
}

void Config::AddString(std::string name, std::string* value, std::string description) {
  auto option = std::make_unique<Option>();
  option->name = std::move(name);
  option->type = "text";
  option->description = std::move(description);
  option->format = [value] { return Quoted(*value); };
  option->parse = [value](const Texts& texts) -> absl::StatusOr<std::function<void()>> {
    EPIC_ASSIGN_OR_RETURN(std::string text, Single(texts));
    return std::function<void()>([value, text] { *value = text; });
  };
  Add(std::move(option));
}

void Config::AddChoice(std::string name, std::string* value, std::vector<std::string> choices,
                       std::string description) {
  auto option = std::make_unique<Option>();
  option->name = std::move(name);
  option->type = fmt::format("one of {}", fmt::join(choices, ", "));
  option->description = std::move(description);
  option->format = [value] { return *value; };
  option->parse = [value, choices = std::move(choices)](const Texts& texts) -> absl::StatusOr<std::function<void()>> {
    EPIC_ASSIGN_OR_RETURN(std::string text, Single(texts));
    if (std::find(choices.begin(), choices.end(), text) == choices.end()) {
      return absl::InvalidArgumentError(fmt::format("\"{}\" is none of {}", text, fmt::join(choices, ", ")));
    }
    return std::function<void()>([value, text] { *value = text; });
  };
  Add(std::move(option));
}

namespace {

// The parse function of every number: `read` turns text into an int64, which the bounds then hold.
template <typename T>
auto NumberParser(T* value, ConfigBounds bounds, absl::StatusOr<int64_t> (*read)(std::string_view),
                  std::string (*format)(int64_t)) {
  return [=](const std::vector<std::string>& texts) -> absl::StatusOr<std::function<void()>> {
    EPIC_ASSIGN_OR_RETURN(const std::string text, Single(texts));
    EPIC_ASSIGN_OR_RETURN(const int64_t number, read(text));
    EPIC_RETURN_IF_ERROR(CheckBounds(number, bounds, format));
    return std::function<void()>([value, number] { *value = static_cast<T>(number); });
  };
}

}  // namespace

void Config::AddInt64(std::string name, int64_t* value, ConfigBounds bounds, std::string description) {
  auto option = std::make_unique<Option>();
  option->name = std::move(name);
  option->type = "number" + BoundsText(bounds, FormatInteger);
  option->description = std::move(description);
  option->format = [value] { return FormatInteger(*value); };
  option->parse = NumberParser(value, bounds, ParseInteger, FormatInteger);
  Add(std::move(option));
}

void Config::AddInt32(std::string name, int32_t* value, ConfigBounds bounds, std::string description) {
  bounds.min = std::max<int64_t>(bounds.min, std::numeric_limits<int32_t>::min());
  bounds.max = std::min<int64_t>(bounds.max, std::numeric_limits<int32_t>::max());
  auto option = std::make_unique<Option>();
  option->name = std::move(name);
  option->type = "number" + BoundsText(bounds, FormatInteger);
  option->description = std::move(description);
  option->format = [value] { return FormatInteger(*value); };
  option->parse = NumberParser(value, bounds, ParseInteger, FormatInteger);
  Add(std::move(option));
}

void Config::AddBytes(std::string name, int64_t* value, ConfigBounds bounds, std::string description) {
  auto option = std::make_unique<Option>();
  option->name = std::move(name);
  option->type = "size" + BoundsText(bounds, FormatBytes);
  option->description = std::move(description);
  option->format = [value] { return FormatBytes(*value); };
  option->parse = NumberParser(value, bounds, ParseBytes, FormatBytes);
  Add(std::move(option));
}

void Config::AddBytes(std::string name, size_t* value, ConfigBounds bounds, std::string description) {
  bounds.min = std::max<int64_t>(bounds.min, 0);
  auto option = std::make_unique<Option>();
  option->name = std::move(name);
  option->type = "size" + BoundsText(bounds, FormatBytes);
  option->description = std::move(description);
  option->format = [value] { return FormatBytes(static_cast<int64_t>(*value)); };
  option->parse = NumberParser(value, bounds, ParseBytes, FormatBytes);
  Add(std::move(option));
}

void Config::AddBool(std::string name, bool* value, std::string description) {
  auto option = std::make_unique<Option>();
  option->name = std::move(name);
  option->type = "true or false";
  option->description = std::move(description);
  option->is_bool = true;
  option->format = [value] { return std::string(*value ? "true" : "false"); };
  option->parse = [value](const Texts& texts) -> absl::StatusOr<std::function<void()>> {
    EPIC_ASSIGN_OR_RETURN(const std::string text, Single(texts));
    if (text != "true" && text != "false") {
      return absl::InvalidArgumentError(fmt::format("\"{}\" is neither true nor false", text));
    }
    return std::function<void()>([value, truth = text == "true"] { *value = truth; });
  };
  Add(std::move(option));
}

void Config::AddShare(std::string name, double* value, std::string description) {
  auto option = std::make_unique<Option>();
  option->name = std::move(name);
  option->type = "share, 0 to 1";
  option->description = std::move(description);
  option->format = [value] { return FormatShare(*value); };
  option->parse = [value](const Texts& texts) -> absl::StatusOr<std::function<void()>> {
    EPIC_ASSIGN_OR_RETURN(const std::string text, Single(texts));
    EPIC_ASSIGN_OR_RETURN(const double share, ParseShare(text));
    return std::function<void()>([value, share] { *value = share; });
  };
  Add(std::move(option));
}

void Config::AddStringList(std::string name, std::vector<std::string>* value, std::string description) {
  auto option = std::make_unique<Option>();
  option->name = std::move(name);
  option->type = "list";
  option->description = std::move(description);
  option->format = [value] {
    std::vector<std::string> quoted;
    for (const std::string& item : *value) quoted.push_back(Quoted(item));
    return fmt::format("[{}]", fmt::join(quoted, ", "));
  };
  option->parse = [value](const Texts& texts) -> absl::StatusOr<std::function<void()>> {
    return std::function<void()>([value, items = SplitList(texts)] { *value = items; });
  };
  Add(std::move(option));
}

void Config::AddDuration(std::string name, std::chrono::milliseconds* value, ConfigBounds bounds,
                         std::string description) {
  auto option = std::make_unique<Option>();
  option->name = std::move(name);
  option->type = "duration" + BoundsText(bounds, FormatDurationMs);
  option->description = std::move(description);
  option->format = [value] { return FormatDurationMs(value->count()); };
  option->parse = NumberParser(value, bounds, ParseDurationMs, FormatDurationMs);
  Add(std::move(option));
}

void Config::AllowPositional(std::string description) {
  positional_allowed_ = true;
  positional_description_ = std::move(description);
}

void Config::Offer(Option* option, int precedence, const std::string& origin, const Texts& texts, Problems* problems) {
  absl::StatusOr<std::function<void()>> store = option->parse(texts);
  if (!store.ok()) {
    problems->Add(fmt::format("{} (from {}): {}", option->name, origin, std::string(store.status().message())));
    return;
  }
  if (precedence < option->pending_precedence) return;
  option->pending_precedence = precedence;
  option->pending = *std::move(store);
  option->pending_origin = origin;
}

void Config::ReadFlags(const std::vector<std::string>& arguments, ConfigOutcome* outcome, Problems* problems) {
  std::vector<std::pair<Option*, Texts>> given;
  const std::vector<std::string> built_in = {"help", "version", "print-config", "print-config-docs"};
  bool flags_ended = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (flags_ended || !argument.starts_with("--")) {
      if (!positional_allowed_) {
        problems->Add(
            fmt::format("\"{}\" is not a flag; {} takes flags of the form --name=value only", argument, program_));
      }
      outcome->positional.push_back(argument);
      continue;
    }
    if (argument == "--") {
      flags_ended = true;
      continue;
    }
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(2, equals == std::string::npos ? equals : equals - 2);
    if (std::find(built_in.begin(), built_in.end(), name) != built_in.end()) continue;  // Parse looks at these
    Option* option = Find(name);
    if (option == nullptr) {
      std::vector<std::string> known = KnownNames();
      known.insert(known.end(), built_in.begin(), built_in.end());
      problems->Add(fmt::format("unknown flag --{}{}", name, Suggestion(name, known)));
      // Its value, if it has one, would otherwise be reported as a second problem.
      if (equals == std::string::npos && i + 1 < arguments.size() && !arguments[i + 1].starts_with("--")) ++i;
      continue;
    }
    std::string text;
    if (equals != std::string::npos) {
      text = argument.substr(equals + 1);
    } else if (option->is_bool) {
      text = "true";
    } else if (i + 1 < arguments.size() && !arguments[i + 1].starts_with("--")) {
      text = arguments[++i];
    } else {
      problems->Add(fmt::format("--{} needs a value: {}", name, option->type));
      continue;
    }
    const auto earlier =
        std::find_if(given.begin(), given.end(), [&](const auto& entry) { return entry.first == option; });
    if (earlier == given.end()) {
      given.emplace_back(option, Texts{text});
    } else {
      earlier->second.push_back(text);
    }
  }
  for (const auto& [option, texts] : given) Offer(option, kFromFlag, "flag", texts, problems);
}

void Config::ReadEnvironment(const Environment& environment, Problems* problems) {
  for (const auto& option : options_) {
    const std::string variable = EnvironmentName(option->name);
    if (const std::optional<std::string> text = environment(variable)) {
      Offer(option.get(), kFromEnvironment, "environment " + variable, {*text}, problems);
    }
  }
}

void Config::ReadFile(const std::string& path, Problems* problems) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    problems->Add(fmt::format("config: {} cannot be read", path));
    return;
  }
  std::string text(kConfigFileBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kConfigFileBytesMax) {
    problems->Add(fmt::format("config: {} is larger than {}, which is no configuration file", path,
                              FormatBytes(kConfigFileBytesMax)));
    return;
  }
  try {
    const YAML::Node root = YAML::Load(text);
    if (root.IsNull()) return;
    if (!root.IsMap()) {
      problems->Add(fmt::format("{}: expected \"name: value\" lines", path));
      return;
    }
    std::set<std::string> seen;
    for (const auto& entry : root) {
      const std::string name = entry.first.as<std::string>();
      Option* option = Find(name);
      if (option == nullptr || option->name == "config") {
        problems->Add(fmt::format("{}: line {}: unknown key {}{}", path, entry.first.Mark().line + 1, name,
                                  Suggestion(name, KnownNames())));
        continue;
      }
      if (!seen.insert(name).second) {
        problems->Add(fmt::format("{}: line {}: {} is set twice", path, entry.first.Mark().line + 1, name));
        continue;
      }
      Texts texts;
      if (entry.second.IsSequence()) {
        for (const auto& item : entry.second) texts.push_back(item.as<std::string>());
        if (texts.empty()) texts.emplace_back();
      } else if (entry.second.IsScalar()) {
        texts.push_back(entry.second.as<std::string>());
      } else {
        problems->Add(fmt::format("{}: line {}: {} has no plain value; expected {}", path, entry.first.Mark().line + 1,
                                  name, option->type));
        continue;
      }
      Offer(option, kFromFile, "file " + path, texts, problems);
    }
  } catch (const YAML::Exception& error) {
    problems->Add(fmt::format("{}: not readable as YAML: {}", path, error.what()));
  }
}

absl::StatusOr<ConfigOutcome> Config::Parse(int argc, const char* const* argv) {
  std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  return Parse(arguments, [](const std::string& name) -> std::optional<std::string> {
    const char* text = std::getenv(name.c_str());
    return text == nullptr ? std::nullopt : std::optional<std::string>(text);
  });
}

absl::StatusOr<ConfigOutcome> Config::Parse(const std::vector<std::string>& arguments, const Environment& environment) {
  ConfigOutcome outcome;
  const auto given = [&](std::string_view flag) {
    const auto end = std::find(arguments.begin(), arguments.end(), "--");
    return std::find(arguments.begin(), end, flag) != end;
  };
  outcome.exit = true;
  if (given("--help")) return outcome.output = Help(), outcome;
  if (given("--version")) return outcome.output = fmt::format("{} {}\n", program_, EpicVersion()), outcome;
  if (given("--print-config-docs")) return outcome.output = Documentation(), outcome;
  outcome.exit = false;

  for (const auto& option : options_) {
    option->pending_precedence = 0;
    option->pending = nullptr;
  }
  Problems problems;
  ReadFlags(arguments, &outcome, &problems);
  ReadEnvironment(environment, &problems);
  Option* const config = Find("config");
  if (config->pending) {
    config->pending();
    ReadFile(config_path_, &problems);
  }
  if (!problems.messages.empty()) {
    return absl::InvalidArgumentError(fmt::format("{}", fmt::join(problems.messages, "\n")));
  }
  for (const auto& option : options_) {
    if (!option->pending) continue;
    option->pending();
    option->origin = option->pending_origin;
  }
  if (given("--print-config")) {
    outcome.exit = true;
    outcome.output = PrintedConfig();
  }
  return outcome;
}

std::string Config::PrintedConfig() const {
  std::string text;
  for (const auto& option : options_) {
    if (option->name == "config") continue;
    text += fmt::format("{}: {}  # {}\n", option->name, option->format(), option->origin);
  }
  return text;
}

std::string Config::Documentation() const {
  std::string text =
      fmt::format("## {}\n\n{}\n\n| flag and key | environment | value | default | meaning |\n|---|---|---|---|---|\n",
                  program_, description_);
  for (const auto& option : options_) {
    text += fmt::format("| `--{}` | `{}` | {} | `{}` | {} |\n", option->name, EnvironmentName(option->name),
                        option->type, option->default_text, option->description);
  }
  return text;
}

std::string Config::Help() const {
  std::string text = fmt::format("{}: {}\n\nusage: {} [--name=value ...]{}\n\n", program_, description_, program_,
                                 positional_allowed_ ? " " + positional_description_ : "");
  for (const auto& option : options_) {
    text += fmt::format("  --{}\n        {}\n        {}; default {}; also {}\n", option->name, option->description,
                        option->type, option->default_text, EnvironmentName(option->name));
  }
  text +=
      "  --print-config\n        Print every option's value and where it comes from, and exit.\n"
      "  --print-config-docs\n        Print the table of options for the documentation, and exit.\n"
      "  --version\n  --help\n\nA flag wins over the environment, which wins over the file, which wins over the "
      "default.\n";
  return text;
}

std::optional<int> ExitCodeOf(const absl::StatusOr<ConfigOutcome>& outcome) {
  if (!outcome.ok()) {
    fmt::print(stderr, "{}\n", std::string(outcome.status().message()));
    return 2;
  }
  if (!outcome->exit) return std::nullopt;
  fmt::print("{}", outcome->output);
  return 0;
}

}  // namespace epic
