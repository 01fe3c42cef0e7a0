// The compute kernels alone, beside what this machine can do at most: matrix products at 1 to 4,096 rows for the
// model's own shapes and those of an 8B model, products with a file's own blocks at the few rows of decoding, and
// segment attention at decode and at prefill.
//
// Operations are multiply-adds counted twice; bytes are those of weights, or of keys and values, each counted once a
// call. Weights of few rows come from memory, not from a cache: every call takes the next of as many copies as do not
// fit into one. So do keys and values: each layer has its own.
#include <algorithm>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "benchmarks/bench_engine.h"
#include "benchmarks/calibration.h"
#include "benchmarks/report.h"
#include "engine/cpu/block_matrix.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/packed_matrix.h"
#include "engine/cpu/segment_attention.h"
#include "engine/cpu/segment_attention_testing.h"
#include "engine/cpu/thread_pool.h"
#include "engine/files/model_file.h"
#include "fmt/format.h"

namespace epic {
namespace {

struct Options {
  BenchOptions common;
  std::vector<int> rows = {1, 4, 16, 64, 256, 1024, 4096};
  std::vector<int> block_rows = {1, 2, 4, 8};
  int context_tokens = 6144;
  double seconds = 0.05;  // of one measurement, at least
};

constexpr int kChunkTokens = 512;
constexpr int kProductRows = 96;  // rows and panels of one task, as the backend cuts them
constexpr int kTaskPanels = 16;
constexpr int kColdRowsMax = 16;  // up to here the weights are what costs
constexpr size_t kColdBytes = size_t{96} << 20;
constexpr double kAttentionBar = 0.70;
constexpr BlockFormat kMeasuredFormats[] = {BlockFormat::kQ4_0, BlockFormat::kQ4_1, BlockFormat::kQ8_0,
                                            BlockFormat::kQ4_K, BlockFormat::kQ6_K};

const char* NameOf(BlockFormat format) {
  switch (format) {
    case BlockFormat::kQ4_0:
      return "Q4_0";
    case BlockFormat::kQ4_1:
      return "Q4_1";
    case BlockFormat::kQ5_0:
      return "Q5_0";
    case BlockFormat::kQ5_1:
      return "Q5_1";
    case BlockFormat::kQ8_0:
      return "Q8_0";
    case BlockFormat::kQ4_K:
      return "Q4_K";
    case BlockFormat::kQ5_K:
      return "Q5_K";
    case BlockFormat::kQ6_K:
      return "Q6_K";
  }
  return "?";
}

struct Shape {
  std::string name;
  int inner = 0;
  int outputs = 0;
};

struct AttentionShape {
  std::string name;
  KvShape kv;
  int heads = 0;
};

class Bench {
 public:
  Bench(const Options& options, const ModelConfig& config)
      : options_(options),
        calibrator_(ThreadCount(options.common), options.common.quick),
        report_(StartReport("kernels", ThreadCount(options.common))),
        pool_(ThreadCount(options.common)),
        kernels_(SelectCpuKernels()) {
    if (kernels_ == nullptr) {
      OrExit(absl::UnimplementedError("the CPU backend needs AVX2 with FMA and F16C, which this processor lacks"));
    }
    const int kv_columns = config.kv_heads * config.head_dim;
    shapes_ = {{"qkv", config.width, config.heads * config.head_dim + 2 * kv_columns},
               {"output", config.heads * config.head_dim, config.width},
               {"gate_up", config.width, 2 * config.ffn_width},
               {"down", config.ffn_width, config.width},
               {"vocabulary", config.width, config.vocab_size}};
    attention_shapes_ = {{"model", {config.layers, config.kv_heads, config.head_dim}, config.heads}};
    if (!options.common.quick) {
      shapes_.push_back({"8B square", 4096, 4096});
      shapes_.push_back({"8B gate", 4096, 14336});
      attention_shapes_.push_back({"8B", {4, 8, 128}, 32});
    }
    report_["model"] = config.name;
    report_["instruction_set"] = kernels_->name;
    model_ = config.name;
  }

