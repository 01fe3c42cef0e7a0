#include "engine/model_inspection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "engine/cpu/cpu_backend.h"
#include "engine/files/model_file.h"
#include "engine/files/tiny_model_for_test.h"

namespace epic {
namespace {

using testing::HasSubstr;

class ModelInspectionTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "epic_inspection_XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  ModelInspection InspectGguf(const GgufBuilder& builder) const {
    const std::string path = folder_ + "/tiny.gguf";
    std::ofstream(path, std::ios::binary) << builder.Build();
    return InspectModel(path);
  }

  const TinyModel tiny_ = MakeTinyModel();
  std::string folder_;
};

TEST_F(ModelInspectionTest, ASoundFileIsDescribed) {
  const ModelInspection inspection = InspectGguf(tiny_.Gguf());
  ASSERT_TRUE(inspection.runs.ok()) << inspection.runs;
  EXPECT_EQ(inspection.format, "GGUF version 3");
  ASSERT_TRUE(inspection.config.has_value());
  const ModelConfig& config = *inspection.config;
  EXPECT_EQ(inspection.kv_bytes_per_token, uint64_t{4} * config.layers * config.kv_heads * config.head_dim);
  EXPECT_GT(inspection.weight_memory_bytes.value_or(0), 0u);
  int64_t tensors = 0, bytes = 0, elements = 0;
  for (const StoredType& type : inspection.types) {
    tensors += type.tensors;
    bytes += type.bytes;
    elements += type.elements;
  }
  EXPECT_EQ(tensors, static_cast<int64_t>(tiny_.Gguf().tensors.size()));
  EXPECT_EQ(bytes, inspection.stored_bytes);
  EXPECT_EQ(elements, inspection.parameters);
  EXPECT_THAT(inspection.tokenizer, HasSubstr("smollm"));
}

TEST_F(ModelInspectionTest, TheMemoryIsWhatTheBackendThenTakes) {
  const std::filesystem::path golden = std::filesystem::path(std::getenv("EPIC_SOURCE_DIR")) / "tests/golden";
  std::vector<std::string> paths = {golden / "tiny/tiny.gguf", golden / "tiny/tiny-tied"};
  for (const auto& family : std::filesystem::directory_iterator(golden / "families")) {
    if (family.is_directory()) paths.push_back(family.path() / "model.gguf");
  }
  ASSERT_GT(paths.size(), 4u);
  for (const std::string& path : paths) {
    const auto file = OpenModelFile(path);
    ASSERT_TRUE(file.ok()) << file.status();
    const auto backend = CpuBackend::Create(**file, 1);
    ASSERT_TRUE(backend.ok()) << backend.status();
    EXPECT_EQ((*backend)->weight_bytes(), InspectModel(path).weight_memory_bytes) << path;
  }
}

TEST_F(ModelInspectionTest, ARefusedTokenizerStillShowsTheSizes) {
  GgufBuilder builder = tiny_.Gguf();
  builder.SetString("tokenizer.ggml.pre", "some-other");
  const ModelInspection inspection = InspectGguf(builder);
  EXPECT_FALSE(inspection.runs.ok());
  EXPECT_THAT(std::string(inspection.runs.message()), HasSubstr("some-other"));
  ASSERT_TRUE(inspection.config.has_value());
  EXPECT_GT(inspection.config->layers, 0);
  EXPECT_GT(inspection.kv_bytes_per_token, 0u);
}

TEST_F(ModelInspectionTest, AnUnknownTemplateRefusesChatAlone) {
  GgufBuilder builder = tiny_.Gguf();
  builder.SetString("tokenizer.chat_template", "{{ raise_exception('no') }}");
  const ModelInspection inspection = InspectGguf(builder);
  EXPECT_TRUE(inspection.runs.ok()) << inspection.runs;
  EXPECT_FALSE(inspection.has_chat_template);
  EXPECT_THAT(inspection.chat_template, HasSubstr("template"));
}

TEST_F(ModelInspectionTest, ForeignAndAbsentFilesAreRefusedInOneSentence) {
  GgufBuilder foreign = tiny_.Gguf();
  foreign.SetString("general.architecture", "mamba2");
  const ModelInspection inspection = InspectGguf(foreign);
  EXPECT_FALSE(inspection.config.has_value());
  EXPECT_THAT(std::string(inspection.runs.message()), HasSubstr("recurrent"));
  EXPECT_EQ(InspectModel(folder_ + "/none.gguf").runs.code(), absl::StatusCode::kNotFound);
  tiny_.WriteFolder(folder_ + "/sound");
  EXPECT_EQ(InspectModel(folder_ + "/sound").format, "safetensors");
  std::ofstream(folder_ + "/text.gguf") << "not a model";
  EXPECT_EQ(InspectModel(folder_ + "/text.gguf").runs.code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace epic
