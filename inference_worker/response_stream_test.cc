#include "inference_worker/response_stream.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

namespace epic {
namespace {

GeneratedToken Token(int32_t id, size_t text_bytes = 1) {
  GeneratedToken token;
  token.id = id;
  token.text = std::string(text_bytes, 'x');
  return token;
}

TEST(ResponseStreamTest, GivesTokensInOrderAndThenTheEnd) {
  ResponseStream stream(1 << 20, {});
  EXPECT_FALSE(stream.TryNext(1 << 20).has_value());
  EXPECT_TRUE(stream.Push(Token(1)));
  EXPECT_TRUE(stream.Push(Token(2)));
  JobFinal final;
  final.linker = "legolink:16";
  stream.Close(absl::OkStatus(), final);

  std::optional<StreamBatch> batch = stream.TryNext(1 << 20);
  ASSERT_TRUE(batch.has_value());
  ASSERT_EQ(batch->tokens.size(), 2U);
  EXPECT_EQ(batch->tokens[0].id, 1);
  EXPECT_EQ(batch->tokens[1].id, 2);
  EXPECT_FALSE(batch->ended);
  batch = stream.TryNext(1 << 20);
  ASSERT_TRUE(batch.has_value());
  EXPECT_TRUE(batch->ended);
  EXPECT_TRUE(batch->status.ok());
  EXPECT_EQ(batch->final.linker, "legolink:16");
  EXPECT_FALSE(stream.TryNext(1 << 20).has_value()) << "the end is given once";
}

TEST(ResponseStreamTest, CutsBatchesByBytesButGivesOneTokenAtLeast) {
  ResponseStream stream(1 << 20, {});
  for (int32_t i = 0; i < 3; ++i) ASSERT_TRUE(stream.Push(Token(i, 1000)));
  EXPECT_EQ(stream.TryNext(1)->tokens.size(), 1U);
  EXPECT_EQ(stream.TryNext(10'000)->tokens.size(), 2U);
}

TEST(ResponseStreamTest, OverflowsForGoodAndFreesWhatWaited) {
  ResponseStream stream(4096, {});
  EXPECT_TRUE(stream.Push(Token(0, 100'000))) << "one token always fits";
  EXPECT_FALSE(stream.overflowed());
  EXPECT_FALSE(stream.Push(Token(1)));
  EXPECT_TRUE(stream.overflowed());
  EXPECT_FALSE(stream.Push(Token(2))) << "room again, but what lay between is lost";
  stream.Close(absl::CancelledError("ended"), JobFinal{});
  const StreamBatch batch = stream.Next();
  EXPECT_TRUE(batch.ended);
  EXPECT_TRUE(batch.tokens.empty());
  EXPECT_TRUE(absl::IsCancelled(batch.status));
}

TEST(ResponseStreamTest, ReadingMakesRoom) {
  ResponseStream stream(4096, {});
  for (int round = 0; round < 100; ++round) {
    ASSERT_TRUE(stream.Push(Token(round, 3000)));
    ASSERT_EQ(stream.Next().tokens.size(), 1U);
  }
}

TEST(ResponseStreamTest, NextReportsThatNothingCame) {
  ResponseStream stream(4096, {});
  const StreamBatch batch = stream.Next(std::chrono::steady_clock::now());
  EXPECT_TRUE(batch.ended);
  EXPECT_TRUE(absl::IsDeadlineExceeded(batch.status));
}

TEST(ResponseStreamTest, CallsReadyOncePerEvent) {
  int calls = 0;
  ResponseStream stream(4096, [&calls] { ++calls; });
  EXPECT_TRUE(stream.Push(Token(0)));
  EXPECT_TRUE(stream.Push(Token(1)));
  stream.Close(absl::OkStatus(), JobFinal{});
  EXPECT_EQ(calls, 3);
}

TEST(ResponseStreamTest, CarriesALongAnswerBetweenThreads) {
  constexpr int32_t kTokens = 20'000;
  ResponseStream stream(64 << 20, {});
  std::thread writer([&stream] {
    for (int32_t i = 0; i < kTokens; ++i) ASSERT_TRUE(stream.Push(Token(i)));
    stream.Close(absl::OkStatus(), JobFinal{});
  });
  int32_t next = 0;
  for (StreamBatch batch = stream.Next(); !batch.ended; batch = stream.Next()) {
    for (const GeneratedToken& token : batch.tokens) ASSERT_EQ(token.id, next++);
  }
  EXPECT_EQ(next, kTokens);
  writer.join();
}

}  // namespace
}  // namespace epic
