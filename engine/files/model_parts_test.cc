// Models spread over several files: split GGUF and sharded safetensors, sound, incomplete and mixed up.
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/files/model_file.h"
#include "engine/files/tiny_model_for_test.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

using testing::HasSubstr;

std::string Raw(uint64_t value, size_t bytes) { return std::string(reinterpret_cast<const char*>(&value), bytes); }

// The tensors of `whole` in `count` parts, each with the keys of a part, the first with all others too.
std::vector<GgufBuilder> SplitGguf(const GgufBuilder& whole, size_t count) {
  std::vector<GgufBuilder> parts(count);
  for (size_t i = 0; i < count; ++i) {
    if (i == 0) parts[i].keys = whole.keys;
    parts[i].Set("split.no", GgufValueType::kUint16, Raw(i, 2));
    parts[i].Set("split.count", GgufValueType::kUint16, Raw(count, 2));
    parts[i].Set("split.tensors.count", GgufValueType::kInt32, Raw(whole.tensors.size(), 4));
    const size_t begin = i * whole.tensors.size() / count;
    const size_t end = (i + 1) * whole.tensors.size() / count;
    parts[i].tensors.assign(whole.tensors.begin() + static_cast<ptrdiff_t>(begin),
                            whole.tensors.begin() + static_cast<ptrdiff_t>(end));
  }
  return parts;
}

class PartsTest : public testing::Test {
 protected:
  std::string PartPath(size_t number, size_t count) const {
    return fmt::format("{}/tiny-{:05}-of-{:05}.gguf", root_, number + 1, count);
  }
  void WriteParts(const std::vector<GgufBuilder>& parts) {
    for (size_t i = 0; i < parts.size(); ++i) WriteFile(PartPath(i, parts.size()), parts[i].Build());
  }
  std::string ShardPath(size_t number, size_t count) const {
    return fmt::format("{}/model-{:05}-of-{:05}.safetensors", folder_, number + 1, count);
  }
  // Writes the tiny model as shards and returns their index.
  nlohmann::json WriteShards(size_t count) {
    tiny_.WriteFolder(folder_);
    std::filesystem::remove(folder_ + "/model.safetensors");
    const SafetensorsBuilder whole = tiny_.Safetensors();
    nlohmann::json index = {{"metadata", {{"total_size", 0}}}, {"weight_map", nlohmann::json::object()}};
    size_t total = 0;
    for (size_t i = 0; i < count; ++i) {
      SafetensorsBuilder shard;
      for (size_t t = i * whole.tensors.size() / count; t < (i + 1) * whole.tensors.size() / count; ++t) {
        shard.tensors.push_back(whole.tensors[t]);
        total += whole.tensors[t].bytes.size();
        index["weight_map"][whole.tensors[t].name] = std::filesystem::path(ShardPath(i, count)).filename();
      }
      WriteFile(ShardPath(i, count), shard.Build());
    }
    index["metadata"]["total_size"] = total;
    WriteIndex(index);
    return index;
  }
  void WriteIndex(const nlohmann::json& index) { WriteFile(index_, index.dump()); }

