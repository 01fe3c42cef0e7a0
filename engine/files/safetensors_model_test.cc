// Folders with config.json, tokenizer.json and model.safetensors: sound, broken and foreign. The random part is in
// hostile_files_test.cc.
#include <filesystem>
#include <functional>
#include <string>

#include "engine/files/model_file.h"
#include "engine/files/tiny_model_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class SafetensorsModelTest : public testing::Test {
 protected:
  void SetUp() override { tiny_.WriteFolder(folder_); }

  void ExpectRefusal(absl::StatusCode code, const std::vector<std::string>& parts) {
    const absl::Status status = OpenModelFile(folder_).status();
    EXPECT_EQ(status.code(), code) << status << ", expected one about " << parts.front();
    EXPECT_THAT(std::string(status.message()), HasSubstr(folder_));
    for (const std::string& part : parts) EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }

  // Opens the folder with one JSON file spoilt, and puts that file back.
  void ExpectWith(const char* file, json document, absl::StatusCode code, const std::vector<std::string>& parts,
                  const std::function<void(json&)>& spoil) {
    const std::string path = folder_ + "/" + file;
    const std::string sound = ReadFile(path);
    spoil(document);
    WriteFile(path, document.dump());
    ExpectRefusal(code, parts);
    WriteFile(path, sound);
  }
  void ExpectConfigNotRun(const std::vector<std::string>& parts, const std::function<void(json&)>& spoil) {
    ExpectWith("config.json", tiny_.ConfigJson(), absl::StatusCode::kUnimplemented, parts, spoil);
  }
  void ExpectConfigBroken(const std::vector<std::string>& parts, const std::function<void(json&)>& spoil) {
    ExpectWith("config.json", tiny_.ConfigJson(), absl::StatusCode::kInvalidArgument, parts, spoil);
  }
  void ExpectTokenizerNotRun(const std::vector<std::string>& parts, const std::function<void(json&)>& spoil) {
    ExpectWith("tokenizer.json", tiny_.TokenizerJson(), absl::StatusCode::kUnimplemented, parts, spoil);
  }
  void ExpectTokenizerBroken(const std::vector<std::string>& parts, const std::function<void(json&)>& spoil) {
    ExpectWith("tokenizer.json", tiny_.TokenizerJson(), absl::StatusCode::kInvalidArgument, parts, spoil);
  }
  void ExpectTokenizerConfig(absl::StatusCode code, const std::vector<std::string>& parts,
                             const std::function<void(json&)>& spoil) {
    ExpectWith("tokenizer_config.json", tiny_.TokenizerConfigJson(), code, parts, spoil);
  }
  void ExpectWeights(const std::string& bytes, absl::StatusCode code, const std::vector<std::string>& parts) {
    WriteFile(folder_ + "/model.safetensors", bytes);
    ExpectRefusal(code, parts);
    WriteFile(folder_ + "/model.safetensors", tiny_.Safetensors().Build());
  }

  std::unique_ptr<ModelFile> OpenSound() {
    auto model = OpenModelFile(folder_);
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? *std::move(model) : nullptr;
  }

  const TinyModel tiny_ = MakeTinyModel();
  const std::string folder_ = FreshFolder("safetensors") + "/tiny";
};

