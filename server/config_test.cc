#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "server/config_values.h"

namespace epic {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// A program with an option of every type.
struct Program {
  std::string listen = "127.0.0.1:1";
  std::string level = "info";
  int64_t capacity_bytes = int64_t{4} << 30;
  int32_t threads = 4;
  bool verify = false;
  double share = 0.01;
  std::vector<std::string> nodes = {"a:1"};
  std::chrono::milliseconds grace{10'000};
  Config config{"epic-test", "A program for tests."};
  std::map<std::string, std::string> environment;

  Program() {
    config.AddString("listen", &listen, "HOST:PORT.");
    config.AddChoice("log-level", &level, {"info", "debug"}, "From which level on.");
    config.AddBytes("kv-capacity-bytes", &capacity_bytes, {.min = 1 << 20}, "Memory for KV.");
    config.AddInt32("threads", &threads, {.min = 1, .max = 64}, "Compute threads.");
    config.AddBool("verify", &verify, "Check every block.");
    config.AddShare("shadow-share", &share, "Of requests.");
    config.AddStringList("cache-nodes", &nodes, "Addresses.");
    config.AddDuration("grace", &grace, {.min = 0, .max = 60'000}, "Time to finish.");
  }
  absl::StatusOr<ConfigOutcome> Parse(const std::vector<std::string>& arguments) {
    return config.Parse(arguments, [this](const std::string& name) -> std::optional<std::string> {
      const auto found = environment.find(name);
      return found == environment.end() ? std::nullopt : std::optional<std::string>(found->second);
    });
  }
};

std::string WriteFile(const std::string& text) {
  const std::filesystem::path directory =
      std::filesystem::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name();
  std::filesystem::create_directories(directory);
  const std::string path = directory / "epic.yaml";
  std::ofstream(path) << text;
  return path;
}

TEST(ConfigTest, EveryTypeIsReadFromFlags) {
  Program program;
  const auto outcome = program.Parse({"--listen=0.0.0.0:7400", "--log-level", "debug", "--kv-capacity-bytes=64MiB",
                                      "--threads=8", "--verify", "--shadow-share=0.25", "--cache-nodes=a:1, b:2",
                                      "--cache-nodes", "c:3", "--grace=5s"});
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_FALSE(outcome->exit);
  EXPECT_EQ(program.listen, "0.0.0.0:7400");
  EXPECT_EQ(program.level, "debug");
  EXPECT_EQ(program.capacity_bytes, 64 << 20);
  EXPECT_EQ(program.threads, 8);
  EXPECT_TRUE(program.verify);
  EXPECT_EQ(program.share, 0.25);
  EXPECT_THAT(program.nodes, ElementsAre("a:1", "b:2", "c:3"));
  EXPECT_EQ(program.grace.count(), 5000);
}

TEST(ConfigTest, FlagWinsOverEnvironmentOverFileOverDefault) {
  Program program;
  const std::string path = WriteFile("threads: 2\ngrace: 1s\nlog-level: debug\ncache-nodes: [x:1, y:2]\n");
  program.environment = {{"EPIC_THREADS", "3"}, {"EPIC_GRACE", "2s"}};
  const auto outcome = program.Parse({"--threads=5", "--config", path});
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(program.threads, 5);
  EXPECT_EQ(program.grace.count(), 2000);
  EXPECT_EQ(program.level, "debug");
  EXPECT_THAT(program.nodes, ElementsAre("x:1", "y:2"));
  EXPECT_FALSE(program.verify);
  const std::string printed = program.config.PrintedConfig();
  EXPECT_THAT(printed, HasSubstr("threads: 5  # flag\n"));
  EXPECT_THAT(printed, HasSubstr("grace: 2s  # environment EPIC_GRACE\n"));
  EXPECT_THAT(printed, HasSubstr("log-level: debug  # file " + path + "\n"));
  EXPECT_THAT(printed, HasSubstr("kv-capacity-bytes: 4GiB  # default\n"));
}

TEST(ConfigTest, FileMayBeNamedByTheEnvironment) {
  Program program;
  program.environment = {{"EPIC_CONFIG", WriteFile("threads: 7\n")}};
  ASSERT_TRUE(program.Parse({}).ok());
  EXPECT_EQ(program.threads, 7);
}

TEST(ConfigTest, PrintedConfigIsAFileThatGivesTheSameValues) {
  Program first;
  ASSERT_TRUE(
      first.Parse({"--listen=a \"quoted\": \\ #value", "--threads=9", "--cache-nodes=p:1,q:2", "--verify"}).ok());
  const std::string path = WriteFile(first.config.PrintedConfig());
  Program second;
  const auto outcome = second.Parse({"--config=" + path});
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(second.listen, first.listen);
  EXPECT_EQ(second.threads, 9);
  EXPECT_EQ(second.nodes, first.nodes);
  EXPECT_TRUE(second.verify);
  EXPECT_EQ(second.capacity_bytes, first.capacity_bytes);
}

TEST(ConfigTest, UnknownFlagNamesTheNearest) {
  Program program;
  const auto outcome = program.Parse({"--kv-capacity-byte=1GiB"});
  EXPECT_EQ(outcome.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(outcome.status().message()),
              HasSubstr("unknown flag --kv-capacity-byte; did you mean kv-capacity-bytes?"));
  EXPECT_EQ(program.capacity_bytes, int64_t{4} << 30);
}

TEST(ConfigTest, UnknownKeyNamesFileLineAndTheNearest) {
  Program program;
  const std::string path = WriteFile("threads: 2\nlog-levle: debug\n");
  const auto outcome = program.Parse({"--config=" + path});
  EXPECT_THAT(std::string(outcome.status().message()),
              HasSubstr(path + ": line 2: unknown key log-levle; did you mean log-level?"));
  EXPECT_EQ(program.threads, 4) << "nothing may change on error";
}

TEST(ConfigTest, AllProblemsAreReportedAtOnce) {
  Program program;
  const std::string path = WriteFile("grace: soon\nthreads: {}\nverify: true\nverify: false\n");
  program.environment = {{"EPIC_KV_CAPACITY_BYTES", "12 parsecs"}};
  const auto outcome =
      program.Parse({"--threads=65", "--log-level=loud", "--verify=maybe", "stray", "--listen", "--config=" + path});
  const std::string message(outcome.status().message());
  EXPECT_THAT(message, HasSubstr("threads (from flag): 65 is outside [1, 64]"));
  EXPECT_THAT(message, HasSubstr("log-level (from flag): \"loud\" is none of info, debug"));
  EXPECT_THAT(message, HasSubstr("verify (from flag): \"maybe\" is neither true nor false"));
  EXPECT_THAT(message, HasSubstr("\"stray\" is not a flag"));
  EXPECT_THAT(message, HasSubstr("--listen needs a value"));
  EXPECT_THAT(message,
              HasSubstr("kv-capacity-bytes (from environment EPIC_KV_CAPACITY_BYTES): \"12 parsecs\" is not a size"));
  EXPECT_THAT(message, HasSubstr("grace (from file " + path + "): \"soon\" is not a duration"));
  EXPECT_THAT(message, HasSubstr("line 2: threads has no plain value"));
  EXPECT_THAT(message, HasSubstr("verify is set twice"));
}

TEST(ConfigTest, BoundsAreInclusive) {
  for (const auto& [text, good] : std::map<std::string, bool>{{"0", false},
                                                              {"1", true},
                                                              {"64", true},
                                                              {"65", false},
                                                              {"-1", false},
                                                              {"99999999999999999999", false},
                                                              {"", false},
                                                              {"4x", false},
                                                              {"0x10", false},
                                                              {" 4", false}}) {
    Program program;
    EXPECT_EQ(program.Parse({"--threads=" + text}).ok(), good) << text;
  }
  Program program;
  const auto outcome = program.Parse({"--kv-capacity-bytes=1023KiB"});
  EXPECT_THAT(std::string(outcome.status().message()), HasSubstr("1023KiB is below the least value 1MiB"));
}

TEST(ConfigTest, AValueGivenTwiceIsRefusedWhereOneIsTaken) {
  Program program;
  const auto outcome = program.Parse({"--threads=1", "--threads=2"});
  EXPECT_THAT(std::string(outcome.status().message()), HasSubstr("takes one value; 2 were given"));
}

TEST(ConfigTest, FilesThatAreNotConfigurationAreRefused) {
  for (const std::string text : {"- a\n- b\n", "just text", "a: [1\n", "{{{"}) {
    Program program;
    EXPECT_FALSE(program.Parse({"--config=" + WriteFile(text)}).ok()) << text;
  }
  Program program;
  EXPECT_THAT(std::string(program.Parse({"--config=" + WriteFile(std::string(2 << 20, '#'))}).status().message()),
              HasSubstr("larger than 1MiB"));
  EXPECT_THAT(std::string(program.Parse({"--config=/nowhere/epic.yaml"}).status().message()),
              HasSubstr("/nowhere/epic.yaml cannot be read"));
  EXPECT_TRUE(program.Parse({"--config=" + WriteFile("")}).ok());
}

TEST(ConfigTest, HelpVersionAndDocumentation) {
  Program program;
  auto outcome = program.Parse({"--help"});
  ASSERT_TRUE(outcome.ok());
  EXPECT_TRUE(outcome->exit);
  EXPECT_THAT(outcome->output, HasSubstr("--kv-capacity-bytes"));
  EXPECT_THAT(outcome->output, HasSubstr("EPIC_KV_CAPACITY_BYTES"));
  outcome = program.Parse({"--version"});
  EXPECT_THAT(outcome->output, HasSubstr("epic-test "));
  outcome = program.Parse({"--print-config-docs"});
  EXPECT_THAT(outcome->output,
              HasSubstr("| `--threads` | `EPIC_THREADS` | number, 1 to 64 | `4` | Compute threads. |"));
  outcome = program.Parse({"--threads=6", "--print-config"});
  EXPECT_TRUE(outcome->exit);
  EXPECT_THAT(outcome->output, HasSubstr("threads: 6  # flag"));
}

TEST(ConfigTest, PositionalWordsWhereAllowed) {
  Program program;
  program.config.AllowPositional("FILE...");
  const auto outcome = program.Parse({"one", "--threads=2", "--", "--help"});
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_FALSE(outcome->exit);
  EXPECT_THAT(outcome->positional, ElementsAre("one", "--help"));
}

TEST(ConfigValuesTest, BytesRoundTrip) {
  EXPECT_EQ(*ParseBytes("4GiB"), int64_t{4} << 30);
  EXPECT_EQ(*ParseBytes("1536 KiB"), 1536 << 10);
  EXPECT_EQ(*ParseBytes("17"), 17);
  EXPECT_EQ(*ParseBytes("17B"), 17);
  for (const std::string bad : {"", "GiB", "4GB", "4gib", "1.5GiB", "9223372036854775807KiB", "--4", "4 4"}) {
    EXPECT_FALSE(ParseBytes(bad).ok()) << bad;
  }
  for (const int64_t bytes : {int64_t{0}, int64_t{1000}, int64_t{1} << 20, int64_t{3} << 40}) {
    EXPECT_EQ(*ParseBytes(FormatBytes(bytes)), bytes);
  }
  EXPECT_EQ(FormatBytes(int64_t{1} << 20), "1MiB");
}

TEST(ConfigValuesTest, SharesRoundTrip) {
  for (const double share : {0.0, 0.01, 0.1, 1.0 / 3, 1.0}) EXPECT_EQ(*ParseShare(FormatShare(share)), share);
  EXPECT_EQ(FormatShare(0.01), "0.01");
  EXPECT_EQ(*ParseShare("1e-3"), 0.001);
  for (const char* text : {"", "half", "0.5x", " 0.5", "-0.1", "1.01", "nan", "inf", "5%"}) {
    const absl::Status status = ParseShare(text).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("0 to 1")) << text;
  }
}

TEST(ConfigValuesTest, DurationsRoundTrip) {
  EXPECT_EQ(*ParseDurationMs("250"), 250);
  EXPECT_EQ(*ParseDurationMs("250ms"), 250);
  EXPECT_EQ(*ParseDurationMs("2min"), 120'000);
  EXPECT_EQ(*ParseDurationMs("1h"), 3'600'000);
  EXPECT_FALSE(ParseDurationMs("1day").ok());
  EXPECT_EQ(FormatDurationMs(10'000), "10s");
  EXPECT_EQ(FormatDurationMs(0), "0ms");
}

}  // namespace
}  // namespace epic