  // One sentence with every one of `parts` in it.
  static void ExpectRefusal(const std::string& path, absl::StatusCode code, const std::vector<std::string>& parts) {
    const absl::Status status = OpenModelFile(path).status();
    EXPECT_EQ(status.code(), code) << status << ", expected one about " << parts.front();
    EXPECT_THAT(std::string(status.message()), HasSubstr("/"));
    for (const std::string& part : parts) EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
  static std::string FingerprintOf(const std::string& path, const std::string& cache = "") {
    const auto model = OpenModelFile(path);
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? (*model)->Fingerprint(cache).value_or("none") : "";
  }
  // The weights that come out are those of the tiny model. GGUF's order of q and k is its own, so they are left out.
  void ExpectTheTinyModel(const std::string& path) const {
    const auto model = OpenModelFile(path);
    ASSERT_TRUE(model.ok()) << model.status();
    ASSERT_EQ((*model)->TensorNames().size(), tiny_.weights.size());
    for (const std::string& name : (*model)->TensorNames()) {
      const TensorView* tensor = *(*model)->Tensor(name);
      std::vector<float> values(static_cast<size_t>(tensor->ElementCount()));
      DequantizeRows(*tensor, 0, tensor->RowCount(), values);
      if (name.ends_with(".q") || name.ends_with(".k")) continue;
      EXPECT_EQ(values, tiny_.weights.at(name)) << name;
    }
  }

  const TinyModel tiny_ = MakeTinyModel();
  const std::string root_ = FreshFolder("parts");
  const std::string folder_ = root_ + "/sharded";
  const std::string index_ = folder_ + "/model.safetensors.index.json";
  const std::string cache_ = root_ + "/cache";
};

TEST_F(PartsTest, ASplitGgufOpensFromAnyPart) {
  const std::string whole = root_ + "/whole.gguf";
  WriteFile(whole, tiny_.Gguf().Build());
  const std::string fingerprint = FingerprintOf(whole);
  for (const size_t count : {2u, 3u, 7u}) {
    WriteParts(SplitGguf(tiny_.Gguf(), count));
    for (size_t i = 0; i < count; ++i) {
      ExpectTheTinyModel(PartPath(i, count));
      EXPECT_EQ(FingerprintOf(PartPath(i, count)), fingerprint);
    }
  }
}

TEST_F(PartsTest, APartWithoutTensorsAndARepeatedKeyAreSound) {
  std::vector<GgufBuilder> parts = SplitGguf(tiny_.Gguf(), 2);
  for (const GgufBuilder::Tensor& tensor : parts[0].tensors) parts[1].tensors.push_back(tensor);
  parts[0].tensors.clear();
  parts[1].SetString("general.architecture", "llama");
  parts[1].SetStrings("tokenizer.ggml.tokens", tiny_.tokenizer.tokens);
  WriteParts(parts);
  ExpectTheTinyModel(PartPath(0, 2));
}

TEST_F(PartsTest, AMissingPartIsNamed) {
  WriteParts(SplitGguf(tiny_.Gguf(), 3));
  std::filesystem::remove(PartPath(1, 3));
  ExpectRefusal(PartPath(0, 3), absl::StatusCode::kNotFound, {PartPath(1, 3), "part 2 of 3", "missing"});
  ExpectRefusal(PartPath(2, 3), absl::StatusCode::kNotFound, {PartPath(1, 3), "part 2 of 3", "missing"});
  ExpectRefusal(PartPath(1, 3), absl::StatusCode::kNotFound, {"no such file"});
}

TEST_F(PartsTest, PartsThatDoNotBelongTogether) {
  using Spoil = std::function<void(std::vector<GgufBuilder>&)>;
  const auto expect = [this](const std::vector<std::string>& messages, const Spoil& spoil) {
    std::vector<GgufBuilder> parts = SplitGguf(tiny_.Gguf(), 2);
    spoil(parts);
    WriteParts(parts);
    ExpectRefusal(PartPath(0, 2), absl::StatusCode::kInvalidArgument, messages);
  };
  const auto set16 = [](size_t part, const char* key, uint64_t value) {
    return [=](std::vector<GgufBuilder>& parts) { parts[part].Set(key, GgufValueType::kUint16, Raw(value, 2)); };
  };
  expect({PartPath(1, 2), "another value", "two models"},
         [](auto& parts) { parts[1].SetString("general.architecture", "qwen2"); });
  expect({PartPath(1, 2), "another value", "two models"}, [](auto& parts) {
    parts[1].SetStrings("tokenizer.ggml.tokens", {"a", "b"});
  });
  expect({PartPath(1, 2), "another value", "two models"}, [](auto& parts) { parts[1].SetUint32("general.name", 1); });
  expect({PartPath(1, 2), "an earlier part"},
         [](auto& parts) { parts[1].tensors.push_back(parts[0].tensors.front()); });
  expect({"tensors together", "split.tensors.count"}, [](auto& parts) { parts[1].tensors.pop_back(); });
  expect({PartPath(1, 2), "model of 5 tensors"},
         [](auto& parts) { parts[1].Set("split.tensors.count", GgufValueType::kInt32, Raw(5, 4)); });
  expect({PartPath(1, 2), "part 1 of 2", "expected part 2 of 2"}, set16(1, "split.no", 0));
  expect({PartPath(1, 2), "part 2 of 3", "expected part 2 of 2"}, set16(1, "split.count", 3));
  expect({PartPath(1, 2), "part 1 of 1", "expected part 2 of 2"}, [](auto& parts) { parts[1].Remove("split.count"); });
  expect({PartPath(1, 2), "split.no is missing"}, [](auto& parts) { parts[1].Remove("split.no"); });
  expect({PartPath(1, 2), "split.no is 2"}, set16(1, "split.no", 2));
  expect({PartPath(0, 2), "-00002-of-00002.gguf", "rename"}, set16(0, "split.no", 1));
  expect({PartPath(0, 2), "-00001-of-00003.gguf"}, set16(0, "split.count", 3));
  expect({PartPath(0, 2), "split.count 65535"}, set16(0, "split.count", 65535));
  expect({PartPath(0, 2), "split.count", "expected an integer"},
         [](auto& parts) { parts[0].SetString("split.count", "2"); });
}

TEST_F(PartsTest, APartOfAnotherModelWithTheSameNames) {
  TinyModel other = tiny_;
  other.config.layers = 1;
  std::erase_if(other.weights, [](const auto& entry) { return entry.first.starts_with("layers.1."); });
  WriteParts(SplitGguf(tiny_.Gguf(), 2));
  WriteFile(PartPath(1, 2), SplitGguf(other.Gguf(), 2)[1].Build());
  ExpectRefusal(PartPath(0, 2), absl::StatusCode::kInvalidArgument, {PartPath(1, 2), "two models"});
}

TEST_F(PartsTest, APartCutShortOrRenamed) {
  WriteParts(SplitGguf(tiny_.Gguf(), 2));
  const std::string sound = ReadFile(PartPath(1, 2));
  WriteFile(PartPath(1, 2), sound.substr(0, sound.size() - 1));
  ExpectRefusal(PartPath(0, 2), absl::StatusCode::kInvalidArgument, {PartPath(1, 2), "cut short"});
  std::filesystem::rename(PartPath(0, 2), root_ + "/renamed.gguf");
  ExpectRefusal(root_ + "/renamed.gguf", absl::StatusCode::kInvalidArgument, {"part 1 of 2", "its name must end in"});
}

TEST_F(PartsTest, ShardsOpenFromTheFolderTheIndexAndEachOfThem) {
  tiny_.WriteFolder(root_ + "/whole");
  const std::string fingerprint = FingerprintOf(root_ + "/whole");
  for (const size_t count : {1u, 2u, 5u}) {
    WriteShards(count);
    for (const std::string& path : {folder_, index_, ShardPath(0, count), ShardPath(count - 1, count)}) {
      ExpectTheTinyModel(path);
      EXPECT_EQ(FingerprintOf(path), fingerprint) << path;
    }
  }
  // One whole file goes before the shards.
  tiny_.WriteFolder(folder_);
  WriteIndex({{"weight_map", 1}});
  ExpectTheTinyModel(folder_);
}

TEST_F(PartsTest, IndexAndShardsAreCheckedInBothDirections) {
  const nlohmann::json sound = WriteShards(2);
  const std::string first = std::filesystem::path(ShardPath(0, 2)).filename();
  const std::string second = std::filesystem::path(ShardPath(1, 2)).filename();
  const auto expect = [&](const std::vector<std::string>& messages, const std::function<void(nlohmann::json&)>& spoil) {
    nlohmann::json index = sound;
    spoil(index);
    WriteIndex(index);
    ExpectRefusal(folder_, absl::StatusCode::kInvalidArgument, messages);
  };
  expect({"weight_map is missing"}, [](auto& index) { index.erase("weight_map"); });
  expect({"weight_map is missing or empty"}, [](auto& index) { index["weight_map"] = nlohmann::json::object(); });
  expect({"weight_map is an array"}, [](auto& index) { index["weight_map"] = nlohmann::json::array(); });
  expect({ShardPath(0, 2), "does not place in it"}, [&](auto& index) {
    for (auto& [name, shard] : index["weight_map"].items()) {
      if (shard == first) {
        index["weight_map"].erase(name);
        break;
      }
    }
  });
  expect({ShardPath(0, 2), "\"model.more\" is missing"},
         [&](auto& index) { index["weight_map"]["model.more"] = first; });
  expect({"another model"}, [&](auto& index) {
    index["weight_map"]["model.norm.weight"] = second == index["weight_map"]["model.norm.weight"] ? first : second;
  });
  for (const char* name : {"../model-00001-of-00002.safetensors", "/etc/passwd", "a/b.safetensors", "..", "",
                           ".hidden.safetensors", "config.json", "a\\b.safetensors"}) {
    expect({"expected the name of a .safetensors file beside the index"},
           [&](auto& index) { index["weight_map"]["model.norm.weight"] = name; });
  }
  expect({"expected the name"},
         [&](auto& index) { index["weight_map"]["model.norm.weight"] = std::string("a\0b.safetensors", 15); });
  expect({"expected the name"}, [&](auto& index) { index["weight_map"]["model.norm.weight"] = 7; });
  WriteFile(index_, "{");
  ExpectRefusal(folder_, absl::StatusCode::kInvalidArgument, {index_, "expected JSON"});
  // What the index need not say.
  nlohmann::json short_index = sound;
  short_index.erase("metadata");
  WriteIndex(short_index);
  ExpectTheTinyModel(folder_);
}

TEST_F(PartsTest, AMissingOrBrokenShardIsNamed) {
  WriteShards(2);
  const std::string sound = ReadFile(ShardPath(1, 2));
  WriteFile(ShardPath(1, 2), sound.substr(0, sound.size() - 1));
  ExpectRefusal(folder_, absl::StatusCode::kInvalidArgument, {ShardPath(1, 2)});
  WriteFile(ShardPath(1, 2), ReadFile(ShardPath(0, 2)));
  ExpectRefusal(folder_, absl::StatusCode::kInvalidArgument, {ShardPath(1, 2), "another model"});
  std::filesystem::remove(ShardPath(1, 2));
  ExpectRefusal(folder_, absl::StatusCode::kNotFound, {ShardPath(1, 2), "missing", "model.safetensors.index.json"});
}

TEST_F(PartsTest, DigestsAreRememberedForEveryFile) {
  WriteShards(3);
  const std::string fingerprint = FingerprintOf(folder_, cache_);
  const std::string cache_file = cache_ + "/fingerprints.json";
  nlohmann::json document = nlohmann::json::parse(ReadFile(cache_file));
  ASSERT_EQ(document["files"].size(), 3u);
  size_t remembered = 0;
  for (const nlohmann::json& file : document["files"]) remembered += file["tensors"].size();
  EXPECT_EQ(remembered, tiny_.weights.size());
  // A digest that was put there by hand is believed for as long as its own file stays as it is.
  document["files"][1]["tensors"].begin().value() = std::string(64, '0');
  WriteFile(cache_file, document.dump());
  EXPECT_NE(FingerprintOf(folder_, cache_), fingerprint);
  const auto touch = [](const std::string& path) {
    std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) + std::chrono::seconds(2));
  };
  touch(ShardPath(0, 3));
  EXPECT_NE(FingerprintOf(folder_, cache_), fingerprint);
  touch(ShardPath(1, 3));
  EXPECT_EQ(FingerprintOf(folder_, cache_), fingerprint);
  EXPECT_EQ(nlohmann::json::parse(ReadFile(cache_file))["files"].size(), 3u);

  const auto model = OpenModelFile(folder_);
  ASSERT_TRUE(model.ok()) << model.status();
  touch(ShardPath(2, 3));
  EXPECT_EQ((*model)->Fingerprint("").status().code(), absl::StatusCode::kAborted);
}

}  // namespace
}  // namespace epic
