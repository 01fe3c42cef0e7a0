// What holds across formats: which file is opened how, the same content from both, and fingerprints.
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "engine/files/fingerprint.h"
#include "engine/files/model_file.h"
#include "engine/files/tiny_model_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using testing::HasSubstr;

std::unique_ptr<ModelFile> OpenOrFail(const std::string& path) {
  auto model = OpenModelFile(path);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *std::move(model) : nullptr;
}

// The tensor as floats, queries and keys brought to half-split order as model_file.h says.
std::vector<float> CanonicalValues(const ModelFile& model, const std::string& name) {
  const TensorView* tensor = *model.Tensor(name);
  std::vector<float> values(static_cast<size_t>(tensor->ElementCount()));
  DequantizeRows(*tensor, 0, tensor->RowCount(), values);
  if (!model.RotationPairsAreAdjacent() || !(name.ends_with(".q") || name.ends_with(".k"))) return values;
  std::vector<float> result(values.size());
  const int64_t head_dim = model.config().head_dim;
  const int64_t length = tensor->RowLength();
  for (int64_t head = 0; head < tensor->RowCount() / head_dim; ++head) {
    for (int64_t i = 0; i < head_dim / 2; ++i) {
      for (int64_t j = 0; j < length; ++j) {
        const auto at = [&](int64_t row) { return static_cast<size_t>((head * head_dim + row) * length + j); };
        result[at(i)] = values[at(2 * i)];
        result[at(i + head_dim / 2)] = values[at(2 * i + 1)];
      }
    }
  }
  return result;
}

class ModelFileTest : public testing::Test {
 protected:
  void SetUp() override {
    WriteFile(gguf_, tiny_.Gguf().Build());
    tiny_.WriteFolder(folder_);
  }
  std::string FingerprintOfFile(const std::string& path, const std::string& cache_dir = "") {
    const auto model = OpenOrFail(path);
    const auto fingerprint = model->Fingerprint(cache_dir);
    EXPECT_TRUE(fingerprint.ok()) << fingerprint.status();
    return fingerprint.value_or("");
  }

  const TinyModel tiny_ = MakeTinyModel();
  const std::string root_ = FreshFolder("model_file");
  const std::string gguf_ = root_ + "/tiny.gguf";
  const std::string folder_ = root_ + "/tiny";
  const std::string cache_ = root_ + "/cache/deeper";
};

TEST_F(ModelFileTest, BothFormatsHoldTheSameModel) {
  const auto gguf = OpenOrFail(gguf_);
  const auto safetensors = OpenOrFail(folder_);
  ASSERT_EQ(gguf->TensorNames(), safetensors->TensorNames());
  ASSERT_EQ(gguf->TensorNames().size(), 21u);
  for (const std::string& name : gguf->TensorNames()) {
    EXPECT_EQ((*gguf->Tensor(name))->shape, tiny_.shapes.at(name)) << name;
    EXPECT_EQ((*gguf->Tensor(name))->name, name);
    EXPECT_EQ(CanonicalValues(*gguf, name), tiny_.weights.at(name)) << name;
    EXPECT_EQ(CanonicalValues(*safetensors, name), tiny_.weights.at(name)) << name;
  }
  EXPECT_EQ(gguf->tokenizer().tokens, safetensors->tokenizer().tokens);
  EXPECT_EQ(gguf->tokenizer().kinds, safetensors->tokenizer().kinds);
  EXPECT_EQ(gguf->tokenizer().merges, safetensors->tokenizer().merges);
  EXPECT_EQ(gguf->config().rope_base, safetensors->config().rope_base);
  EXPECT_EQ(gguf->config().rms_epsilon, safetensors->config().rms_epsilon);
}

TEST_F(ModelFileTest, TheContentDecidesNotTheName) {
  std::filesystem::rename(gguf_, root_ + "/model.bin");
  EXPECT_NE(OpenOrFail(root_ + "/model.bin"), nullptr);
  std::filesystem::rename(folder_ + "/model.safetensors", folder_ + "/weights");
  EXPECT_NE(OpenOrFail(folder_ + "/weights"), nullptr);
}

