// GGUF files, sound, broken and foreign. The random part is in hostile_files_test.cc.
#include <functional>
#include <limits>
#include <string>

#include "engine/files/model_file.h"
#include "engine/files/tiny_model_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using testing::HasSubstr;

class GgufModelTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<ModelFile>> Open(const GgufBuilder& builder) {
    WriteFile(path_, builder.Build());
    return OpenModelFile(path_);
  }

  // Opens the tiny model after `spoil` and expects a refusal that names the file and all of `parts`.
  void ExpectRefusal(absl::StatusCode code, const std::vector<std::string>& parts,
                     const std::function<void(GgufBuilder&)>& spoil) {
    GgufBuilder builder = tiny_.Gguf();
    spoil(builder);
    const absl::Status status = Open(builder).status();
    EXPECT_EQ(status.code(), code) << status << ", expected one about " << parts.front();
    EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
    for (const std::string& part : parts) EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
  void ExpectBroken(const std::vector<std::string>& parts, const std::function<void(GgufBuilder&)>& spoil) {
    ExpectRefusal(absl::StatusCode::kInvalidArgument, parts, spoil);
  }
  void ExpectNotRun(const std::vector<std::string>& parts, const std::function<void(GgufBuilder&)>& spoil) {
    ExpectRefusal(absl::StatusCode::kUnimplemented, parts, spoil);
  }

  const TinyModel tiny_ = MakeTinyModel();
  const std::string path_ = FreshFolder("gguf") + "/tiny.gguf";
};

TEST_F(GgufModelTest, ReadsConfigurationAndTokenizer) {
  for (const uint32_t version : {2u, 3u}) {
    GgufBuilder builder = tiny_.Gguf();
    builder.version = version;
    const auto model = Open(builder);
    ASSERT_TRUE(model.ok()) << model.status();
    const ModelConfig& config = (*model)->config();
    EXPECT_EQ(config.name, "tiny");
    EXPECT_EQ(config.architecture, "llama");
    EXPECT_EQ(config.layers, 2);
    EXPECT_EQ(config.width, 32);
    EXPECT_EQ(config.heads, 2);
    EXPECT_EQ(config.kv_heads, 1);
    EXPECT_EQ(config.head_dim, 16);
    EXPECT_EQ(config.ffn_width, 64);
    EXPECT_EQ(config.vocab_size, tiny_.config.vocab_size);
    EXPECT_EQ(config.context_length, 128);
    EXPECT_EQ(config.rms_epsilon, 1e-5f);
    EXPECT_EQ(config.rope_base, 50000.0);
    EXPECT_FALSE(config.tied_embeddings);
    EXPECT_TRUE((*model)->RotationPairsAreAdjacent());
    const TokenizerSpec& tokenizer = (*model)->tokenizer();
    EXPECT_EQ(tokenizer.model, "bpe");
    EXPECT_EQ(tokenizer.pre_tokenizer, "smollm");
    EXPECT_EQ(tokenizer.tokens, tiny_.tokenizer.tokens);
    EXPECT_EQ(tokenizer.kinds, tiny_.tokenizer.kinds);
    EXPECT_EQ(tokenizer.merges, tiny_.tokenizer.merges);
    EXPECT_EQ(tokenizer.bos_id, 1);
    EXPECT_EQ(tokenizer.eos_id, 2);
    EXPECT_EQ(tokenizer.chat_template, tiny_.tokenizer.chat_template);
  }
}

TEST_F(GgufModelTest, DefaultsOfAbsentKeys) {
  GgufBuilder builder = tiny_.Gguf();
  for (const char* key :
       {"llama.rope.freq_base", "llama.rope.dimension_count", "general.name", "tokenizer.chat_template",
        "tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"}) {
    builder.Remove(key);
  }
  builder.RemoveTensor("output.weight");
  const auto model = Open(builder);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->config().rope_base, 10000.0);
  EXPECT_EQ((*model)->config().name, "tiny");
  EXPECT_TRUE((*model)->config().tied_embeddings);
  EXPECT_FALSE((*model)->tokenizer().bos_id.has_value());
  EXPECT_FALSE((*model)->tokenizer().eos_id.has_value());
  EXPECT_EQ((*model)->tokenizer().chat_template, "");
  const auto output = (*model)->Tensor("output");
  EXPECT_EQ(output.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(output.status().message()), HasSubstr("\"output\""));
}

