// The fuzzers' corpus without a fuzzer: whole models open, spoilt ones are refused, and none breaks a promise. So the
// corpus cannot fall behind the formats, and every input is also run under the sanitizers of the ordinary tests.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "engine/files/model_file.h"
#include "gtest/gtest.h"
#include "tests/fuzz/fuzz_support.h"

namespace epic {
namespace {

std::filesystem::path CorpusOf(const std::string& target) {
  const char* source_dir = std::getenv("EPIC_SOURCE_DIR");
  return std::filesystem::path(source_dir == nullptr ? "." : source_dir) / "tests/fuzz/corpus" / target;
}

std::string ReadInput(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Whether the name says that the input is no whole model: make_corpus.py cut it, or it has no weights.
bool IsSpoilt(const std::string& name) {
  return name.starts_with("cut_") || name.starts_with("tokenizer_") || name.starts_with("template_") ||
         name.starts_with("index_");
}

TEST(FuzzCorpusTest, WholeModelsOpenAndSpoiltOnesAreRefused) {
  for (const std::string target : {"gguf", "safetensors", "model_folder"}) {
    size_t whole = 0;
    for (const auto& entry : std::filesystem::directory_iterator(CorpusOf(target))) {
      const std::string name = entry.path().filename();
      SCOPED_TRACE(target + "/" + name);
      const std::string input = ReadInput(entry.path());
      const FuzzFolder folder(reinterpret_cast<const uint8_t*>(input.data()), input.size(), "model." + target);
      ASSERT_FALSE(folder.files().empty());
      const std::string path = target == "gguf" ? folder.files().front() : folder.path();
      const auto model = OpenModelFile(path);
      EXPECT_EQ(model.ok(), !IsSpoilt(name)) << model.status();
      if (!IsSpoilt(name)) ++whole;
      OpenAndUseModel(path);
      if (target == "model_folder") UseTokenizerOfFolder(path);
    }
    EXPECT_GE(whole, 5u) << target;
  }
}

}  // namespace
}  // namespace epic
