#include "benchmarks/eviction_workload.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <numeric>

#include "core/kv_block.h"
#include "core/limits.h"
#include "core/split_mix.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace epic {
namespace {

constexpr size_t kChunksMax = 20;
constexpr size_t kDocumentsOfARequestMax = 4;
constexpr size_t kPassagesMax = 4;
constexpr std::array<int32_t, 5> kChunkTokens = {128, 512, 512, 512, 1024};
constexpr int32_t kLastChunkTokensMin = 64;
constexpr size_t kBytesPerToken = 23'040;
constexpr size_t kHeaderBytes = 4'096;
constexpr double kRecompileUsPerToken = 1'000;
constexpr double kKeysThatCostAsMuch = 3'070;
constexpr double kReloadUs = 1'000;
constexpr double kReloadBytesPerUs = 400;
constexpr double kExponentDefault = 0.9;
constexpr size_t kBatches = 10;

class Random {
 public:
  explicit Random(uint64_t seed) : state_(SplitMix(seed)) {}
  uint64_t Next() {
    const uint64_t drawn = SplitMix(state_);
    state_ += kSplitMixStep;
    return drawn;
  }
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  size_t Below(size_t count) { return static_cast<size_t>(Uniform() * static_cast<double>(count)); }

 private:
  uint64_t state_;
};

template <typename T>
void Shuffle(std::vector<T>& values, Random& random) {
  for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[random.Below(i)]);
}

class Stream {
 public:
  Stream(std::string name, double exponent, size_t documents, uint64_t seed) : random_(seed) {
    workload_.name = std::move(name);
    double sum = 0;
    for (size_t i = 0; i < documents; ++i) {
      AddDocument();
      sum += std::pow(static_cast<double>(i + 1), -exponent);
      cumulative_.push_back(sum);
    }
    by_rank_.resize(documents);
    std::iota(by_rank_.begin(), by_rank_.end(), 0);
    Shuffle(by_rank_, random_);
  }

  Random& random() { return random_; }
  size_t document_count() const { return documents_.size(); }

  size_t DrawDocument() {
    const double at = random_.Uniform() * cumulative_.back();
    const auto rank = std::lower_bound(cumulative_.begin(), cumulative_.end(), at) - cumulative_.begin();
    return by_rank_[std::min<size_t>(rank, by_rank_.size() - 1)];
  }

  // How many documents a request wants.
  size_t DrawDocumentCount() {
    size_t count = 1;
    while (count < kDocumentsOfARequestMax && random_.Uniform() < 0.5) ++count;
    return count;
  }

  void ChangePlaces(size_t pairs) {
    for (size_t i = 0; i < pairs; ++i) {
      std::swap(by_rank_[random_.Below(by_rank_.size())], by_rank_[random_.Below(by_rank_.size())]);
    }
  }

  // A document beyond the catalogue that nobody asks for again.
  size_t AddDocument() {
    Document document = {.first_block = workload_.blocks.size(),
                         .chunk_count = 1 + random_.Below(kChunksMax),
                         .is_whole = random_.Uniform() < 0.5};
    const int32_t chunk_tokens = kChunkTokens[random_.Below(kChunkTokens.size())];
    int32_t context_tokens = 0;
    for (size_t i = 0; i < document.chunk_count; ++i) {
      const bool last = i + 1 == document.chunk_count;
      const int32_t tokens =
          last ? kLastChunkTokensMin + static_cast<int32_t>(random_.Below(chunk_tokens - kLastChunkTokensMin + 1))
               : chunk_tokens;
      if (context_tokens + tokens > kDocumentSectionTokensMax) context_tokens = 0;
      AddBlock(tokens, document.is_whole ? context_tokens : 0);
      context_tokens += tokens;
    }
    documents_.push_back(document);
    return documents_.size() - 1;
  }

  // Asks for a document as its kind is asked for, at most `tokens_max` tokens of it; returns the tokens asked for.
  size_t Ask(size_t number, size_t tokens_max = SIZE_MAX) {
    const Document& document = documents_[number];
    size_t first = 0;
    size_t count = document.chunk_count;
    if (!document.is_whole) {
      const double near_beginning = random_.Uniform();
      first = static_cast<size_t>(near_beginning * near_beginning * static_cast<double>(count));
      count = std::min(count - first, 1 + random_.Below(kPassagesMax));
    }
    size_t tokens = 0;
    for (size_t i = 0; i < count && tokens < tokens_max; ++i) {
      const size_t block = document.first_block + first + i;
      workload_.requests.push_back(static_cast<uint32_t>(block));
      tokens += tokens_[block];
    }
    return tokens;
  }

  void AskForAll(size_t number) {
    const Document& document = documents_[number];
    for (size_t i = 0; i < document.chunk_count; ++i) {
      workload_.requests.push_back(static_cast<uint32_t>(document.first_block + i));
    }
  }

  EvictionWorkload& workload() { return workload_; }

  // The first third warms up.
  EvictionWorkload Finish() && {
    workload_.warm_up = workload_.requests.size() / 3;
    return std::move(workload_);
  }

 private:
  struct Document {
    size_t first_block = 0;
    size_t chunk_count = 0;
    bool is_whole = false;
  };