TEST_F(ModelFileTest, WhatIsNoModelFile) {
  const auto expect = [](const std::string& path, absl::StatusCode code, const char* part) {
    const absl::Status status = OpenModelFile(path).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
    EXPECT_THAT(std::string(status.message()), HasSubstr(path));
  };
  expect(root_ + "/nothing.gguf", absl::StatusCode::kNotFound, "no such file");
  expect(gguf_ + "/below", absl::StatusCode::kNotFound, "no such file");
  std::filesystem::create_directory(root_ + "/empty");
  expect(root_ + "/empty", absl::StatusCode::kNotFound, "neither model.safetensors nor");
  WriteFile(root_ + "/zero", "");
  expect(root_ + "/zero", absl::StatusCode::kInvalidArgument, "empty");
  WriteFile(root_ + "/text", "Once upon a time");
  expect(root_ + "/text", absl::StatusCode::kInvalidArgument, "expected a GGUF file");
  WriteFile(root_ + "/GG", "GG");
  expect(root_ + "/GG", absl::StatusCode::kInvalidArgument, "\"GG\"");
  WriteFile(root_ + "/GGUF", "GGUF");
  expect(root_ + "/GGUF", absl::StatusCode::kInvalidArgument, "the version");
  ASSERT_EQ(mkfifo((root_ + "/pipe").c_str(), 0600), 0);
  expect(root_ + "/pipe", absl::StatusCode::kInvalidArgument, "regular file");
}

TEST_F(ModelFileTest, FingerprintIsStableAndIndependentOfOrder) {
  const std::string fingerprint = FingerprintOfFile(gguf_);
  EXPECT_EQ(fingerprint.size(), 64u);
  EXPECT_EQ(fingerprint.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(FingerprintOfFile(gguf_), fingerprint);
  GgufBuilder reordered = tiny_.Gguf();
  std::reverse(reordered.keys.begin(), reordered.keys.end());
  std::reverse(reordered.tensors.begin(), reordered.tensors.end());
  reordered.SetString("general.name", "another name");
  reordered.SetString("tokenizer.chat_template", "another template");
  WriteFile(gguf_, reordered.Build());
  EXPECT_EQ(FingerprintOfFile(gguf_), fingerprint);
}

TEST_F(ModelFileTest, FingerprintTellsModelsApart) {
  std::vector<std::string> seen = {FingerprintOfFile(gguf_), FingerprintOfFile(folder_)};
  const auto add = [&](const std::function<void(GgufBuilder&)>& change) {
    GgufBuilder builder = tiny_.Gguf();
    change(builder);
    WriteFile(gguf_, builder.Build());
    seen.push_back(FingerprintOfFile(gguf_));
  };
  add([](GgufBuilder& b) { b.TensorNamed("blk.1.ffn_up.weight").bytes.back() ^= 1; });
  add([](GgufBuilder& b) {
    std::swap(b.TensorNamed("blk.1.ffn_up.weight").name, b.TensorNamed("blk.1.ffn_gate.weight").name);
  });
  add([](GgufBuilder& b) { b.SetFloat("llama.rope.freq_base", 50001); });
  add([](GgufBuilder& b) { b.SetFloat("llama.attention.layer_norm_rms_epsilon", 1e-6f); });
  add([](GgufBuilder& b) { b.RemoveTensor("output.weight"); });
  add([](GgufBuilder& b) { b.SetStrings("tokenizer.ggml.merges", {"t h", "th e"}); });
  add([](GgufBuilder& b) { b.SetString("tokenizer.ggml.pre", "gpt-2"); });
  add([](GgufBuilder& b) {
    b.SetUint32("llama.attention.key_length", 32);
    b.SetUint32("llama.attention.value_length", 32);
    b.SetUint32("llama.rope.dimension_count", 32);
    b.SetUint32("llama.attention.head_count", 1);
    for (const char* name :
         {"blk.0.attn_k.weight", "blk.1.attn_k.weight", "blk.0.attn_v.weight", "blk.1.attn_v.weight"}) {
      b.TensorNamed(name).dimensions = {32, 32};
      b.TensorNamed(name).bytes += b.TensorNamed(name).bytes;
    }
  });
  for (size_t i = 0; i < seen.size(); ++i) {
    for (size_t j = 0; j < i; ++j) EXPECT_NE(seen[i], seen[j]) << "variants " << i << " and " << j;
  }
}

TEST_F(ModelFileTest, FingerprintIsRememberedByFileIdentity) {
  const std::string fingerprint = FingerprintOfFile(gguf_, cache_);
  const std::string cache_file = cache_ + "/fingerprints.json";
  const std::string remembered = ReadFile(cache_file);
  // A digest that was put there by hand is believed: so the weights were not read again.
  nlohmann::json document = nlohmann::json::parse(remembered);
  document["files"][0]["tensors"]["final_norm"] = std::string(64, '0');
  WriteFile(cache_file, document.dump());
  const std::string believed = FingerprintOfFile(gguf_, cache_);
  EXPECT_NE(believed, fingerprint);
  // Another modification time is another file.
  std::filesystem::last_write_time(gguf_, std::filesystem::last_write_time(gguf_) + std::chrono::seconds(2));
  EXPECT_EQ(FingerprintOfFile(gguf_, cache_), fingerprint);
  EXPECT_EQ(nlohmann::json::parse(ReadFile(cache_file))["files"].size(), 1u);
  // A second file is remembered beside the first, with its own digests; no temporary file is left behind.
  const std::string other = FingerprintOfFile(folder_, cache_);
  EXPECT_EQ(nlohmann::json::parse(ReadFile(cache_file))["files"].size(), 2u);
  EXPECT_EQ(FingerprintOfFile(gguf_, cache_), fingerprint);
  EXPECT_EQ(FingerprintOfFile(folder_, cache_), other);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(cache_), {}), 1);
}

