#include "engine/files/synthetic_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "engine/files/model_file.h"
#include "fmt/format.h"

namespace epic {
namespace {

using testing::HasSubstr;

class SyntheticModelTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "epic_synthetic_XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  SyntheticModelOptions Options(const std::string& name, uint64_t seed = 1) const {
    SyntheticModelOptions options;
    options.shape = "smollm2-135m";
    options.layers = 1;
    options.seed = seed;
    options.folder = folder_ + "/" + name;
    return options;
  }

  static std::string Bytes(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::string folder_;
};

TEST_F(SyntheticModelTest, ItIsAModelOfThePublishedShape) {
  SyntheticModelOptions options = Options("a");
  uint64_t last = 0, total = 0;
  options.on_progress = [&](uint64_t written, uint64_t all) {
    EXPECT_GT(written, last);
    last = written;
    total = all;
  };
  ASSERT_TRUE(WriteSyntheticModel(options).ok());
  EXPECT_EQ(last, total);
  EXPECT_EQ(std::filesystem::file_size(options.folder + "/model.safetensors"), *SyntheticModelBytes(options));

  const auto model = OpenModelFile(options.folder);
  ASSERT_TRUE(model.ok()) << model.status();
  const ModelConfig& config = (*model)->config();
  EXPECT_EQ(config.layers, 1);
  EXPECT_EQ(config.width, 576);
  EXPECT_EQ(config.kv_heads, 3);
  EXPECT_EQ(config.vocab_size, 49152);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_TRUE(config.is_synthetic);
  EXPECT_THAT(config.name, HasSubstr("random weights"));

  // Mean 0 and variance 1 / inputs: the mean of n numbers strays by 1 / sqrt(n) deviations.
  const auto tensor = (*model)->Tensor("layers.0.down");
  ASSERT_TRUE(tensor.ok());
  std::vector<float> values((*tensor)->ElementCount());
  DequantizeRows(**tensor, 0, (*tensor)->RowCount(), values);
  double sum = 0, squares = 0;
  for (const float value : values) {
    sum += value;
    squares += static_cast<double>(value) * value;
  }
  const auto count = static_cast<double>(values.size());
  const double deviation = 1 / std::sqrt(1536.0);
  EXPECT_NEAR(sum / count, 0, 5 * deviation / std::sqrt(count));
  EXPECT_NEAR(std::sqrt(squares / count), deviation, 0.01 * deviation);
}

TEST_F(SyntheticModelTest, SeedsDecideTheBytes) {
  for (const auto& [name, seed] : {std::pair{"a", 1}, {"b", 1}, {"c", 2}}) {
    ASSERT_TRUE(WriteSyntheticModel(Options(name, seed)).ok());
  }
  const std::string a = Bytes(folder_ + "/a/model.safetensors");
  EXPECT_TRUE(a == Bytes(folder_ + "/b/model.safetensors"));
  EXPECT_FALSE(a == Bytes(folder_ + "/c/model.safetensors"));
}

TEST_F(SyntheticModelTest, EveryShapeHasItsPublishedCountOfWeights) {
  // Billions of weights as their publishers state them.
  for (const auto& [shape, billions] : {std::pair{"llama-3.1-8b", 8.03},
                                        {"mistral-7b", 7.25},
                                        {"yi-coder-9b", 8.83},
                                        {"qwen2.5-0.5b", 0.494},
                                        {"smollm2-135m", 0.1345}}) {
    SyntheticModelOptions options = Options("shape");
    options.shape = shape;
    options.layers = 0;
    const auto bytes = SyntheticModelBytes(options);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_NEAR(static_cast<double>(*bytes) / 2 / 1e9, billions, 0.005 * billions) << shape;
  }
}

TEST_F(SyntheticModelTest, BadOptionsAreNamed) {
  SyntheticModelOptions options = Options("a");
  options.shape = "smollm-135m";
  EXPECT_THAT(std::string(WriteSyntheticModel(options).message()), HasSubstr("did you mean \"smollm2-135m\""));
  options = Options("a");
  options.layers = 31;
  EXPECT_THAT(std::string(WriteSyntheticModel(options).message()), HasSubstr("31, expected 1 to 30"));
  EXPECT_FALSE(std::filesystem::exists(options.folder));

  options = Options("full");
  std::filesystem::create_directory(options.folder);
  std::ofstream(options.folder + "/mine") << "kept";
  EXPECT_EQ(WriteSyntheticModel(options).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Bytes(options.folder + "/mine"), "kept");
}

}  // namespace
}  // namespace epic
