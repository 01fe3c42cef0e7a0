#include "server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

namespace epic {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// The whole answer to GET `path` on this machine's `port`, or "" where nobody listens.
std::string HttpGet(int port, const std::string& path) {
  const int connection = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    const std::string request = "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    EXPECT_EQ(send(connection, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
    char piece[4096];
    for (ssize_t count; (count = recv(connection, piece, sizeof(piece), 0)) > 0;) answer.append(piece, count);
  }
  close(connection);
  return answer;
}

TEST(MetricsTest, CountersAndHistogramsAppearInTheText) {
  Metrics metrics;
  metrics.Counter("epic_test_requests_total", "Requests.", {{"code", "ok"}}).Increment(2);
  metrics.Counter("epic_test_requests_total", "Requests.", {{"code", "ok"}}).Increment();
  metrics.Gauge("epic_test_used_bytes", "Bytes.").Set(17);
  metrics.LatencyHistogram("epic_test_ttft_seconds", "TTFT.").Observe(0.04);
  const std::string text = metrics.TextExposition();
  EXPECT_THAT(text, HasSubstr("# TYPE epic_test_requests_total counter"));
  EXPECT_THAT(text, HasSubstr("epic_test_requests_total{code=\"ok\"} 3"));
  EXPECT_THAT(text, HasSubstr("epic_test_used_bytes 17"));
  EXPECT_THAT(text, HasSubstr("epic_test_ttft_seconds_bucket{le=\"0.03\"} 0"));
  EXPECT_THAT(text, HasSubstr("epic_test_ttft_seconds_bucket{le=\"0.05\"} 1"));
  EXPECT_THAT(text, HasSubstr("epic_test_ttft_seconds_bucket{le=\"60\"} 1"));
}

TEST(MetricsTest, CallbacksAreReadAtEachScrapeUntilTheirHandleEnds) {
  Metrics metrics;
  double value = 1;
  {
    const Metrics::Registration a =
        metrics.GaugeCallback("epic_test_queue", "Queue.", {{"role", "a"}}, [&] { return value; });
    const Metrics::Registration b =
        metrics.CounterCallback("epic_test_done_total", "Done.", {}, [&] { return value * 10; });
    EXPECT_THAT(metrics.TextExposition(), HasSubstr("epic_test_queue{role=\"a\"} 1"));
    value = 2;
    EXPECT_THAT(metrics.TextExposition(), HasSubstr("epic_test_queue{role=\"a\"} 2"));
    EXPECT_THAT(metrics.TextExposition(), HasSubstr("epic_test_done_total 20"));
  }
  EXPECT_THAT(metrics.TextExposition(), Not(HasSubstr("epic_test_queue")));
}

TEST(MetricsTest, AHandleMayOutliveItsMetrics) {
  Metrics::Registration handle;
  {
    Metrics metrics;
    handle = metrics.GaugeCallback("epic_test_queue", "Queue.", {}, [] { return 1.0; });
  }
  handle = Metrics::Registration();
}

TEST(MetricsServerTest, ServesTheTextOverHttp) {
  auto metrics = std::make_shared<Metrics>();
  metrics->Counter("epic_test_requests_total", "Requests.").Increment(5);
  const auto server = MetricsServer::Start("127.0.0.1:0", metrics);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_THAT((*server)->address(), Not(HasSubstr(":0")));
  const std::string address = (*server)->address();
  const std::string answer = HttpGet(std::atoi(address.substr(address.rfind(':') + 1).c_str()), "/metrics");
  EXPECT_THAT(answer, HasSubstr("200 OK"));
  EXPECT_THAT(answer, HasSubstr("epic_test_requests_total 5"));
}

TEST(MetricsServerTest, APortInUseIsOneSentence) {
  auto metrics = std::make_shared<Metrics>();
  const auto first = MetricsServer::Start("127.0.0.1:0", metrics);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = MetricsServer::Start((*first)->address(), metrics);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr((*first)->address() + ": the port is in use"));
  EXPECT_EQ(MetricsServer::Start("nonsense", metrics).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace epic