TEST_F(GgufModelTest, KeysWithoutEffectArePassedOver) {
  GgufBuilder builder = tiny_.Gguf();
  builder.SetString("general.license", "none");
  builder.SetStrings("general.languages", {"en"});
  builder.SetString("llama.rope.scaling.type", "none");
  builder.SetFloat("llama.rope.scaling.factor", 1);
  builder.SetUint32("llama.expert_count", 0);
  builder.SetFloat("llama.logit_scale", 1);
  builder.SetUint32("llama.attention.value_length", 16);
  builder.SetUint32("llama.attention.key_length", 16);
  builder.SetUint32("llama.vocab_size", static_cast<uint32_t>(tiny_.config.vocab_size));
  std::string nested;  // an array of one array of one byte
  AppendRaw<uint32_t>(9, nested);
  AppendRaw<uint64_t>(1, nested);
  AppendRaw<uint32_t>(0, nested);
  AppendRaw<uint64_t>(1, nested);
  builder.Set("other.nested", GgufValueType::kArray, nested + "x");
  EXPECT_TRUE(Open(builder).ok()) << Open(builder).status();
}

TEST_F(GgufModelTest, AlignmentOfTheFileIsHonoured) {
  GgufBuilder builder = tiny_.Gguf();
  builder.alignment = 512;
  builder.SetUint32("general.alignment", 512);
  const auto model = Open(builder);
  ASSERT_TRUE(model.ok()) << model.status();
  std::vector<float> values(32);
  DequantizeRows(**(*model)->Tensor("final_norm"), 0, 1, values);
  EXPECT_EQ(values, tiny_.weights.at("final_norm"));
  for (const uint32_t alignment : {0u, 1u, 24u, 1u << 30}) {
    ExpectBroken({"general.alignment", "power of two"},
                 [&](GgufBuilder& b) { b.SetUint32("general.alignment", alignment); });
  }
}

TEST_F(GgufModelTest, TokensMayEndBeforeADeclaredVocabulary) {
  const auto shorten = [](GgufBuilder& builder, const TinyModel& tiny) {
    std::vector<std::string> tokens = tiny.tokenizer.tokens;
    tokens.resize(tokens.size() - 1);
    builder.SetStrings("tokenizer.ggml.tokens", tokens);
    builder.SetInt32s("tokenizer.ggml.token_type", std::vector<int32_t>(tokens.size(), 1));
  };
  GgufBuilder builder = tiny_.Gguf();
  shorten(builder, tiny_);
  builder.SetUint32("llama.vocab_size", static_cast<uint32_t>(tiny_.config.vocab_size));
  const auto model = Open(builder);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->tokenizer().tokens.size(), tiny_.tokenizer.tokens.size());
  EXPECT_EQ((*model)->tokenizer().kinds.back(), TokenKind::kUnused);
  ExpectBroken({"vocabulary", "embedding"}, [&](GgufBuilder& b) { shorten(b, tiny_); });
  ExpectBroken({"tokens", "embedding"}, [&](GgufBuilder& b) {
    std::vector<std::string> tokens = tiny_.tokenizer.tokens;
    tokens.push_back("one more");
    b.SetStrings("tokenizer.ggml.tokens", tokens);
    b.Remove("tokenizer.ggml.token_type");
    b.SetUint32("llama.vocab_size", static_cast<uint32_t>(tiny_.config.vocab_size));
  });
}