TEST_F(SafetensorsModelTest, ReadsConfigurationAndTokenizer) {
  for (const std::string& path : {folder_, folder_ + "/", folder_ + "/model.safetensors"}) {
    const auto model = OpenModelFile(path);
    ASSERT_TRUE(model.ok()) << model.status();
    const ModelConfig& config = (*model)->config();
    EXPECT_EQ(config.name, "tiny");
    EXPECT_EQ(config.layers, 2);
    EXPECT_EQ(config.head_dim, 16);
    EXPECT_EQ(config.kv_heads, 1);
    EXPECT_EQ(config.rms_epsilon, 1e-5f);
    EXPECT_EQ(config.rope_base, 50000.0);
    EXPECT_EQ(config.context_length, 128);
    EXPECT_FALSE((*model)->RotationPairsAreAdjacent());
    const TokenizerSpec& tokenizer = (*model)->tokenizer();
    EXPECT_EQ(tokenizer.model, "bpe");
    EXPECT_EQ(tokenizer.pre_tokenizer, "smollm");
    EXPECT_EQ(tokenizer.tokens, tiny_.tokenizer.tokens);
    EXPECT_EQ(tokenizer.kinds, tiny_.tokenizer.kinds);
    EXPECT_EQ(tokenizer.merges, tiny_.tokenizer.merges);
    EXPECT_EQ(tokenizer.bos_id, 1);
    EXPECT_EQ(tokenizer.eos_id, 2);
    EXPECT_FALSE(tokenizer.add_bos);
    EXPECT_EQ(tokenizer.chat_template, tiny_.tokenizer.chat_template);
  }
}

TEST_F(SafetensorsModelTest, SpellingsOfOlderTransformers) {
  json config = tiny_.ConfigJson();
  config.erase("rope_parameters");
  config.erase("dtype");
  config.erase("num_key_value_heads");
  config["num_attention_heads"] = 2;
  config["torch_dtype"] = "float32";
  config["rope_theta"] = 7000.5;
  config["rope_scaling"] = nullptr;
  config["head_dim"] = 16;
  config["num_key_value_heads"] = 1;
  config["eos_token_id"] = json::array({2, 0});
  config["sliding_window"] = 4096;
  config["use_sliding_window"] = false;
  WriteFile(folder_ + "/config.json", config.dump());
  std::filesystem::remove(folder_ + "/tokenizer_config.json");
  json tokenizer = tiny_.TokenizerJson();
  json pairs = json::array();
  for (const std::string& merge : tiny_.tokenizer.merges) {
    const size_t space = merge.find(' ');
    pairs.push_back({merge.substr(0, space), merge.substr(space + 1)});
  }
  tokenizer["model"]["merges"] = pairs;
  tokenizer["post_processor"] = {{"type", "ByteLevel"}, {"trim_offsets", false}};
  WriteFile(folder_ + "/tokenizer.json", tokenizer.dump());
  WriteFile(folder_ + "/chat_template.jinja", "from its own file");
  const auto model = OpenSound();
  ASSERT_NE(model, nullptr);
  EXPECT_EQ(model->config().rope_base, 7000.5);
  EXPECT_EQ(model->tokenizer().bos_id, 1);
  EXPECT_EQ(model->tokenizer().eos_id, 2);
  EXPECT_EQ(model->tokenizer().merges, tiny_.tokenizer.merges);
  EXPECT_EQ(model->tokenizer().chat_template, "from its own file");
}

TEST_F(SafetensorsModelTest, BothSpellingsOfTheRotationMustAgree) {
  ExpectConfigBroken({"rope_theta is 1", "rope_parameters.rope_theta is 50000"},
                     [](json& c) { c["rope_theta"] = 1.0; });
  json config = tiny_.ConfigJson();
  config.erase("rope_parameters");
  WriteFile(folder_ + "/config.json", config.dump());
  EXPECT_EQ(OpenSound()->config().rope_base, 10000.0);
}

TEST_F(SafetensorsModelTest, TiedOutput) {
  json config = tiny_.ConfigJson();
  config["tie_word_embeddings"] = true;
  WriteFile(folder_ + "/config.json", config.dump());
  ExpectRefusal(absl::StatusCode::kUnimplemented, {"lm_head.weight", "another matrix"});
  SafetensorsBuilder same = tiny_.Safetensors();
  same.TensorNamed("lm_head.weight").bytes = same.TensorNamed("model.embed_tokens.weight").bytes;
  WriteFile(folder_ + "/model.safetensors", same.Build());
  EXPECT_EQ(OpenSound()->Tensor("output").status().code(), absl::StatusCode::kNotFound);
  SafetensorsBuilder without = tiny_.Safetensors();
  std::erase_if(without.tensors, [](const auto& tensor) { return tensor.name == "lm_head.weight"; });
  without.tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {8}, std::string(32, 'x')});
  WriteFile(folder_ + "/model.safetensors", without.Build());
  EXPECT_TRUE(OpenSound()->config().tied_embeddings);
}

