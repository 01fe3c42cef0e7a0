// Model files cut, flipped and mutated without mercy: opening one must end in an error or in a model that is sound, and
// never read outside the file (the sanitizer build sees to that).
#include <fcntl.h>
#include <unistd.h>

#include <random>
#include <string>

#include "engine/files/model_file.h"
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
                model.status().code() == absl::StatusCode::kUnimplemented)
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
  for (const char* name : {"config.json", "tokenizer_config.json", "tokenizer.json"}) {
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