  int Run() {
    for (const Shape& shape : shapes_) MeasureProducts(shape);
    for (const Shape& shape : shapes_) MeasureBlocks(shape);
    calibrator_.Measure();  // between, because memory speed changes from minute to minute
    for (const AttentionShape& shape : attention_shapes_) {
      decode_gbps_.push_back(MeasureDecodeAttention(shape));
      MeasurePrefillAttention(shape);
    }
    ShowProgress("");
    calibrator_.Measure();
    const std::string calibration = calibrator_.AddTo(report_);
    const double read = calibrator_.best().read_gbps.all_threads;
    for (size_t i = 0; i < attention_shapes_.size(); ++i) {
      AddBar(report_, "attention at decode, " + attention_shapes_[i].name + " shape: share of the read bandwidth",
             decode_gbps_[i] / read, kAttentionBar);
    }
    return PrintReport(report_, Table(calibration), options_.common.format, options_.common.save);
  }

 private:
  struct Line {
    std::string kernel, shape;
    int rows = 0;
    double gflops = 0;
    double gbps = 0;
  };

  // Seconds of one call: the median of the runs, each of as many calls as take options_.seconds.
  double SecondsOf(const std::function<void()>& call) {
    call();
    std::vector<double> seconds;
    for (int run = 0; run < options_.common.runs; ++run) {
      int calls = 0;
      double elapsed = 0;
      const SteadyTime begin = std::chrono::steady_clock::now();
      do {
        call();
        ++calls;
        elapsed = SecondsBetween(begin, std::chrono::steady_clock::now());
      } while (elapsed < options_.seconds);
      seconds.push_back(elapsed / calls);
    }
    return Median(std::move(seconds));
  }

  void Add(const std::string& kernel, const std::string& shape, int rows, double operations, double bytes,
           double seconds) {
    lines_.push_back({kernel, shape, rows, operations / seconds / 1e9, bytes / seconds / 1e9});
  }

  std::vector<float> RandomFloats(size_t count) {
    std::vector<float> values(count);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (float& value : values) value = uniform(random_);
    return values;
  }

  // All rows by one matrix, cut into tasks as the backend cuts it.
  void Multiply(const PackedMatrix& matrix, const std::vector<float>& input, int rows, std::vector<uint16_t>& rounded,
                std::vector<float>& output) {
    const int inner = matrix.inner(), even = (inner + 1) / 2 * 2;
    const auto columns = static_cast<size_t>(matrix.padded_outputs());
    if (kernels_->rounds_activations) {
      rounded.resize(static_cast<size_t>(rows) * even);
      pool_.ParallelFor(rows, [&](int64_t r, int) {
        kernels_->round_to_bf16(input.data() + r * inner, inner, rounded.data() + r * even);
      });
    }
    const int row_tasks = (rows + kProductRows - 1) / kProductRows;
    const int wanted = (4 * pool_.threads() + row_tasks - 1) / row_tasks;
    const int panels = std::clamp((matrix.panels() / wanted + 3) / 4 * 4, 4, kTaskPanels);
    const int panel_tasks = (matrix.panels() + panels - 1) / panels;
    pool_.ParallelFor(static_cast<int64_t>(row_tasks) * panel_tasks, [&](int64_t task, int) {
      const int row = static_cast<int>(task / panel_tasks) * kProductRows;
      const int panel = static_cast<int>(task % panel_tasks) * panels;
      const int row_count = std::min(kProductRows, rows - row);
      const int panel_count = std::min(panels, matrix.panels() - panel);
      float* to = output.data() + row * columns + static_cast<size_t>(panel) * kPanelColumns;
      if (kernels_->rounds_activations) {
        kernels_->multiply_rounded(rounded.data() + static_cast<size_t>(row) * even, even, row_count,
                                   matrix.Panel(panel), inner, panel_count, to, columns, false);
      } else {
        kernels_->multiply(input.data() + static_cast<size_t>(row) * inner, inner, row_count, matrix.Panel(panel),
                           inner, panel_count, to, columns, false);
      }
    });
  }