TEST_F(SafetensorsModelTest, PaddedVocabularyAndHolesAreUnused) {
  json tokenizer = tiny_.TokenizerJson();
  tokenizer["model"]["vocab"].erase("an");
  tokenizer["model"]["merges"] = {"t h", "th e"};
  tokenizer["added_tokens"].erase(3);  // <tool>, the last
  WriteFile(folder_ + "/tokenizer.json", tokenizer.dump());
  const auto model = OpenSound();
  ASSERT_NE(model, nullptr);
  const TokenizerSpec& spec = model->tokenizer();
  ASSERT_EQ(spec.tokens.size(), static_cast<size_t>(tiny_.config.vocab_size));
  EXPECT_EQ(spec.kinds[spec.kinds.size() - 1], TokenKind::kUnused);
  EXPECT_EQ(spec.kinds[spec.kinds.size() - 2], TokenKind::kUnused);
  EXPECT_EQ(spec.kinds[spec.kinds.size() - 3], TokenKind::kNormal);
  EXPECT_NE(spec.tokens[spec.kinds.size() - 1], spec.tokens[spec.kinds.size() - 2]);
  tokenizer = tiny_.TokenizerJson();
  tokenizer["model"]["vocab"]["one more"] = tiny_.config.vocab_size;
  WriteFile(folder_ + "/tokenizer.json", tokenizer.dump());
  ExpectRefusal(absl::StatusCode::kInvalidArgument, {"id of token \"one more\"", "embedding"});
  tokenizer["model"]["vocab"].erase("one more");
  tokenizer["model"]["vocab"].erase("an");
  tokenizer["model"]["vocab"]["hole"] = 5000;
  WriteFile(folder_ + "/tokenizer.json", tokenizer.dump());
  ExpectRefusal(absl::StatusCode::kInvalidArgument, {"\"hole\" is 5000", "embedding"});
}

TEST_F(SafetensorsModelTest, PostProcessorThatAddsBos) {
  json tokenizer = tiny_.TokenizerJson();
  const json sequence = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json start = {{"SpecialToken", {{"id", "<|endoftext|>"}, {"type_id", 0}}}};
  const json adds = {{"type", "TemplateProcessing"}, {"single", {start, sequence}}, {"special_tokens", json::object()}};
  tokenizer["post_processor"] = {{"type", "Sequence"}, {"processors", {{{"type", "ByteLevel"}}, adds}}};
  WriteFile(folder_ + "/tokenizer.json", tokenizer.dump());
  ExpectRefusal(absl::StatusCode::kUnimplemented, {"bos_token", "token 0"});
  json config = tiny_.TokenizerConfigJson();
  config["bos_token"] = "<|endoftext|>";
  config["add_bos_token"] = true;
  WriteFile(folder_ + "/tokenizer_config.json", config.dump());
  EXPECT_EQ(OpenSound()->tokenizer().bos_id, 0);
  EXPECT_TRUE(OpenSound()->tokenizer().add_bos);

  tokenizer["post_processor"] = {{"type", "TemplateProcessing"}, {"single", json::array({sequence})}};
  WriteFile(folder_ + "/tokenizer.json", tokenizer.dump());
  ExpectRefusal(absl::StatusCode::kUnimplemented, {"add_bos_token is true"});
  WriteFile(folder_ + "/tokenizer_config.json", tiny_.TokenizerConfigJson().dump());
  EXPECT_FALSE(OpenSound()->tokenizer().add_bos);
  for (const json& single :
       {json::array({sequence, start}), json::array({start, start, sequence}), json::array({sequence, sequence}),
        json::array(), json::array({start}), json("A"), json::array({1})}) {
    tokenizer["post_processor"]["single"] = single;
    WriteFile(folder_ + "/tokenizer.json", tokenizer.dump());
    EXPECT_FALSE(OpenModelFile(folder_).ok()) << single;
  }
}

