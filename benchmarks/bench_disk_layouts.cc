// Which layout of the disk tier comes how near to plain files: integrated BlobDB, plain tables of RocksDB, segment
// files as shipped.
//
// Values are sealed KV blocks of about 1 MB, made before anything is measured. Each round gives every layout an empty
// folder, one after the other in an order that turns from round to round: all values are written; all are read in the
// same order; then a random mixture of 70 % reads and 30 % writes, each of which takes a value away and puts it again,
// over half as many bytes. One thread, one operation at a time. The time of a phase is the wall clock's, with what the
// layout has to do until its values are on the disk. Plain files are preallocated and read and written where the values
// lie; they verify nothing. All others verify every block that they read.
//
// Reads come from the disk and not from memory: all layouts use direct I/O; the buffered plain file is synced and taken
// out of the page cache (posix_fadvise) before it is read. So the values need not exceed the memory.
//
// Ratios are taken within a round, to the faster of the two plain files, and the table has the medians of the rounds.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "benchmarks/disk_layouts.h"
#include "benchmarks/report.h"
#include "core/kv_block_testing.h"
#include "fmt/format.h"
#include "storage/segment_file.h"

namespace epic {
namespace {

namespace fs = std::filesystem;

constexpr double kBar = 0.7;  // of a plain sequential read, and write
constexpr char kShipped[] = "segment files";
constexpr int kReadPercent = 70;

struct Options {
  std::string folder = ".";
  uint64_t bytes = uint64_t{2} << 30;
  int rounds = 5;
  bool quick = false;
  std::string format = "table";
  std::string save;
};

struct Phase {
  double megabytes_per_second = 0;
  double cpu_seconds_per_gb = 0;
  double write_amplification = 0;  // bytes that went to the disk, by the system's count, over bytes of values
};

struct Measurement {
  std::map<std::string, Phase> phases;  // write, read, mixed
  double own_write_amplification = 0;   // by the layout's own counters, over all phases
  double space = 0;                     // bytes on the disk at the end, over bytes of values
  double missed = 0;                    // share of the reads of the mixture that found nothing
};

// What the system counted as sent to the disk for this process.
uint64_t BytesToDisk() {
  std::ifstream file("/proc/self/io");
  std::string name;
  for (uint64_t value = 0; file >> name >> value;) {
    if (name == "write_bytes:") return value;
  }
  return 0;
}

double CpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

size_t BytesIn(const std::string& folder) {
  size_t bytes = 0;
  for (const auto& file : fs::recursive_directory_iterator(folder)) {
    struct stat attributes = {};
    if (stat(file.path().c_str(), &attributes) == 0) bytes += static_cast<size_t>(attributes.st_blocks) * 512;
  }
  return bytes;
}

// The block device that holds the folder, by the system's name for it.
std::string DeviceName(const std::string& folder) {
  struct stat attributes = {};
  if (stat(folder.c_str(), &attributes) != 0) return "unknown device";
  const fs::path link = fmt::format("/sys/dev/block/{}:{}", attributes.st_dev >> 8 & 0xfff, attributes.st_dev & 0xff);
  std::error_code error;
  const fs::path target = fs::read_symlink(link, error);
  return error ? "unknown device" : target.filename().string();
}

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options), report_(StartReport("disk-layouts", 1)) {}

