// Model files cut, flipped and mutated without mercy: opening one must end in an error or in a model that is sound, and
// never read outside the file (the sanitizer build sees to that).
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/files/model_file.h"
#include "engine/files/tensor_layout.h"
#include "engine/files/tiny_model_for_test.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

// A file under test that is changed in place, so that thousands of variants cost little.
class Variant {
 public:
  Variant(const std::string& path, std::string sound) : path_(path), sound_(std::move(sound)) {
    WriteFile(path_, sound_);
    descriptor_ = open(path_.c_str(), O_RDWR | O_CLOEXEC);
  }
  ~Variant() { close(descriptor_); }
  Variant(const Variant&) = delete;
  Variant& operator=(const Variant&) = delete;

  const std::string& sound() const { return sound_; }
  void Put(size_t position, const std::string& bytes) {
    ASSERT_EQ(pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(position)),
              static_cast<ssize_t>(bytes.size()));
  }
  void Cut(size_t size) { ASSERT_EQ(ftruncate(descriptor_, static_cast<off_t>(size)), 0); }
  void Restore() {
    Cut(sound_.size());
    Put(0, sound_);
  }

 private:
  std::string path_;
  std::string sound_;
  int descriptor_ = -1;
};

// Opens `path`; a model that comes out of it must keep every promise of its interface. Returns whether one came out.
bool OpensSoundly(const std::string& path) {
  const auto model = OpenModelFile(path);
  if (!model.ok()) {
    EXPECT_FALSE(model.status().message().empty());
    EXPECT_TRUE(model.status().code() == absl::StatusCode::kInvalidArgument ||
                model.status().code() == absl::StatusCode::kUnimplemented ||
                model.status().code() == absl::StatusCode::kNotFound)  // a part that a spoilt count or name asks for
        << model.status();
    return false;
  }
  const ModelConfig& config = (*model)->config();
  const TokenizerSpec& tokenizer = (*model)->tokenizer();
  EXPECT_EQ(tokenizer.tokens.size(), static_cast<size_t>(config.vocab_size));
  EXPECT_EQ(tokenizer.kinds.size(), tokenizer.tokens.size());
  std::vector<float> values;
  for (const std::string& name : (*model)->TensorNames()) {
    const TensorView* tensor = *(*model)->Tensor(name);
    values.resize(static_cast<size_t>(tensor->ElementCount()));
    DequantizeRows(*tensor, 0, tensor->RowCount(), values);
  }
  return true;
}

class HostileFilesTest : public testing::Test {
 protected:
  const TinyModel tiny_ = MakeTinyModel();
  const std::string folder_ = FreshFolder("hostile");
};

void CutEverywhere(Variant& variant, const std::string& open_path, size_t header_bytes) {
  for (size_t size = header_bytes + 64; size > 0; --size) {
    variant.Cut(size);
    ASSERT_FALSE(OpensSoundly(open_path)) << "cut to " << size << " bytes";
  }
  variant.Restore();
  for (size_t missing = 1; missing < variant.sound().size() - header_bytes; missing += 997) {
    variant.Cut(variant.sound().size() - missing);
    ASSERT_FALSE(OpensSoundly(open_path)) << "cut by " << missing << " bytes";
    variant.Restore();
  }
  ASSERT_TRUE(OpensSoundly(open_path));
}

// Cuts one byte before, at and behind every one of `boundaries`; only where nothing is missing may a model come out.
void CutAtBoundaries(Variant& variant, const std::string& open_path, const std::vector<size_t>& boundaries) {
  for (const size_t boundary : boundaries) {
    for (const size_t size : {boundary - 1, boundary, boundary + 1}) {
      if (size == 0 || size >= variant.sound().size()) continue;
      variant.Cut(size);
      ASSERT_FALSE(OpensSoundly(open_path)) << "cut to " << size << " bytes";
      variant.Restore();
    }
  }
  ASSERT_TRUE(OpensSoundly(open_path));
}