TEST_F(SafetensorsModelTest, StopTokensComeFromTheGenerationConfig) {
  json config = tiny_.ConfigJson();
  config["eos_token_id"] = {1, 2};
  WriteFile(folder_ + "/config.json", config.dump());
  EXPECT_EQ(OpenSound()->tokenizer().stop_ids, (std::vector<int32_t>{1, 2}));
  WriteFile(folder_ + "/generation_config.json", R"({"eos_token_id": [2, 3], "temperature": 0.6})");
  EXPECT_EQ(OpenSound()->tokenizer().stop_ids, (std::vector<int32_t>{2, 3}));
  WriteFile(folder_ + "/generation_config.json", R"({"eos_token_id": "</s>"})");
  ExpectRefusal(absl::StatusCode::kInvalidArgument, {"generation_config.json", "eos_token_id", "</s>"});
  WriteFile(folder_ + "/generation_config.json", R"({"eos_token_id": 4000000})");
  ExpectRefusal(absl::StatusCode::kInvalidArgument, {"ends a generation", "4000000"});
}

TEST_F(SafetensorsModelTest, NamedChatTemplates) {
  json config = tiny_.TokenizerConfigJson();
  config["chat_template"] = {{{"name", "tools"}, {"template", "wrong"}}, {{"name", "default"}, {"template", "right"}}};
  WriteFile(folder_ + "/tokenizer_config.json", config.dump());
  EXPECT_EQ(OpenSound()->tokenizer().chat_template, "right");
}

TEST_F(SafetensorsModelTest, ForeignConfigurationsAreRefusedByName) {
  for (const auto& [model_type, reason] : {std::pair{"mixtral", "mixture of experts"},
                                           {"qwen3_moe", "mixture of experts"},
                                           {"mamba", "recurrent"},
                                           {"falcon_h1", "recurrent"},
                                           {"gemma2", "sliding-window"},
                                           {"phi3", "LongRoPE"},
                                           {"gpt2", "llama, mistral, qwen2 and qwen3 are run"}}) {
    ExpectConfigNotRun({model_type, reason}, [name = model_type](json& c) { c["model_type"] = name; });
  }
  ExpectConfigNotRun({"LlamaForSequenceClassification"},
                     [](json& c) { c["architectures"] = {"LlamaForSequenceClassification"}; });
  ExpectConfigNotRun({"rope_scaling.rope_type", "dynamic NTK"}, [](json& c) {
    c["rope_scaling"] = {{"rope_type", "dynamic"}, {"factor", 2}};
  });
  ExpectConfigNotRun({"rope_scaling.rope_type", "LongRoPE"}, [](json& c) {
    c["rope_scaling"] = {{"type", "longrope"}};
  });
  ExpectConfigNotRun({"rope_scaling.rope_type", "proportional"}, [](json& c) {
    c["rope_scaling"] = {{"type", "proportional"}};
  });
  ExpectConfigNotRun({"mrope_section"}, [](json& c) { c["rope_parameters"]["mrope_section"] = {1, 2}; });
  ExpectConfigNotRun({"partial_rotary_factor"}, [](json& c) { c["rope_parameters"]["partial_rotary_factor"] = 0.5; });
  ExpectConfigNotRun({"partial_rotary_factor"}, [](json& c) { c["partial_rotary_factor"] = 0.5; });
  ExpectConfigNotRun({"sliding_window"}, [](json& c) { c["sliding_window"] = 4096; });
  ExpectConfigNotRun({"layer_types[1]"}, [](json& c) { c["layer_types"] = {"full_attention", "sliding_attention"}; });
  ExpectConfigNotRun({"attention_bias"}, [](json& c) { c["attention_bias"] = true; });
  ExpectConfigNotRun({"mlp_bias"}, [](json& c) { c["mlp_bias"] = true; });
  ExpectConfigNotRun({"hidden_act", "gelu", "silu"}, [](json& c) { c["hidden_act"] = "gelu"; });
  ExpectConfigNotRun({"num_local_experts", "experts"}, [](json& c) { c["num_local_experts"] = 8; });
  ExpectConfigNotRun({"embedding_multiplier"}, [](json& c) { c["embedding_multiplier"] = 12.0; });
  ExpectConfigNotRun({"quantization_config"}, [](json& c) { c["quantization_config"] = {{"bits", 4}}; });
  ExpectConfigNotRun({"head size is 24"}, [](json& c) { c["head_dim"] = 24; });
  ExpectConfigNotRun({"head size is 272"}, [](json& c) { c["head_dim"] = 272; });
  ExpectConfigNotRun({"head size is 15"}, [](json& c) { c["head_dim"] = 15; });
}

