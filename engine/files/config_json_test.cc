// What config.json says of the families' published models, and what of it is refused.
#include "engine/files/config_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace epic {
namespace {

using nlohmann::json;
using testing::HasSubstr;

absl::StatusOr<ModelConfig> Read(const json& document) {
  return ConfigFromJson(JsonObject(document, "some-model/config.json"));
}

json Published(const char* model_type, const char* architecture) {
  return {{"architectures", {architecture}},  {"model_type", model_type},
          {"num_hidden_layers", 32},          {"hidden_size", 4096},
          {"num_attention_heads", 32},        {"num_key_value_heads", 8},
          {"intermediate_size", 14336},       {"vocab_size", 32768},
          {"max_position_embeddings", 32768}, {"rms_norm_eps", 1e-5},
          {"rope_theta", 1000000.0}};
}

TEST(ConfigJsonTest, MistralWithoutAWindow) {
  json document = Published("mistral", "MistralForCausalLM");
  document["sliding_window"] = nullptr;
  const absl::StatusOr<ModelConfig> config = Read(document);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "mistral");
  EXPECT_EQ(config->head_dim, 128);
  EXPECT_FALSE(config->qkv_bias || config->qk_norm || config->tied_embeddings);

  document["sliding_window"] = 4096;
  const absl::Status status = Read(document).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("sliding-window"));
}

TEST(ConfigJsonTest, QwensWindowCountsOnlyWhereItIsSwitchedOn) {
  json document = Published("qwen2", "Qwen2ForCausalLM");
  document["sliding_window"] = 32768;
  document["max_window_layers"] = 21;
  const absl::StatusOr<ModelConfig> config = Read(document);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->qkv_bias);
  EXPECT_FALSE(config->qk_norm);
  document["use_sliding_window"] = true;
  EXPECT_THAT(std::string(Read(document).status().message()), HasSubstr("sliding-window"));
}

TEST(ConfigJsonTest, Qwen3HasNormsAndAHeadSizeOfItsOwn) {
  json document = Published("qwen3", "Qwen3ForCausalLM");
  document["hidden_size"] = 1024;
  document["head_dim"] = 128;
  document["attention_bias"] = false;
  const absl::StatusOr<ModelConfig> config = Read(document);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->qk_norm);
  EXPECT_EQ(config->head_dim, 128);
  document["attention_bias"] = true;
  EXPECT_THAT(std::string(Read(document).status().message()), HasSubstr("attention_bias"));
}

TEST(ConfigJsonTest, Llama31InOldAndNewSpelling) {
  const json scaling = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192}};
  json old_document = Published("llama", "LlamaForCausalLM");
  old_document["rope_theta"] = 500000.0;
  old_document["rope_scaling"] = scaling;
  json new_document = Published("llama", "LlamaForCausalLM");
  new_document.erase("rope_theta");
  new_document["rope_parameters"] = scaling;
  new_document["rope_parameters"]["rope_theta"] = 500000.0;
  for (const json& document : {old_document, new_document}) {
    const absl::StatusOr<ModelConfig> config = Read(document);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->rope_base, 500000.0);
    EXPECT_EQ(config->rope_scaling.kind, RotationScaling::Kind::kLlama3);
    EXPECT_EQ(config->rope_scaling.factor, 8);
    EXPECT_EQ(config->rope_scaling.original_context, 8192);
  }
  new_document["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  EXPECT_THAT(std::string(Read(new_document).status().message()), HasSubstr("different rotations"));
}

TEST(ConfigJsonTest, YarnTakesItsDefaultsFromTheContext) {
  json document = Published("qwen2", "Qwen2ForCausalLM");
  document["rope_scaling"] = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 8192}};
  const absl::StatusOr<ModelConfig> config = Read(document);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope_scaling.kind, RotationScaling::Kind::kYarn);
  EXPECT_NEAR(config->rope_scaling.attention_scale, 1.138629436, 1e-9);

  document["rope_scaling"].erase("factor");  // then the ratio of the contexts is meant
  EXPECT_EQ(Read(document)->rope_scaling.factor, 4);
  document["rope_scaling"]["attention_factor"] = 1.5;
  EXPECT_EQ(Read(document)->rope_scaling.attention_scale, 1.5);
}

TEST(ConfigJsonTest, RandomWeightsSayThatTheyAreRandom) {
  json document = Published("llama", "LlamaForCausalLM");
  EXPECT_FALSE(Read(document)->is_synthetic);
  document[kSyntheticWeightsMember] = true;
  const absl::StatusOr<ModelConfig> config = Read(document);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->is_synthetic);
  EXPECT_THAT(config->name, HasSubstr("random weights"));
}

}  // namespace
}  // namespace epic
