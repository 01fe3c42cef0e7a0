// How fast text becomes token ids, on one core: English prose, and a mixture of scripts, code, digits, emoji and white
// space.
//
// Each text is encoded as a whole, as a document is, by EncodeText. The prose is the files of a folder (the examples)
// one after another; the mixture is made here from a fixed seed, the same at every run. The table has the median of the
// runs, by the processor's time, because it is a core's speed that is asked for; the texts are a few hundred kilobytes
// long so that nothing is in a cache because it stood there a moment ago.
//
// --model may be given several times: GGUF files, or folders with tokenizer.json. EPIC_MODEL is the default.
#include <algorithm>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "benchmarks/report.h"
#include "core/utf8.h"
#include "engine/files/gguf.h"
#include "engine/files/gguf_model.h"
#include "engine/files/loaded_model.h"
#include "engine/files/mapped_file.h"
#include "engine/files/tokenizer_json.h"
#include "engine/text/tokenizer.h"
#include "fmt/format.h"

namespace epic {
namespace {

constexpr double kMegabytesPerSecondBar = 5.0;
constexpr size_t kTextBytes = 400'000;

struct Options {
  std::vector<std::string> models;
  std::string text_folder = "examples/documents";
  int runs = 7;
  std::string format = "table";
};

struct Text {
  std::string name;
  std::string content;
};

// The sentences of `prose` in another order each time, until the text is long enough.
std::string LongProse(const std::string& prose) {
  std::vector<std::string> sentences;
  for (size_t begin = 0; begin < prose.size();) {
    const size_t end = std::min(prose.find(". ", begin), prose.size());
    sentences.push_back(prose.substr(begin, end + 2 - begin));
    begin = end + 2;
  }
  std::mt19937 random(1);
  std::string text;
  while (text.size() < kTextBytes && !sentences.empty()) {
    for (size_t i = sentences.size() - 1; i > 0; --i) std::swap(sentences[i], sentences[random() % (i + 1)]);
    for (const std::string& sentence : sentences) text += sentence;
  }
  return text;
}

void AppendUtf8(char32_t code_point, std::string& text) {
  if (code_point < 0x80) {
    text.push_back(static_cast<char>(code_point));
    return;
  }
  const int continuations = code_point < 0x800 ? 1 : code_point < 0x10000 ? 2 : 3;
  static constexpr int kLead[] = {0, 0xC0, 0xE0, 0xF0};
  text.push_back(static_cast<char>(kLead[continuations] | code_point >> (6 * continuations)));
  for (int shift = 6 * (continuations - 1); shift >= 0; shift -= 6) {
    text.push_back(static_cast<char>(0x80 | (code_point >> shift & 0x3F)));
  }
}

// Equal parts, by stretches, of prose, code, numbers, letters of eight scripts, emoji with joiners, and white space.
std::string Mixture(const std::string& prose) {
  static constexpr std::pair<char32_t, char32_t> kScripts[] = {
      {0x3B1, 0x3C9}, {0x430, 0x44F},   {0x5D0, 0x5EA},   {0x627, 0x64A},
      {0x905, 0x939}, {0x3041, 0x3096}, {0x4E00, 0x9FFF}, {0xAC00, 0xD7A3},
  };
  static constexpr const char* kCode[] = {
      "for (size_t i = 0; i < chunks.size(); ++i) {\n    total += chunks[i].bytes_held;\n}\n",
      "def linkHead(self, chunks=None):\n    return [c.keys[:16] for c in chunks or [] if c != 0]\n",
      "SELECT id, COUNT(*) FROM chunks WHERE tokens >= 4096 GROUP BY 1;\n",
      "{\"id\": 1024, \"values\": [1, 2.5e-3, null], \"nested\": {\"ok\": true}}\n",
  };
  static constexpr const char* kOthers[] = {"\U0001F468\u200D\U0001F469\u200D\U0001F467",
                                            "\U0001F44D\U0001F3FD",
                                            "\t\t",
                                            "        ",
                                            "\r\n\r\n",
                                            "e\u0301",
                                            "\u2026\u201D"};
  std::mt19937 random(2);
  const auto below = [&](size_t limit) { return random() % limit; };
  std::string text;
  while (text.size() < kTextBytes) {
    const size_t begin = below(prose.size() - 100);
    for (const char byte : prose.substr(begin, 100)) text.push_back(static_cast<uint8_t>(byte) < 0x80 ? byte : '-');
    text += kCode[below(std::size(kCode))];
    text += fmt::format(" {} {}.{:02} ", below(10), below(100000), below(100));
    const auto [first, last] = kScripts[below(std::size(kScripts))];
    for (int word = 0; word < 6; ++word) {
      for (size_t letters = 1 + below(7); letters > 0; --letters) {
        AppendUtf8(first + static_cast<char32_t>(below(last - first + 1)), text);
      }
      text.push_back(' ');
    }
    text += kOthers[below(std::size(kOthers))];
  }
  return text;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const std::string& model) {
  if (!model.ends_with(".gguf")) {
    const absl::StatusOr<TokenizerSpec> spec = TokenizerFromFolder(model, kVocabularyMax, {});
    return spec.ok() ? Tokenizer::Create(*spec) : spec.status();
  }
  const absl::StatusOr<MappedFile> file = MappedFile::Open(model);
  if (!file.ok()) return file.status();
  const absl::StatusOr<GgufFile> gguf = ParseGguf(file->bytes(), model);
  if (!gguf.ok()) return gguf.status();
  const absl::StatusOr<TokenizerSpec> spec = TokenizerFromGguf(*gguf);
  return spec.ok() ? Tokenizer::Create(*spec) : spec.status();
}

struct Measurement {
  size_t tokens = 0;
  double megabytes_per_second = 0;  // the median of the runs
};

Measurement Measure(const Tokenizer& tokenizer, const std::string& text, int runs) {
  Measurement result;
  std::vector<double> rates;
  for (int run = 0; run < runs; ++run) {
    const std::clock_t begin = std::clock();
    result.tokens = tokenizer.EncodeText(text)->ids.size();
    const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    rates.push_back(static_cast<double>(text.size()) / seconds / 1e6);
  }
  result.megabytes_per_second = Median(rates);
  return result;
}

int Main(const Options& options) {
  const std::string prose = ReadTexts(options.text_folder);
  if (prose.size() < 1000 || FindInvalidUtf8(prose)) {
    std::cerr << "error: " << options.text_folder << " holds too little text, or text that is not UTF-8\n";
    return 1;
  }
  const std::vector<Text> texts = {{"English", LongProse(prose)}, {"mixed", Mixture(prose)}};
  Report report = StartReport("tokenizer", 1);
  report["runs"] = options.runs;
  std::string table = fmt::format("{}, one core, median of {} runs\n\n{:<44} {:<8} {:>9} {:>12} {:>8}\n",
                                  ProcessorName(), options.runs, "model", "text", "bytes", "bytes/token", "MB/s");
  bool all_hold = true;
  for (const std::string& model : options.models) {
    const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = OpenTokenizer(model);
    if (!tokenizer.ok()) {
      std::cerr << "error: " << tokenizer.status().message() << "\n";
      return 1;
    }
    const std::string name = std::filesystem::path(model).filename().string();
    for (const Text& text : texts) {
      const Measurement measured = Measure(**tokenizer, text.content, options.runs);
      const double rate = measured.megabytes_per_second;
      const double bytes_per_token = static_cast<double>(text.content.size()) / static_cast<double>(measured.tokens);
      report["results"].push_back({{"model", name},
                                   {"text", text.name},
                                   {"bytes", text.content.size()},
                                   {"tokens", measured.tokens},
                                   {"megabytes_per_second", rate}});
      all_hold &= AddBar(report, fmt::format("{}, {}: MB/s", name, text.name), rate, kMegabytesPerSecondBar);
      table += fmt::format("{:<44} {:<8} {:>9} {:>12.2f} {:>8.1f}\n", name, text.name, text.content.size(),
                           bytes_per_token, rate);
    }
  }
  table += fmt::format("\nat least {:.0f} MB/s everywhere: {}\n", kMegabytesPerSecondBar, all_hold ? "holds" : "FAILS");
  return PrintReport(std::move(report), table, options.format, "");
}

}  // namespace
}  // namespace epic

int main(int argc, char** argv) {
  epic::Options options;
  CLI::App app("How fast text becomes token ids, on one core");
  app.add_option("--model", options.models, "GGUF files or folders with tokenizer.json")
      ->envname("EPIC_MODEL")
      ->required();
  app.add_option("--texts", options.text_folder, "folder of text files")->check(CLI::ExistingDirectory);
  app.add_option("--runs", options.runs)->check(CLI::Range(1, 1000));
  app.add_option("--format", options.format)->check(CLI::IsMember({"table", "json"}));
  CLI11_PARSE(app, argc, argv);
  return epic::Main(options);
}