// The lowest and the highest bit of the eight bytes in front of and behind every one of `boundaries`: lengths, counts,
// types and offsets.
void FlipAtBoundaries(Variant& variant, const std::string& open_path, const std::vector<size_t>& boundaries) {
  for (const size_t boundary : boundaries) {
    const size_t begin = boundary < 8 ? 0 : boundary - 8;
    for (size_t position = begin; position < std::min(boundary + 8, variant.sound().size()); ++position) {
      const char original = variant.sound()[position];
      for (const int bit : {0, 7}) {
        variant.Put(position, std::string(1, static_cast<char>(original ^ (1 << bit))));
        OpensSoundly(open_path);
      }
      variant.Put(position, std::string(1, original));
    }
  }
  ASSERT_TRUE(OpensSoundly(open_path));
}

void FlipEverywhere(Variant& variant, const std::string& open_path, size_t header_bytes) {
  size_t refused = 0;
  for (size_t position = 0; position < header_bytes; ++position) {
    const char original = variant.sound()[position];
    // Every bit where the structure is dense, one bit of each byte behind that.
    for (int bit = position < 256 ? 0 : static_cast<int>(position % 8);
         bit < (position < 256 ? 8 : static_cast<int>(position % 8) + 1); ++bit) {
      variant.Put(position, std::string(1, static_cast<char>(original ^ (1 << bit))));
      refused += OpensSoundly(open_path) ? 0 : 1;
    }
    variant.Put(position, std::string(1, original));
  }
  EXPECT_GT(refused, header_bytes / 10);
  ASSERT_TRUE(OpensSoundly(open_path));
}

// Overwrites, moves and repeats stretches of the file, with the values that break parsers more often than chance.
void Mutate(Variant& variant, const std::string& open_path, size_t header_bytes, uint32_t seed, int rounds) {
  std::mt19937 random(seed);
  const auto below = [&](size_t limit) { return std::uniform_int_distribution<size_t>(0, limit - 1)(random); };
  size_t opened = 0;
  for (int round = 0; round < rounds; ++round) {
    const size_t changes = 1 + below(4);
    for (size_t change = 0; change < changes; ++change) {
      const size_t position = below(header_bytes);
      std::string bytes;
      switch (below(5)) {
        case 0:
          AppendRaw<uint64_t>(uint64_t{1} << below(64), bytes);
          break;
        case 1:
          AppendRaw<uint64_t>(~uint64_t{0} - below(64), bytes);
          break;
        case 2:
          AppendRaw<uint32_t>(static_cast<uint32_t>(below(40)), bytes);
          break;
        case 3:
          bytes = variant.sound().substr(below(header_bytes), 1 + below(64));
          break;
        default:
          for (size_t i = 0; i < 1 + below(8); ++i) bytes += static_cast<char>(below(256));
      }
      bytes.resize(std::min(bytes.size(), variant.sound().size() - position));
      variant.Put(position, bytes);
    }
    if (below(8) == 0) variant.Cut(1 + below(variant.sound().size()));
    opened += OpensSoundly(open_path) ? 1 : 0;
    variant.Restore();
  }
  EXPECT_LT(opened, static_cast<size_t>(rounds));
}

// Where keys, their values, table entries and tensors of the file begin, and where it ends.
std::vector<size_t> BoundariesOf(const GgufBuilder& builder) {
  std::vector<size_t> boundaries = {4, 8, 16, 24};  // magic, version and both counts
  size_t at = 24;
  for (const GgufBuilder::Key& key : builder.keys) {
    boundaries.push_back(at + 8);                        // behind the name's length
    boundaries.push_back(at + 8 + key.name.size());      // behind the name
    boundaries.push_back(at + 8 + key.name.size() + 4);  // behind the type
    at += 8 + key.name.size() + 4 + key.payload.size();
    boundaries.push_back(at);
  }
  for (const GgufBuilder::Tensor& tensor : builder.tensors) {
    boundaries.push_back(at + 8 + tensor.name.size());      // behind the name
    boundaries.push_back(at + 8 + tensor.name.size() + 4);  // behind the number of dimensions
    at += 8 + tensor.name.size() + 4 + 8 * tensor.dimensions.size() + 4 + 8;
    boundaries.push_back(at - 12);  // behind the dimensions
    boundaries.push_back(at);
  }
  size_t data = 0;
  builder.Build(&data);
  boundaries.push_back(data);
  for (const GgufBuilder::Tensor& tensor : builder.tensors) {
    data = (data + builder.alignment - 1) / builder.alignment * builder.alignment;
    boundaries.push_back(data);
    data += tensor.bytes.size();
    boundaries.push_back(data);
  }
  return boundaries;
}