TEST_F(GgufModelTest, BrokenHeaderIsNamed) {
  ExpectBroken({"keys"}, [](GgufBuilder& b) { b.key_count_change = 1 << 20; });
  ExpectBroken({"tensors"}, [](GgufBuilder& b) { b.tensor_count_change = -(1 << 20); });
  ExpectBroken({"tensor"}, [](GgufBuilder& b) { b.key_count_change = -1; });
  ExpectNotRun({"version 1", "2 and 3"}, [](GgufBuilder& b) { b.version = 1; });
  ExpectNotRun({"version 4", "2 and 3"}, [](GgufBuilder& b) { b.version = 4; });
  ExpectNotRun({"big-endian"}, [](GgufBuilder& b) { b.version = 0x03000000; });
  WriteFile(path_, "not a model at all");
  EXPECT_THAT(std::string(OpenModelFile(path_).status().message()), HasSubstr("begins with \"not a mo\""));
}

TEST_F(GgufModelTest, BrokenValuesAreNamed) {
  ExpectBroken({"stands twice", "general.name"}, [](GgufBuilder& b) { b.keys.push_back(b.keys[1]); });
  ExpectBroken({"is empty"}, [](GgufBuilder& b) { b.keys.push_back({"", 0, "x"}); });
  ExpectBroken({"value type 13"}, [](GgufBuilder& b) { b.keys.push_back({"strange", 13, "x"}); });
  ExpectBroken({"truth value of 2"}, [](GgufBuilder& b) { b.Set("truth", GgufValueType::kBool, "\2"); });
  ExpectBroken({"cut short or corrupt"}, [](GgufBuilder& b) {
    std::string endless;
    AppendRaw<uint64_t>(std::numeric_limits<uint64_t>::max(), endless);
    b.Set("endless", GgufValueType::kString, endless);
  });
  ExpectBroken({"claims", "elements"}, [](GgufBuilder& b) {
    std::string endless;
    AppendRaw<uint32_t>(10, endless);
    AppendRaw<uint64_t>(uint64_t{1} << 61, endless);  // times 8 bytes overflows to 0
    b.Set("endless", GgufValueType::kArray, endless);
  });
  ExpectBroken({"nests arrays"}, [](GgufBuilder& b) {
    std::string deep;
    for (int i = 0; i < 1000; ++i) {
      AppendRaw<uint32_t>(9, deep);
      AppendRaw<uint64_t>(1, deep);
    }
    b.Set("deep", GgufValueType::kArray, deep);
  });
  ExpectBroken({"llama.block_count", "string", "integer"},
               [](GgufBuilder& b) { b.SetString("llama.block_count", "2"); });
  ExpectBroken({"llama.rope.freq_base", "number"}, [](GgufBuilder& b) { b.SetString("llama.rope.freq_base", "2"); });
  ExpectBroken({"general.architecture", "string"}, [](GgufBuilder& b) { b.SetUint32("general.architecture", 1); });
  ExpectBroken({"tokenizer.ggml.tokens", "strings"}, [](GgufBuilder& b) { b.SetInt32s("tokenizer.ggml.tokens", {1}); });
  ExpectBroken({"add_bos_token", "bool"}, [](GgufBuilder& b) { b.SetUint32("tokenizer.ggml.add_bos_token", 1); });
}

TEST_F(GgufModelTest, TextOfTheFileIsMadeSafeToPrint) {
  ExpectNotRun({"\\x1b[31mred\\x0a"}, [](GgufBuilder& b) { b.SetString("general.architecture", "\x1b[31mred\n"); });
  ExpectNotRun({"... (100000 bytes)"},
               [](GgufBuilder& b) { b.SetString("general.architecture", std::string(100000, 'x')); });
}

TEST_F(GgufModelTest, MissingKeysAreNamed) {
  for (const char* key :
       {"general.architecture", "llama.block_count", "llama.embedding_length", "llama.attention.head_count",
        "llama.feed_forward_length", "llama.context_length", "llama.attention.layer_norm_rms_epsilon",
        "tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"}) {
    ExpectBroken({key, "missing"}, [&](GgufBuilder& b) { b.Remove(key); });
  }
  ExpectNotRun({"tokenizer.ggml.pre"}, [](GgufBuilder& b) { b.Remove("tokenizer.ggml.pre"); });
}