TEST_F(SafetensorsModelTest, BrokenConfigurationsAreNamed) {
  for (const char* key : {"num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size",
                          "max_position_embeddings", "rms_norm_eps"}) {
    ExpectConfigBroken({"config.json", key, "missing"}, [&](json& c) { c.erase(key); });
    ExpectConfigBroken({key, "\"x\""}, [&](json& c) { c[key] = "x"; });
  }
  ExpectConfigBroken({"num_hidden_layers is -1"}, [](json& c) { c["num_hidden_layers"] = -1; });
  ExpectConfigBroken({"num_hidden_layers", "integer"},
                     [](json& c) { c["num_hidden_layers"] = 18446744073709551615ull; });
  ExpectConfigBroken({"num_hidden_layers", "integer"}, [](json& c) { c["num_hidden_layers"] = 2.5; });
  ExpectConfigBroken({"shared evenly"}, [](json& c) { c["num_attention_heads"] = 3; });
  ExpectConfigBroken({"cannot share"}, [](json& c) {
    c["num_attention_heads"] = 8;
    c["head_dim"] = 16;
    c["num_key_value_heads"] = 3;
  });
  ExpectConfigBroken({"eos_token_id"}, [](json& c) { c["eos_token_id"] = json::array({"x"}); });
  ExpectConfigBroken({"eos_token_id"}, [](json& c) { c["eos_token_id"] = json::array(); });
  ExpectConfigBroken({"tie_word_embeddings"}, [](json& c) { c["tie_word_embeddings"] = "yes"; });
  ExpectConfigBroken({"model_type"}, [](json& c) {
    c.erase("model_type");
    c.erase("architectures");
  });
  ExpectConfigBroken({"JSON object", "array"}, [](json& c) { c = json::array({1}); });
}