// The tiny model with matrices of a quantised type; its bytes are what random numbers make of them.
GgufBuilder Quantised(const TinyModel& tiny, uint32_t stored_type) {
  GgufBuilder builder = tiny.Gguf();
  const BlockLayout block = BlockLayoutOf(*TensorTypeFromGguf(stored_type));
  for (GgufBuilder::Tensor& tensor : builder.tensors) {
    if (tensor.dimensions.size() != 2 || tensor.dimensions[0] % static_cast<uint64_t>(block.elements) != 0) continue;
    tensor.type = stored_type;
    tensor.bytes.resize(tensor.dimensions[0] * tensor.dimensions[1] / static_cast<uint64_t>(block.elements) *
                        static_cast<uint64_t>(block.bytes));
  }
  return builder;
}

// The first half of the tensors with all keys, and the second half.
std::pair<GgufBuilder, GgufBuilder> SplitInTwo(const GgufBuilder& whole) {
  std::pair<GgufBuilder, GgufBuilder> parts{whole, {}};
  const auto middle = static_cast<ptrdiff_t>(whole.tensors.size() / 2);
  parts.second.tensors.assign(whole.tensors.begin() + middle, whole.tensors.end());
  parts.first.tensors.resize(static_cast<size_t>(middle));
  uint32_t number = 0;
  for (GgufBuilder* part : {&parts.first, &parts.second}) {
    part->SetUint32("split.no", number++);
    part->SetUint32("split.count", 2);
    part->SetUint32("split.tensors.count", static_cast<uint32_t>(whole.tensors.size()));
  }
  return parts;
}

TEST_F(HostileFilesTest, GgufCutAndFlippedAtEveryBoundary) {
  const std::string path = folder_ + "/model.gguf";
  for (const uint32_t stored_type : {0u, 6u, 8u}) {  // F32, Q5_0, Q8_0
    const GgufBuilder builder = Quantised(tiny_, stored_type);
    Variant variant(path, builder.Build());
    CutAtBoundaries(variant, path, BoundariesOf(builder));
    if (stored_type == 6) FlipAtBoundaries(variant, path, BoundariesOf(builder));
  }
}

TEST_F(HostileFilesTest, SplitGgufCutFlippedAndMutated) {
  const auto [first, second] = SplitInTwo(tiny_.Gguf());
  const std::string first_path = folder_ + "/tiny-00001-of-00002.gguf";
  const std::string second_path = folder_ + "/tiny-00002-of-00002.gguf";
  WriteFile(first_path, first.Build());
  Variant variant(second_path, second.Build());
  CutAtBoundaries(variant, first_path, BoundariesOf(second));
  FlipAtBoundaries(variant, first_path, BoundariesOf(second));
  size_t header_bytes = 0;
  second.Build(&header_bytes);
  Mutate(variant, first_path, header_bytes, 14, 1500);
  Mutate(variant, second_path, header_bytes, 15, 1500);
}

TEST_F(HostileFilesTest, SafetensorsCutAndFlippedAtEveryBoundary) {
  tiny_.WriteFolder(folder_);
  const SafetensorsBuilder builder = tiny_.Safetensors();
  Variant variant(folder_ + "/model.safetensors", builder.Build());
  const std::string header = builder.Header().dump();
  std::vector<size_t> boundaries = {8};
  for (size_t i = 0; i < header.size(); ++i) {
    if (std::string_view("{}[],:").find(header[i]) != std::string_view::npos) boundaries.push_back(8 + i);
  }
  size_t at = 8 + header.size();
  for (const SafetensorsBuilder::Tensor& tensor : builder.tensors) {
    boundaries.push_back(at);
    at += tensor.bytes.size();
  }
  CutAtBoundaries(variant, folder_, boundaries);
  // The header's bytes are each flipped below; here the length in front of it and the first of the data.
  FlipAtBoundaries(variant, folder_, {8, 8 + header.size()});
}