  void MeasureProducts(const Shape& shape) {
    const std::vector<float> weights = RandomFloats(shape.inner);
    std::vector<PackedMatrix> copies;
    size_t bytes = 0;
    do {
      copies.emplace_back(shape.outputs, shape.inner);
      for (int o = 0; o < shape.outputs; ++o) copies.back().SetRow(o, weights.data());
      bytes += copies.back().bytes();
    } while (bytes < kColdBytes && !options_.common.quick);
    const int most = *std::max_element(options_.rows.begin(), options_.rows.end());
    const std::vector<float> input = RandomFloats(static_cast<size_t>(most) * shape.inner);
    std::vector<uint16_t> rounded;
    std::vector<float> output;
    for (const int rows : options_.rows) {
      if (shape.name == "vocabulary" && rows > kColdRowsMax) continue;  // one row a request is ever asked for
      ShowProgress(fmt::format("product {}, {} rows", shape.name, rows));
      output.resize(static_cast<size_t>(rows) * copies.front().padded_outputs());
      size_t next = 0;
      const double seconds = SecondsOf(
          [&] { Multiply(copies[rows <= kColdRowsMax ? next++ % copies.size() : 0], input, rows, rounded, output); });
      Add("bf16", shape.name, rows, 2.0 * rows * shape.inner * shape.outputs, 2.0 * shape.inner * shape.outputs,
          seconds);
    }
  }

  void MeasureBlocks(const Shape& shape) {
    for (const BlockFormat format : kMeasuredFormats) {
      if (shape.inner % BlockElements(format) != 0) continue;
      const size_t row_bytes = BlockRowBytes(format, shape.inner);
      const size_t bytes = row_bytes * shape.outputs;
      const size_t copies = options_.common.quick ? 1 : (kColdBytes + bytes - 1) / bytes;
      std::vector<std::byte> weights(bytes * copies);
      for (std::byte& byte : weights) byte = static_cast<std::byte>(random_() & 0x3F);  // scales of moderate size
      const int most = *std::max_element(options_.block_rows.begin(), options_.block_rows.end());
      const std::vector<float> input = RandomFloats(static_cast<size_t>(most) * shape.inner);
      std::vector<int16_t> values(input.size());
      std::vector<float> scales(input.size() / kActivationGroup), sums(scales.size());
      RoundForBlocks(input.data(), static_cast<int>(input.size()), values.data(), scales.data(), sums.data());
      std::vector<float> output(static_cast<size_t>(most) * shape.outputs);
      const int task_outputs = std::max(32, shape.outputs / (4 * pool_.threads()));
      for (const int rows : options_.block_rows) {
        ShowProgress(fmt::format("product {} with {}, {} rows", shape.name, NameOf(format), rows));
        size_t next = 0;
        const double seconds = SecondsOf([&] {
          const std::byte* matrix = weights.data() + next++ % copies * bytes;
          pool_.ParallelFor((shape.outputs + task_outputs - 1) / task_outputs, [&](int64_t task, int) {
            const int first = static_cast<int>(task) * task_outputs;
            MultiplyBlocks(format, {values.data(), scales.data(), sums.data()}, rows, matrix + row_bytes * first,
                           shape.inner, std::min(task_outputs, shape.outputs - first), output.data() + first,
                           shape.outputs, false);
          });
        });
        Add(NameOf(format), shape.name, rows, 2.0 * rows * shape.inner * shape.outputs, static_cast<double>(bytes),
            seconds);
      }
    }
  }

  // One sequence behind chunks, `rows` query rows at its end; returns the seconds of all layers.
  double AttentionSeconds(const AttentionShape& shape, int rows) {
    const int chunks = std::max(1, options_.context_tokens / kChunkTokens);
    const int chunk_tokens = std::min(options_.context_tokens, kChunkTokens);
    AttentionWorld world(shape.kv, shape.heads, chunks * chunk_tokens + rows, 1);
    std::vector<SharedSegment> segments;
    for (int c = 0; c < chunks; ++c) {
      segments.push_back({world.MakeChunk(chunk_tokens, 0), 0, chunk_tokens, c * chunk_tokens, {}});
    }
    std::vector<int32_t> positions(static_cast<size_t>(rows));
    for (int r = 0; r < rows; ++r) positions[static_cast<size_t>(r)] = chunks * chunk_tokens + r;
    world.AddSequence(std::move(segments), positions, rows);
    SegmentAttention attention(shape.kv, shape.heads, kernels_, pool_);
    std::vector<float> output(static_cast<size_t>(world.rows()) * world.query_stride());
    const AttentionRows batch = world.Rows(output.data());
    return SecondsOf([&] {
      attention.Plan(world.batch(), 0);
      for (int32_t layer = 0; layer < shape.kv.layers; ++layer) attention.Run(layer, batch);
    });
  }