TEST_F(SafetensorsModelTest, ForeignTokenizersAreRefusedByName) {
  const auto steps = [](json& t) -> json& { return t["pre_tokenizer"]["pretokenizers"]; };
  ExpectTokenizerNotRun({"pre_tokenizer", "absent"}, [](json& t) { t["pre_tokenizer"] = nullptr; });
  ExpectTokenizerNotRun({"pre_tokenizer", "\"Digits\"", "ByteLevel"},
                        [&](json& t) { t["pre_tokenizer"] = json(steps(t)[0]); });
  ExpectTokenizerNotRun({"pre_tokenizer", "Whitespace"}, [&](json& t) { steps(t)[0]["type"] = "Whitespace"; });
  ExpectTokenizerNotRun({"use_regex"}, [&](json& t) { steps(t)[0]["type"] = "Split"; });
  ExpectTokenizerNotRun({"pre_tokenizer", "Regex", "Llama 3"}, [&](json& t) {
    steps(t)[1]["use_regex"] = false;
    steps(t)[0] = {{"type", "Split"}, {"behavior", "Isolated"}, {"pattern", {{"Regex", "\\s+"}}}};
  });
  ExpectTokenizerNotRun({"pre_tokenizer", "Digits, ByteLevel, Digits"},
                        [&](json& t) { steps(t).push_back(json(steps(t)[0])); });
  ExpectTokenizerNotRun({"individual_digits"}, [&](json& t) { steps(t)[0]["individual_digits"] = false; });
  ExpectTokenizerNotRun({"add_prefix_space"}, [&](json& t) { steps(t)[1]["add_prefix_space"] = true; });
  ExpectTokenizerNotRun({"add_prefix_space"}, [&](json& t) { steps(t)[1].erase("add_prefix_space"); });
  ExpectTokenizerNotRun({"use_regex"}, [&](json& t) { steps(t)[1]["use_regex"] = false; });
  ExpectTokenizerNotRun({"normalizer", "NFKC"}, [](json& t) { t["normalizer"] = {{"type", "NFKC"}}; });
  ExpectTokenizerNotRun({"decoder", "absent"}, [](json& t) { t["decoder"] = nullptr; });
  ExpectTokenizerNotRun({"decoder", "WordPiece"}, [](json& t) { t["decoder"]["type"] = "WordPiece"; });
  ExpectTokenizerNotRun({"Unigram", "BPE"}, [](json& t) { t["model"]["type"] = "Unigram"; });
  ExpectTokenizerNotRun({"byte fallback", "Metaspace"}, [](json& t) { t["model"]["byte_fallback"] = true; });
  ExpectTokenizerNotRun({"ignore_merges"}, [](json& t) {
    t["model"]["byte_fallback"] = true;
    t["model"]["ignore_merges"] = true;
  });
  ExpectTokenizerNotRun({"dropout"}, [](json& t) { t["model"]["dropout"] = 0.1; });
  ExpectTokenizerNotRun({"end_of_word_suffix"}, [](json& t) { t["model"]["end_of_word_suffix"] = "</w>"; });
  ExpectTokenizerNotRun({"added_tokens[1].single_word"}, [](json& t) { t["added_tokens"][1]["single_word"] = true; });
  ExpectTokenizerNotRun({"post_processor", "Bert"}, [](json& t) {
    t["post_processor"] = {{"type", "BertProcessing"}};
  });
  const auto foreign = absl::StatusCode::kUnimplemented;
  ExpectTokenizerConfig(foreign, {"add_prefix_space"}, [](json& c) { c["add_prefix_space"] = true; });
  ExpectTokenizerConfig(foreign, {"add_eos_token"}, [](json& c) { c["add_eos_token"] = true; });
}