TEST_F(HostileFilesTest, ShardsAndTheirIndexCutFlippedAndMutated) {
  tiny_.WriteFolder(folder_);
  std::filesystem::remove(folder_ + "/model.safetensors");
  const SafetensorsBuilder whole = tiny_.Safetensors();
  const auto middle = static_cast<ptrdiff_t>(whole.tensors.size() / 2);
  const SafetensorsBuilder first{{whole.tensors.begin(), whole.tensors.begin() + middle}};
  const SafetensorsBuilder second{{whole.tensors.begin() + middle, whole.tensors.end()}};
  nlohmann::json index;
  for (const auto& tensor : first.tensors) index["weight_map"][tensor.name] = "a.safetensors";
  for (const auto& tensor : second.tensors) index["weight_map"][tensor.name] = "b.safetensors";
  WriteFile(folder_ + "/a.safetensors", first.Build());
  WriteFile(folder_ + "/b.safetensors", second.Build());
  {
    const std::string sound = index.dump();
    Variant variant(folder_ + "/model.safetensors.index.json", sound);
    for (size_t size = 1; size < sound.size(); ++size) {
      variant.Cut(size);
      ASSERT_FALSE(OpensSoundly(folder_)) << "index cut to " << size << " bytes";
      variant.Restore();
    }
    FlipEverywhere(variant, folder_, sound.size());
    Mutate(variant, folder_, sound.size(), 16, 1000);
  }
  Variant variant(folder_ + "/b.safetensors", second.Build());
  const size_t header_bytes = 8 + second.Header().dump().size();
  CutEverywhere(variant, folder_, header_bytes);
  FlipEverywhere(variant, folder_, header_bytes);
}

TEST_F(HostileFilesTest, GgufCutAtEveryByteOfTheHeader) {
  size_t header_bytes = 0;
  const std::string sound = tiny_.Gguf().Build(&header_bytes);
  Variant variant(folder_ + "/model.gguf", sound);
  CutEverywhere(variant, folder_ + "/model.gguf", header_bytes);
}

TEST_F(HostileFilesTest, GgufWithFlippedBits) {
  size_t header_bytes = 0;
  const std::string sound = tiny_.Gguf().Build(&header_bytes);
  Variant variant(folder_ + "/model.gguf", sound);
  FlipEverywhere(variant, folder_ + "/model.gguf", header_bytes);
}

TEST_F(HostileFilesTest, GgufMutated) {
  size_t header_bytes = 0;
  const std::string sound = tiny_.Gguf().Build(&header_bytes);
  Variant variant(folder_ + "/model.gguf", sound);
  Mutate(variant, folder_ + "/model.gguf", header_bytes, 11, 6000);
}

TEST_F(HostileFilesTest, SafetensorsCutFlippedAndMutated) {
  tiny_.WriteFolder(folder_);
  const std::string sound = tiny_.Safetensors().Build();
  const size_t header_bytes = 8 + tiny_.Safetensors().Header().dump().size();
  Variant variant(folder_ + "/model.safetensors", sound);
  CutEverywhere(variant, folder_, header_bytes);
  FlipEverywhere(variant, folder_, header_bytes);
  Mutate(variant, folder_, header_bytes, 12, 2000);
}

TEST_F(HostileFilesTest, JsonFilesCutFlippedAndMutated) {
  tiny_.WriteFolder(folder_);
  WriteFile(folder_ + "/generation_config.json", R"({"bos_token_id": 1, "eos_token_id": [2, 0], "temperature": 0.6})");
  for (const char* name : {"config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"}) {
    const std::string sound = ReadFile(folder_ + "/" + name);
    Variant variant(folder_ + "/" + name, sound);
    for (size_t size = 1; size < sound.size(); size += 1 + sound.size() / 400) {
      variant.Cut(size);
      ASSERT_FALSE(OpensSoundly(folder_)) << name << " cut to " << size << " bytes";
      variant.Restore();
    }
    Mutate(variant, folder_, sound.size(), 13, 1000);
    ASSERT_TRUE(OpensSoundly(folder_));
  }
}

}  // namespace
}  // namespace epic