  // Returns 1e9 bytes of keys and values a second.
  double MeasureDecodeAttention(const AttentionShape& shape) {
    ShowProgress(fmt::format("attention at decode, {} shape", shape.name));
    const double seconds = AttentionSeconds(shape, 1);
    const double values = 2.0 * ContextTokens() * shape.kv.kv_heads * shape.kv.head_dim * shape.kv.layers;
    Add("attention, decode", shape.name, 1, 4.0 * ContextTokens() * shape.heads * shape.kv.head_dim * shape.kv.layers,
        values * sizeof(uint16_t), seconds);
    return lines_.back().gbps;
  }

  void MeasurePrefillAttention(const AttentionShape& shape) {
    for (const int rows : {64, 256}) {
      if (options_.common.quick && rows > 64) continue;
      ShowProgress(fmt::format("attention of {} rows, {} shape", rows, shape.name));
      const double seconds = AttentionSeconds(shape, rows);
      const double keys = rows * static_cast<double>(ContextTokens()) + rows * (rows + 1.0) / 2;
      Add("attention, link", shape.name, rows, 4.0 * keys * shape.heads * shape.kv.head_dim * shape.kv.layers,
          4.0 * ContextTokens() * shape.kv.kv_heads * shape.kv.head_dim * shape.kv.layers, seconds);
    }
  }

  int ContextTokens() const {
    return std::max(1, options_.context_tokens / kChunkTokens) * std::min(options_.context_tokens, kChunkTokens);
  }

  std::string Table(const std::string& calibration) {
    const double peak = calibrator_.best().PeakGflops(), read = calibrator_.best().read_gbps.all_threads;
    std::string table = fmt::format(
        "{}, {}, kernels of {}, {} threads; attention over {} tokens in chunks of {}; medians of {} runs\n\n{}"
        "\n{:<20} {:<12} {:>6} {:>10} {:>9} {:>10} {:>9}\n",
        model_, ProcessorName(), kernels_->name, ThreadCount(options_.common), ContextTokens(), kChunkTokens,
        options_.common.runs, calibration, "kernel", "shape", "rows", "GFLOP/s", "of peak", "GB/s", "of read");
    for (const Line& line : lines_) {
      table += fmt::format("{:<20} {:<12} {:>6} {:>10.1f} {:>8.0f}% {:>10.2f} {:>8.0f}%\n", line.kernel, line.shape,
                           line.rows, line.gflops, line.gflops / peak * 100, line.gbps, line.gbps / read * 100);
      report_["results"].push_back({{"kernel", line.kernel},
                                    {"shape", line.shape},
                                    {"rows", line.rows},
                                    {"gflops", line.gflops},
                                    {"share_of_peak", line.gflops / peak},
                                    {"gbps", line.gbps},
                                    {"share_of_read", line.gbps / read}});
    }
    return table + "\n" + BarsTable(report_);
  }

  Options options_;
  Calibrator calibrator_;
  Report report_;
  std::string model_;
  ThreadPool pool_;
  const CpuKernels* kernels_;
  std::mt19937 random_{1};
  std::vector<Shape> shapes_;
  std::vector<AttentionShape> attention_shapes_;
  std::vector<Line> lines_;
  std::vector<double> decode_gbps_;
};

}  // namespace
}  // namespace epic

int main(int argc, char** argv) {
  epic::Options options;
  CLI::App app("Products and attention alone, beside what the machine can do at most");
  options.common.runs = 5;
  epic::AddBenchOptions(app, options.common);
  app.add_option("--rows", options.rows, "rows of the bf16 products, comma-separated")
      ->delimiter(',')
      ->check(CLI::Range(1, 65536));
  app.add_option("--context-tokens", options.context_tokens, "keys that attention sees")
      ->check(CLI::Range(64, 1 << 20));
  app.add_option("--seconds", options.seconds, "of one measurement, at least")->check(CLI::Range(0.0, 60.0));
  CLI11_PARSE(app, argc, argv);
  if (options.common.quick) {
    options.common.runs = 1;
    options.rows = {1, 16};
    options.block_rows = {1};
    options.context_tokens = 512;
    options.seconds = 0;
  }
  const auto file = epic::OrExit(epic::OpenModelFile(options.common.model));
  return epic::Bench(options, file->config()).Run();
}