TEST_F(SafetensorsModelTest, BrokenTokenizersAreNamed) {
  ExpectTokenizerBroken({"tokenizer.json", "model is missing"}, [](json& t) { t.erase("model"); });
  ExpectTokenizerBroken({"vocab is missing"}, [](json& t) { t["model"].erase("vocab"); });
  ExpectTokenizerBroken({"merges is missing"}, [](json& t) { t["model"].erase("merges"); });
  ExpectTokenizerBroken({"model.vocab", "object"}, [](json& t) { t["model"]["vocab"] = {1}; });
  ExpectTokenizerBroken({"share the id 3"}, [](json& t) { t["model"]["vocab"]["again"] = 3; });
  ExpectTokenizerBroken({"id of token \"again\"", "-1"}, [](json& t) { t["model"]["vocab"]["again"] = -1; });
  ExpectTokenizerBroken({"id of token \"again\""}, [](json& t) { t["model"]["vocab"]["again"] = 1ull << 40; });
  ExpectTokenizerBroken({"merge 1"}, [](json& t) { t["model"]["merges"][1] = {"a", "b", "c"}; });
  ExpectTokenizerBroken({"merge 1"}, [](json& t) { t["model"]["merges"][1] = 7; });
  ExpectTokenizerBroken({"merge 1"}, [](json& t) { t["model"]["merges"][1] = "nospace"; });
  ExpectTokenizerBroken({"added_tokens[1]", "that id is"}, [](json& t) { t["added_tokens"][0]["id"] = 1; });
  ExpectTokenizerBroken({"added_tokens[0].id", "missing"}, [](json& t) { t["added_tokens"][0].erase("id"); });
  ExpectTokenizerBroken({"added_tokens[0].content", "missing"}, [](json& t) { t["added_tokens"][0].erase("content"); });
  ExpectTokenizerBroken({"added_tokens[0]", "object"}, [](json& t) { t["added_tokens"][0] = 3; });
  const auto broken = absl::StatusCode::kInvalidArgument;
  ExpectTokenizerConfig(broken, {"\"nowhere\"", "no such token"}, [](json& c) { c["bos_token"] = "nowhere"; });
  ExpectTokenizerConfig(broken, {"added_tokens_decoder", "new"},
                        [](json& c) { c["added_tokens_decoder"]["7"]["content"] = "new"; });
  ExpectTokenizerConfig(broken, {"eos_token"}, [](json& c) { c["eos_token"] = 2; });
  ExpectTokenizerConfig(broken, {"chat_template"}, [](json& c) { c["chat_template"] = 2; });
}

TEST_F(SafetensorsModelTest, JsonIsBoundedAndExact) {
  const auto expect = [&](const std::string& text, const char* part) {
    WriteFile(folder_ + "/config.json", text);
    ExpectRefusal(absl::StatusCode::kInvalidArgument, {"config.json", part});
  };
  expect("", "empty");
  expect("{", "expected JSON");
  expect("{\"a\": \"\xff\"}", "expected JSON in UTF-8");
  expect("{\"a\": 1e999}", "expected JSON");
  expect(std::string(1 << 20, '['), "nests");
  expect("{\"a\": 1, \"b\": {\"c\": 1, \"c\": 2}}", "\"c\" stands twice");
  const std::string sound = tiny_.ConfigJson().dump();
  expect("{\"hidden_size\": 32," + sound.substr(1), "\"hidden_size\" stands twice");
  WriteFile(folder_ + "/config.json", "{\"note\": \"[[[[[[ \\\" [[[[\"," + sound.substr(1));
  EXPECT_NE(OpenSound(), nullptr);
}