  int Run() {
    MakeValues();
    std::string pattern = options_.folder + "/epic-disk-layouts-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) {
      std::cerr << "error: no folder can be made in " << options_.folder << "; give another one with --folder\n";
      return 1;
    }
    const std::vector<DiskLayoutKind> kinds = DiskLayoutKinds();
    const int rounds = options_.quick ? 1 : options_.rounds;
    for (int round = 0; round < rounds; ++round) {
      for (size_t i = 0; i < kinds.size(); ++i) {
        const DiskLayoutKind& kind = kinds[(i + static_cast<size_t>(round)) % kinds.size()];
        const std::string folder = pattern + "/layout";
        fs::create_directory(folder);
        measurements_[kind.name].push_back(Measure(kind, folder));
        fs::remove_all(folder);
        std::cerr << fmt::format("round {} of {}: {}\n", round + 1, rounds, kind.name);
      }
    }
    fs::remove_all(pattern);
    return Print(kinds);
  }

 private:
  void MakeValues() {
    const KvShape shape{.layers = 16, .kv_heads = 2, .head_dim = 64};
    const int tokens = options_.quick ? 32 : 120;
    value_bytes_ = KvBlockBytes(shape, tokens);
    const size_t count = std::max<size_t>(options_.quick ? 16 : 128, options_.bytes / value_bytes_);
    std::mt19937_64 random(1);
    for (size_t i = 0; i < (options_.quick ? 16 : count); ++i) {
      std::vector<int32_t> ids(static_cast<size_t>(tokens), 5);
      ids[0] = static_cast<int32_t>(i);
      const KvBlockInfo info = MakeTestBlockInfo(shape, ids);
      memory_.emplace_back(value_bytes_);
      KvBlockWriter writer = KvBlockWriter::Create(info, memory_.back().span()).value();
      auto* const words = reinterpret_cast<uint64_t*>(writer.Keys(0));
      const size_t payload_bytes = 2 * shape.MatrixBytes(tokens) * static_cast<size_t>(shape.layers);
      for (size_t word = 0; word < payload_bytes / sizeof(uint64_t); ++word) words[word] = random();
      writer.Seal();
      values_.push_back(KvBlockView::Parse(memory_.back().span()).value());
    }
  }

  // Runs `operations`, which returns how many bytes of values it wrote, and takes the phase's figures.
  template <typename Operations>
  Phase Timed(DiskLayout& layout, size_t operations_count, Operations&& operations) {
    const double cpu_before = CpuSeconds();
    const uint64_t disk_before = BytesToDisk();
    const auto start = std::chrono::steady_clock::now();
    const double written_bytes = static_cast<double>(operations());
    layout.Finish();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    const double bytes = static_cast<double>(operations_count * value_bytes_);
    return {bytes / elapsed.count() / 1e6, (CpuSeconds() - cpu_before) / (bytes / 1e9),
            written_bytes == 0 ? 0 : static_cast<double>(BytesToDisk() - disk_before) / written_bytes};
  }

  bool Read(DiskLayout& layout, bool verifies, size_t number) {
    const std::span<std::byte> out = buffer_.span();
    if (!layout.Get(values_[number], number, out)) return false;
    if (!verifies) return true;
    const absl::StatusOr<KvBlockView> block = KvBlockView::Parse(out.first(value_bytes_));
    if (!block.ok() || block->edition() != values_[number].edition() || !block->VerifyPayload().ok()) {
      std::cerr << "error: a layout gave back other bytes than were written\n";
      std::exit(1);
    }
    return true;
  }

  Measurement Measure(const DiskLayoutKind& kind, const std::string& folder) {
    Measurement result;
    const size_t count = values_.size();
    buffer_ = PageAlignedBytes(DiskPaddedBytes(value_bytes_));
    const std::unique_ptr<DiskLayout> layout = kind.open(folder, count, value_bytes_);
    result.phases["write"] = Timed(*layout, count, [&] {
      for (size_t i = 0; i < count; ++i) layout->Put(values_[i], i);
      return count * value_bytes_;
    });
    result.phases["read"] = Timed(*layout, count, [&] {
      for (size_t i = 0; i < count; ++i) Read(*layout, kind.verifies, i);
      return size_t{0};
    });
    std::mt19937 random(7);
    size_t reads = 0, missed = 0, writes = 0;
    result.phases["mixed"] = Timed(*layout, count / 2, [&] {
      for (size_t i = 0; i < count / 2; ++i) {
        const size_t number = random() % count;
        if (static_cast<int>(random() % 100) < kReadPercent) {
          ++reads;
          missed += Read(*layout, kind.verifies, number) ? 0 : 1;
        } else {
          ++writes;
          layout->Replace(values_[number], number);
        }
      }
      return writes * value_bytes_;
    });
    result.own_write_amplification =
        static_cast<double>(layout->written_bytes()) / static_cast<double>((count + writes) * value_bytes_);
    result.space = static_cast<double>(BytesIn(folder)) / static_cast<double>(count * value_bytes_);
    result.missed = static_cast<double>(missed) / static_cast<double>(std::max<size_t>(1, reads));
    return result;
  }

  double MedianOf(const std::string& kind, const std::function<double(const Measurement&)>& figure) const {
    std::vector<double> values;
    for (const Measurement& measurement : measurements_.at(kind)) values.push_back(figure(measurement));
    return Median(values);
  }
  // Of this layout over the faster plain file, within each round.
  double MedianRatio(const std::vector<DiskLayoutKind>& kinds, const std::string& kind,
                     const std::string& phase) const {
    std::vector<double> ratios;
    for (size_t round = 0; round < measurements_.at(kind).size(); ++round) {
      const auto speed = [&](const std::string& name) {
        return measurements_.at(name)[round].phases.at(phase).megabytes_per_second;
      };
      ratios.push_back(speed(kind) / std::max(speed(kinds[0].name), speed(kinds[1].name)));
    }
    return Median(ratios);
  }

  int Print(const std::vector<DiskLayoutKind>& kinds) {
    const std::string device = DeviceName(options_.folder);
    report_["device"] = device;
    report_["value_bytes"] = value_bytes_;
    report_["values"] = values_.size();
    report_["rounds"] = measurements_.begin()->second.size();
    std::string table = fmt::format(
        "{} values of {} bytes on {}, {}, 1 thread, medians of {} rounds\n"
        "MB/s (ratio to the faster plain file of the round); CPU seconds a GB; bytes to the disk over bytes of "
        "values\n\n"
        "{:<22} {:>15} {:>15} {:>15}   {:>5} {:>5} {:>5}   {:>6} {:>6} {:>6} {:>6}\n",
        values_.size(), value_bytes_, device, ProcessorName(), measurements_.begin()->second.size(), "layout", "write",
        "read", "mixed 70/30", "CPU w", "CPU r", "CPU m", "amp w", "amp m", "space", "missed");
    for (const DiskLayoutKind& kind : kinds) {
      Report row = {{"layout", kind.name}};
      table += fmt::format("{:<22}", kind.name);
      for (const char* phase : {"write", "read", "mixed"}) {
        const double speed =
            MedianOf(kind.name, [&](const Measurement& m) { return m.phases.at(phase).megabytes_per_second; });
        const double ratio = MedianRatio(kinds, kind.name, phase);
        row[fmt::format("{}_megabytes_per_second", phase)] = speed;
        row[fmt::format("{}_ratio_to_plain", phase)] = ratio;
        table += fmt::format(" {:>8.0f} ({:.2f})", speed, ratio);
      }
      table += "  ";
      for (const char* phase : {"write", "read", "mixed"}) {
        const double cpu =
            MedianOf(kind.name, [&](const Measurement& m) { return m.phases.at(phase).cpu_seconds_per_gb; });
        row[fmt::format("{}_cpu_seconds_per_gb", phase)] = cpu;
        table += fmt::format(" {:>5.2f}", cpu);
      }
      table += "  ";
      for (const char* phase : {"write", "mixed"}) {
        const double amplification =
            MedianOf(kind.name, [&](const Measurement& m) { return m.phases.at(phase).write_amplification; });
        row[fmt::format("{}_amplification", phase)] = amplification;
        table += fmt::format(" {:>6.2f}", amplification);
      }
      row["own_write_amplification"] =
          MedianOf(kind.name, [](const Measurement& m) { return m.own_write_amplification; });
      row["space"] = MedianOf(kind.name, [](const Measurement& m) { return m.space; });
      row["missed"] = MedianOf(kind.name, [](const Measurement& m) { return m.missed; });
      table += fmt::format(" {:>6.2f} {:>6.2f}\n", row["space"].get<double>(), row["missed"].get<double>());
      report_["results"].push_back(row);
    }
    if (!options_.quick) {
      AddBar(report_, "segment files, sequential read over the plain file's", MedianRatio(kinds, kShipped, "read"),
             kBar);
      AddBar(report_, "segment files, sequential write over the plain file's", MedianRatio(kinds, kShipped, "write"),
             kBar);
      table += "\n" + BarsTable(report_);
    }
    return PrintReport(report_, table, options_.format, options_.save);
  }

  const Options options_;
  Report report_;
  size_t value_bytes_ = 0;
  std::vector<PageAlignedBytes> memory_;
  std::vector<KvBlockView> values_;
  PageAlignedBytes buffer_{kDiskAlignmentBytes};
  std::map<std::string, std::vector<Measurement>> measurements_;
};

}  // namespace
}  // namespace epic

int main(int argc, char** argv) {
  epic::Options options;
  CLI::App app("The disk tier's layouts beside plain files.");
  app.add_option("--folder", options.folder, "on the disk to be measured")->capture_default_str();
  app.add_option("--bytes", options.bytes, "of all values; held in memory, and up to three times on the disk")
      ->capture_default_str();
  app.add_option("--rounds", options.rounds, "of all layouts in turn")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--quick", options.quick, "a few small values, once: whether it runs");
  app.add_option("--format", options.format, "table or json")->check(CLI::IsMember({"table", "json"}));
  app.add_option("--save", options.save, "writes the report to this file as well");
  CLI11_PARSE(app, argc, argv);
  return epic::Bench(options).Run();
}