  void AddBlock(int32_t tokens, int32_t context_tokens) {
    SimulatedBlock block;
    block.bytes = kHeaderBytes + kBytesPerToken * PaddedTokens(tokens);
    block.recompile_us = kRecompileUsPerToken * tokens * (1 + (context_tokens + tokens / 2.0) / kKeysThatCostAsMuch);
    block.reload_us = kReloadUs + static_cast<double>(block.bytes) / kReloadBytesPerUs;
    workload_.blocks.push_back(block);
    tokens_.push_back(tokens);
  }

  Random random_;
  EvictionWorkload workload_;
  std::vector<Document> documents_;
  std::vector<int32_t> tokens_;     // by block
  std::vector<double> cumulative_;  // of Zipf's law, by rank
  std::vector<size_t> by_rank_;     // documents, the most popular first
};

absl::StatusOr<Arrival> ParseArrival(const std::string& line, const std::string& path, size_t number) {
  const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
  const auto is_count = [&](const char* member) {
    return json.contains(member) && json[member].is_number() && json[member].get<double>() >= 0;
  };
  if (!json.is_object() || !is_count("timestamp") || !is_count("input_length")) {
    return absl::InvalidArgumentError(fmt::format(
        "{}, line {}: expected an object with \"timestamp\" (ms) and \"input_length\" (tokens), both at least 0", path,
        number));
  }
  return Arrival{.time_ms = json["timestamp"].get<double>(), .input_tokens = json["input_length"].get<size_t>()};
}

}  // namespace

size_t EvictionWorkload::WorkingSetBytes() const {
  std::vector<uint8_t> uses(blocks.size());
  size_t bytes = 0;
  for (const uint32_t block : requests) {
    if (uses[block] < 2 && ++uses[block] == 2) bytes += blocks[block].bytes;
  }
  return bytes;
}

EvictionWorkload ZipfWorkload(double exponent, const WorkloadSize& size, uint64_t seed) {
  Stream stream(fmt::format("zipf {}", exponent), exponent, size.documents, seed);
  for (size_t i = 0; i < size.requests; ++i) {
    for (size_t left = stream.DrawDocumentCount(); left > 0; --left) stream.Ask(stream.DrawDocument());
  }
  return std::move(stream).Finish();
}

EvictionWorkload DriftWorkload(const WorkloadSize& size, uint64_t seed) {
  Stream stream("drift", kExponentDefault, size.documents, seed);
  const size_t period = std::max<size_t>(1, size.requests / 100);
  for (size_t i = 0; i < size.requests; ++i) {
    if (i % period == 0) stream.ChangePlaces(size.documents / 50);
    for (size_t left = stream.DrawDocumentCount(); left > 0; --left) stream.Ask(stream.DrawDocument());
  }
  return std::move(stream).Finish();
}

EvictionWorkload ScanWorkload(const WorkloadSize& size, uint64_t seed) {
  Stream stream("scan", kExponentDefault, size.documents, seed);
  for (size_t i = 0; i < size.requests; ++i) {
    if (stream.random().Uniform() < 0.3) {
      stream.AskForAll(stream.AddDocument());
    } else {
      for (size_t left = stream.DrawDocumentCount(); left > 0; --left) stream.Ask(stream.DrawDocument());
    }
  }
  return std::move(stream).Finish();
}

EvictionWorkload BatchWorkload(const WorkloadSize& size, uint64_t seed) {
  constexpr double kExponent = 0.7;
  Stream stream("batches", kExponent, size.documents / 5, seed);
  EvictionWorkload& workload = stream.workload();
  std::vector<std::vector<uint32_t>> queries(size.requests / 20);
  for (std::vector<uint32_t>& query : queries) {
    for (size_t left = stream.DrawDocumentCount(); left > 0; --left) stream.Ask(stream.DrawDocument());
    query.swap(workload.requests);
  }
  for (size_t i = 0; i < stream.document_count(); ++i) stream.AskForAll(i);
  workload.warm_up = workload.requests.size();
  for (size_t batch = 0; batch < kBatches; ++batch) {
    Shuffle(queries, stream.random());
    for (const std::vector<uint32_t>& query : queries) {
      workload.requests.insert(workload.requests.end(), query.begin(), query.end());
    }
    workload.batch_ends.push_back(workload.requests.size());
  }
  return std::move(workload);
}

absl::StatusOr<std::vector<Arrival>> ReadArrivals(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(fmt::format("cannot read the trace {}", path));
  std::vector<Arrival> arrivals;
  size_t number = 0;
  for (std::string line; std::getline(file, line);) {
    absl::StatusOr<Arrival> arrival = ParseArrival(line, path, ++number);
    if (!arrival.ok()) return arrival.status();
    arrivals.push_back(*arrival);
  }
  if (arrivals.empty()) return absl::InvalidArgumentError(fmt::format("the trace {} is empty", path));
  return arrivals;
}

EvictionWorkload TraceWorkload(std::span<const Arrival> arrivals, size_t documents, uint64_t seed) {
  constexpr double kMinuteMs = 60'000;
  Stream stream("trace", kExponentDefault, documents, seed);
  double next_change_ms = kMinuteMs;
  for (const Arrival& arrival : arrivals) {
    for (; arrival.time_ms >= next_change_ms; next_change_ms += kMinuteMs) stream.ChangePlaces(documents / 100);
    for (size_t tokens = 0; tokens < arrival.input_tokens;) {
      const bool once = stream.random().Uniform() < 0.1;
      tokens += stream.Ask(once ? stream.AddDocument() : stream.DrawDocument(), arrival.input_tokens - tokens);
    }
  }
  return std::move(stream).Finish();
}

}  // namespace epic