TEST_F(GgufModelTest, BrokenTensorTableIsNamed) {
  const std::string name = "blk.0.attn_q.weight";
  ExpectBroken({name, "missing"}, [&](GgufBuilder& b) { b.RemoveTensor(name); });
  ExpectBroken({"token_embd.weight", "missing"}, [&](GgufBuilder& b) { b.RemoveTensor("token_embd.weight"); });
  ExpectBroken({"twice", name}, [&](GgufBuilder& b) { b.TensorNamed("blk.0.attn_k.weight").name = name; });
  ExpectBroken({"no name"}, [&](GgufBuilder& b) { b.TensorNamed(name).name = ""; });
  ExpectBroken({"300 bytes"}, [&](GgufBuilder& b) { b.TensorNamed(name).name = std::string(300, 'x'); });
  ExpectBroken({name, "shape 16 x 64", "expected 32 x 32"}, [&](GgufBuilder& b) {
    b.TensorNamed(name).dimensions = {64, 16};
  });
  ExpectBroken({name, "0 dimensions"}, [&](GgufBuilder& b) { b.TensorNamed(name).dimensions = {}; });
  ExpectBroken({name, "5 dimensions"}, [&](GgufBuilder& b) { b.TensorNamed(name).dimensions = {32, 32, 1, 1, 1}; });
  ExpectBroken({name, "dimension of 0"}, [&](GgufBuilder& b) { b.TensorNamed(name).dimensions = {0, 32}; });
  ExpectBroken({name, "elements"}, [&](GgufBuilder& b) {
    b.TensorNamed(name).dimensions = {uint64_t{1} << 32, uint64_t{1} << 32};  // the product overflows to 0
  });
  ExpectBroken({name, "dimension"}, [&](GgufBuilder& b) { b.TensorNamed(name).dimensions = {uint64_t{1} << 63, 2}; });
  ExpectBroken({name, "multiple of 32"}, [&](GgufBuilder& b) {
    b.TensorNamed(name).type = 8;
    b.TensorNamed(name).dimensions = {16, 64};
  });
  const auto with_offset = [&](uint64_t offset) {
    return [=](GgufBuilder& b) {
      b.TensorNamed(name).has_offset = true;
      b.TensorNamed(name).offset = offset;
    };
  };
  ExpectBroken({"multiple of the alignment 32"}, with_offset(33));
  ExpectBroken({name, "data section"}, with_offset(uint64_t{1} << 40));
  ExpectBroken({name, "data section"}, with_offset(std::numeric_limits<uint64_t>::max() - 31));
  ExpectBroken({"overlap"}, with_offset(0));
  ExpectBroken({"overlap"}, with_offset(32));
}