TEST_F(ModelFileTest, ACorruptCacheIsReplaced) {
  const std::string fingerprint = FingerprintOfFile(gguf_, cache_);
  const std::string cache_file = cache_ + "/fingerprints.json";
  const std::string sound = ReadFile(cache_file);
  for (const std::string& bad :
       {std::string(), std::string("{"), std::string("[]"), std::string("{\"format_version\":2,\"files\":[]}"),
        std::string("{\"format_version\":1,\"files\":[1,{},{\"identity\":3,\"tensors\":4}]}"),
        std::string("{\"format_version\":1,\"files\":{\"a\":1}}"), sound.substr(0, sound.size() / 2)}) {
    WriteFile(cache_file, bad);
    EXPECT_EQ(FingerprintOfFile(gguf_, cache_), fingerprint);
    EXPECT_EQ(ReadFile(cache_file), sound);
  }
  // Digests that are none are computed anew.
  nlohmann::json document = nlohmann::json::parse(sound);
  document["files"][0]["tensors"]["final_norm"] = "short";
  document["files"][0]["tensors"].erase("embedding");
  WriteFile(cache_file, document.dump());
  EXPECT_EQ(FingerprintOfFile(gguf_, cache_), fingerprint);
  EXPECT_EQ(ReadFile(cache_file), sound);
}

TEST_F(ModelFileTest, ACacheThatCannotBeWrittenCostsTimeOnly) {
  WriteFile(root_ + "/file", "in the way");
  EXPECT_EQ(FingerprintOfFile(gguf_, root_ + "/file/cache"), FingerprintOfFile(gguf_));
}

TEST_F(ModelFileTest, AFileThatChangedWhileOpenIsNotFingerprinted) {
  const auto model = OpenOrFail(gguf_);
  std::filesystem::last_write_time(gguf_, std::filesystem::last_write_time(gguf_) + std::chrono::seconds(2));
  EXPECT_EQ(model->Fingerprint(cache_).status().code(), absl::StatusCode::kAborted);
  EXPECT_FALSE(std::filesystem::exists(cache_));
}

}  // namespace
}  // namespace epic