TEST_F(SafetensorsModelTest, BrokenWeightsAreNamed) {
  const auto broken = absl::StatusCode::kInvalidArgument;
  const std::string q = "model.layers.0.self_attn.q_proj.weight";
  const auto with_header = [&](const std::function<void(json&)>& spoil) {
    json header = tiny_.Safetensors().Header();
    spoil(header);
    return tiny_.Safetensors().BuildWithHeader(header.dump());
  };
  std::string too_long = tiny_.Safetensors().Build();
  too_long[7] = '\x7f';
  ExpectWeights(too_long, broken, {"model.safetensors", "header claims"});
  ExpectWeights("abc", broken, {"header's length"});
  ExpectWeights(tiny_.Safetensors().BuildWithHeader("[]"), broken, {"expected the header to be an object"});
  ExpectWeights(tiny_.Safetensors().BuildWithHeader("{\"a\":"), broken, {"expected JSON"});
  const std::string sound_header = tiny_.Safetensors().Header().dump();
  ExpectWeights(tiny_.Safetensors().BuildWithHeader("{\"" + q + "\":{}," + sound_header.substr(1)), broken,
                {q, "twice"});
  ExpectWeights(with_header([&](json& h) { h.erase(q); }), broken, {"hole"});
  ExpectWeights(with_header([&](json& h) { h[q] = 1; }), broken, {q, "object"});
  ExpectWeights(with_header([&](json& h) { h[q].erase("dtype"); }), broken, {q, "dtype"});
  ExpectWeights(with_header([&](json& h) { h[q].erase("shape"); }), broken, {q, "shape"});
  ExpectWeights(with_header([&](json& h) { h[q]["shape"] = {32, -32}; }), broken, {q, "-32"});
  ExpectWeights(with_header([&](json& h) { h[q]["shape"] = {32, 0}; }), broken, {q, "32 x 0"});
  ExpectWeights(with_header([&](json& h) { h[q]["shape"] = {1ull << 33, 1ull << 33}; }), broken, {q, "elements"});
  ExpectWeights(with_header([&](json& h) { h[q]["shape"] = {32, 31}; }), broken, {q, "has 4096 bytes, expected 3968"});
  ExpectWeights(with_header([&](json& h) {
                  h[q]["shape"] = {64, 16};
                }),
                broken, {q, "shape 64 x 16", "expected 32 x 32"});
  ExpectWeights(with_header([&](json& h) { h[q]["dtype"] = "F16"; }), broken, {q, "expected 2048"});
  ExpectWeights(with_header([&](json& h) { h[q].erase("data_offsets"); }), broken, {q, "data_offsets"});
  ExpectWeights(with_header([&](json& h) { h[q]["data_offsets"] = {0, 4096}; }), broken, {"overlap"});
  ExpectWeights(with_header([&](json& h) { h[q]["data_offsets"] = {4096, 0}; }), broken, {q, "expected a range"});
  ExpectWeights(with_header([&](json& h) {
                  h[q]["data_offsets"] = {1ull << 62, (1ull << 62) + 4096};
                }),
                broken, {q, "cut short"});
  ExpectWeights(with_header([&](json& h) { h[q]["data_offsets"] = {-1, 4096}; }), broken, {q, "-1"});
  ExpectWeights(tiny_.Safetensors().Build() + "more", broken, {"end"});
  SafetensorsBuilder missing = tiny_.Safetensors();
  std::erase_if(missing.tensors, [&](const auto& tensor) { return tensor.name == q; });
  ExpectWeights(missing.Build(), broken, {q, "missing"});
}

TEST_F(SafetensorsModelTest, ForeignWeightsAreRefusedByName) {
  const auto foreign = absl::StatusCode::kUnimplemented;
  SafetensorsBuilder builder = tiny_.Safetensors();
  builder.TensorNamed("model.norm.weight").dtype = "F64";
  ExpectWeights(builder.Build(), foreign, {"model.norm.weight", "F64", "BF16"});
  builder = tiny_.Safetensors();
  builder.tensors.push_back({"model.layers.0.self_attn.q_proj.bias", "F32", {32}, std::string(128, '\0')});
  ExpectWeights(builder.Build(), foreign, {"q_proj.bias", "bias"});
}

TEST_F(SafetensorsModelTest, HalfPrecisionWeights) {
  SafetensorsBuilder builder = tiny_.Safetensors();
  SafetensorsBuilder::Tensor& norm = builder.TensorNamed("model.norm.weight");
  norm.dtype = "BF16";
  norm.bytes = std::string("\x80\x3f", 2);                                // 1.0
  for (int i = 1; i < 32; ++i) norm.bytes += std::string("\x40\xc0", 2);  // -3.0
  WriteFile(folder_ + "/model.safetensors", builder.Build());
  const auto model = OpenSound();
  ASSERT_NE(model, nullptr);
  std::vector<float> expected(32, -3.0f);
  expected[0] = 1.0f;
  std::vector<float> values(32);
  DequantizeRows(**model->Tensor("final_norm"), 0, 1, values);
  EXPECT_EQ(values, expected);
}

TEST_F(SafetensorsModelTest, MissingFilesAreNamed) {
  for (const char* name : {"tokenizer.json", "config.json", "model.safetensors"}) {
    std::filesystem::remove(folder_ + "/" + name);
    ExpectRefusal(absl::StatusCode::kNotFound, {name});
  }
}

}  // namespace
}  // namespace epic
