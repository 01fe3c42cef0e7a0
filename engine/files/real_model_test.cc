// The default model's own file: what it says of itself must be read as it is known to be. Needs EPIC_MODEL.
#include <cmath>
#include <cstdlib>
#include <string>

#include "engine/files/model_file.h"
#include "engine/files/tiny_model_for_test.h"
#include "gtest/gtest.h"

namespace epic {
namespace {

TEST(RealModelTest, SmolLM2) {
  const char* path = std::getenv("EPIC_MODEL");
  if (path == nullptr)
    GTEST_SKIP() << "EPIC_MODEL does not point to the default model (scripts/fetch_model.sh gets it)";
  const absl::StatusOr<std::unique_ptr<ModelFile>> model = OpenModelFile(path);
  ASSERT_TRUE(model.ok()) << model.status();
  const ModelConfig& config = (*model)->config();
  if (config.layers != 30 || config.width != 576) GTEST_SKIP() << path << " is another model than SmolLM2-135M";
  EXPECT_EQ(config.heads, 9);
  EXPECT_EQ(config.kv_heads, 3);
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_EQ(config.ffn_width, 1536);
  EXPECT_EQ(config.vocab_size, 49152);
  EXPECT_EQ(config.context_length, 8192);
  EXPECT_EQ(config.rms_epsilon, 1e-5f);
  EXPECT_EQ(config.rope_base, 100000.0);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_TRUE((*model)->RotationPairsAreAdjacent());
  EXPECT_EQ((*model)->TensorNames().size(), 272u);

  const TokenizerSpec& tokenizer = (*model)->tokenizer();
  EXPECT_EQ(tokenizer.pre_tokenizer, "smollm");
  EXPECT_EQ(tokenizer.tokens.size(), 49152u);
  EXPECT_EQ(tokenizer.merges.size(), 48900u);
  EXPECT_EQ(tokenizer.tokens[2], "<|im_end|>");
  EXPECT_EQ(tokenizer.kinds[2], TokenKind::kControl);
  EXPECT_EQ(tokenizer.bos_id, 1);
  EXPECT_EQ(tokenizer.eos_id, 2);
  EXPECT_FALSE(tokenizer.add_bos);

  double sum = 0;
  for (const std::string& name : (*model)->TensorNames()) {
    const TensorView* tensor = *(*model)->Tensor(name);
    std::vector<float> values(static_cast<size_t>(tensor->ElementCount()));
    DequantizeRows(*tensor, 0, tensor->RowCount(), values);
    for (const float value : values) sum += std::abs(value);
  }
  EXPECT_TRUE(std::isfinite(sum));

  const std::string cache = FreshFolder("real_model");
  const absl::StatusOr<std::string> first = (*model)->Fingerprint(cache);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(*(*model)->Fingerprint(cache), *first);
  EXPECT_EQ(*(*model)->Fingerprint(""), *first);
}

}  // namespace
}  // namespace epic