TEST_F(GgufModelTest, ContradictionsAreNamed) {
  ExpectBroken({"layers is 0"}, [](GgufBuilder& b) { b.SetUint32("llama.block_count", 0); });
  ExpectBroken({"layers is 100000"}, [](GgufBuilder& b) { b.SetUint32("llama.block_count", 100000); });
  ExpectBroken({"llama.block_count", "too large"},
               [](GgufBuilder& b) { b.SetUint32("llama.block_count", 0xffffffff); });
  ExpectBroken({"blk.2.", "missing"}, [](GgufBuilder& b) { b.SetUint32("llama.block_count", 3); });
  ExpectBroken({"heads is 0"}, [](GgufBuilder& b) { b.SetUint32("llama.attention.head_count", 0); });
  ExpectBroken({"key-value heads is 3"}, [](GgufBuilder& b) { b.SetUint32("llama.attention.head_count_kv", 3); });
  ExpectBroken({"shared evenly"}, [](GgufBuilder& b) { b.SetUint32("llama.attention.head_count", 3); });
  ExpectBroken({"epsilon"}, [](GgufBuilder& b) { b.SetFloat("llama.attention.layer_norm_rms_epsilon", 0); });
  ExpectBroken({"epsilon"}, [](GgufBuilder& b) {
    b.SetFloat("llama.attention.layer_norm_rms_epsilon", std::numeric_limits<float>::quiet_NaN());
  });
  ExpectBroken({"rotation base"},
               [](GgufBuilder& b) { b.SetFloat("llama.rope.freq_base", std::numeric_limits<float>::infinity()); });
  ExpectBroken({"token_type", "expected one for each"},
               [](GgufBuilder& b) { b.SetInt32s("tokenizer.ggml.token_type", {1}); });
  ExpectBroken({"token_type", "is 9"}, [this](GgufBuilder& b) {
    b.SetInt32s("tokenizer.ggml.token_type", std::vector<int32_t>(tiny_.tokenizer.tokens.size(), 9));
  });
  ExpectBroken({"end-of-sequence token is 9999"},
               [](GgufBuilder& b) { b.SetUint32("tokenizer.ggml.eos_token_id", 9999); });
  ExpectBroken({"none is named"}, [](GgufBuilder& b) {
    b.SetBool("tokenizer.ggml.add_bos_token", true);
    b.Remove("tokenizer.ggml.bos_token_id");
  });
  for (const char* merge : {"th", " th", "th ", "t h e", ""}) {
    ExpectBroken({"merge 0"}, [&](GgufBuilder& b) { b.SetStrings("tokenizer.ggml.merges", {merge}); });
  }
}

TEST_F(GgufModelTest, ForeignModelsAreRefusedByName) {
  for (const auto& [architecture, reason] : {std::pair{"qwen3moe", "mixture of experts"},
                                             {"deepseek2", "mixture of experts"},
                                             {"mamba2", "recurrent"},
                                             {"rwkv6", "recurrent"},
                                             {"qwen3next", "recurrent"},
                                             {"gemma3", "sliding-window"},
                                             {"phi3", "LongRoPE"},
                                             {"stablelm", "llama, mistral, qwen2 and qwen3 are run"}}) {
    ExpectNotRun({architecture, reason},
                 [name = architecture](GgufBuilder& b) { b.SetString("general.architecture", name); });
  }
  ExpectNotRun({"\"gemma\""}, [](GgufBuilder& b) { b.SetString("general.architecture", "gemma"); });
  ExpectNotRun({"rope.scaling.type", "longrope"},
               [](GgufBuilder& b) { b.SetString("llama.rope.scaling.type", "longrope"); });
  ExpectNotRun({"rope.scaling.type", "dynamic"},
               [](GgufBuilder& b) { b.SetString("llama.rope.scaling.type", "dynamic"); });
  ExpectNotRun({"yarn_attn_factor is 2", "1.1386"}, [](GgufBuilder& b) {
    b.SetString("llama.rope.scaling.type", "yarn");
    b.SetFloat("llama.rope.scaling.factor", 4);
    b.SetFloat("llama.rope.scaling.yarn_attn_factor", 2);
  });
  ExpectNotRun({"yarn_ext_factor"}, [](GgufBuilder& b) { b.SetFloat("llama.rope.scaling.yarn_ext_factor", 0.5f); });
  ExpectNotRun({"partial rotation", "8", "16"}, [](GgufBuilder& b) { b.SetUint32("llama.rope.dimension_count", 8); });
  ExpectNotRun({"sliding-window"}, [](GgufBuilder& b) { b.SetUint32("llama.attention.sliding_window", 4096); });
  ExpectNotRun({"experts"}, [](GgufBuilder& b) { b.SetUint32("llama.expert_count", 8); });
  ExpectNotRun({"llama.attention.scale"}, [](GgufBuilder& b) { b.SetFloat("llama.attention.scale", 0.5f); });
  ExpectNotRun({"llama.logit_scale"}, [](GgufBuilder& b) { b.SetFloat("llama.logit_scale", 0.5f); });
  ExpectNotRun({"llama.residual_scale"}, [](GgufBuilder& b) { b.SetFloat("llama.residual_scale", 0.5f); });
  ExpectNotRun({"llama.embedding_scale"}, [](GgufBuilder& b) { b.SetFloat("llama.embedding_scale", 12); });
  ExpectNotRun({"clamp_kqv"}, [](GgufBuilder& b) { b.SetFloat("llama.attention.clamp_kqv", 8); });
  ExpectNotRun({"final_logit_softcapping"}, [](GgufBuilder& b) { b.SetFloat("llama.final_logit_softcapping", 30); });
  ExpectNotRun({"causal"}, [](GgufBuilder& b) { b.SetBool("llama.attention.causal", false); });
  ExpectNotRun({"hidden_activation", "gelu"}, [](GgufBuilder& b) { b.SetString("llama.hidden_activation", "gelu"); });
  ExpectNotRun({"differs by layer"}, [](GgufBuilder& b) { b.SetInt32s("llama.attention.head_count", {2, 2}); });
  ExpectNotRun({"tokenizer model", "\"llama\"", "BPE"},
               [](GgufBuilder& b) { b.SetString("tokenizer.ggml.model", "bert"); });
  ExpectNotRun({"tokenizer.ggml.pre", "llama"}, [](GgufBuilder& b) { b.SetString("tokenizer.ggml.model", "llama"); });
  ExpectNotRun({"pre-tokenizer", "\"default\"", "\"llama-bpe\""},
               [](GgufBuilder& b) { b.SetString("tokenizer.ggml.pre", "default"); });
  ExpectNotRun({"add_eos_token"}, [](GgufBuilder& b) { b.SetBool("tokenizer.ggml.add_eos_token", true); });
}

TEST_F(GgufModelTest, ForeignHeadSizesAreRefused) {
  for (const uint32_t size : {0u, 15u, 24u, 272u}) {
    ExpectNotRun({"head size", "multiples of 16 up to 256", std::to_string(size)}, [&](GgufBuilder& b) {
      b.SetUint32("llama.attention.key_length", size);
      b.SetUint32("llama.rope.dimension_count", size);
    });
  }
  ExpectNotRun({"keys have size 16 and values 32"},
               [](GgufBuilder& b) { b.SetUint32("llama.attention.value_length", 32); });
}

TEST_F(GgufModelTest, ForeignTensorsAreRefused) {
  const auto add = [](const std::string& name) {
    return [=](GgufBuilder& b) {
      b.tensors.push_back({.name = name, .dimensions = {8}, .type = 0, .bytes = std::string(32, '\0')});
    };
  };
  ExpectNotRun({"rope_factors_long.weight", "LongRoPE"}, add("rope_factors_long.weight"));
  ExpectNotRun({"blk.0.ssm_in.weight", "recurrent"}, add("blk.0.ssm_in.weight"));
  ExpectNotRun({"blk.0.attn_q.bias", "bias"}, add("blk.0.attn_q.bias"));
  ExpectNotRun({"blk.0.ffn_gate.bias", "bias"}, add("blk.0.ffn_gate.bias"));
  ExpectNotRun({"blk.1.ffn_gate_exps.weight", "experts"}, add("blk.1.ffn_gate_exps.weight"));
  ExpectNotRun({"blk.1.attn_q_norm.weight", "norms"}, add("blk.1.attn_q_norm.weight"));
  ExpectNotRun({"blk.2.attn_q.weight", "no such tensor"}, add("blk.2.attn_q.weight"));
  const auto with_type = [](uint32_t type) {
    return [=](GgufBuilder& b) { b.TensorNamed("blk.0.attn_q.weight").type = type; };
  };
  ExpectNotRun({"blk.0.attn_q.weight", "IQ4_XS", "Q4_1"}, with_type(23));
  ExpectNotRun({"type Q8_K"}, with_type(15));
  ExpectNotRun({"type IQ4_XS"}, with_type(23));
  ExpectNotRun({"type number 4"}, with_type(4));
  ExpectNotRun({"type number 1000"}, with_type(1000));
}

}  // namespace
}  // namespace epic
