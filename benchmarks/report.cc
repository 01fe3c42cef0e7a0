#include "benchmarks/report.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <utility>

#include "fmt/format.h"

namespace epic {
namespace {

bool Append(Report& report, const std::string& name, double value, double bar, bool holds) {
  report["bars"].push_back({{"name", name}, {"value", value}, {"bar", bar}, {"holds", holds}});
  return holds;
}

}  // namespace

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

std::string ReadTexts(const std::string& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::ostringstream text;
  for (const auto& path : paths) text << std::ifstream(path).rdbuf();
  return text.str();
}

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double Percentile(std::vector<double> values, double share) {
  const double rank = std::ceil(share * static_cast<double>(values.size())) - 1;
  const auto at = values.begin() + std::max<std::ptrdiff_t>(0, static_cast<std::ptrdiff_t>(rank));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

Report StartReport(const std::string& benchmark, int threads) {
  return {{"benchmark", benchmark},
          {"processor", ProcessorName()},
          {"threads", threads},
          {"results", Report::array()},
          {"bars", Report::array()}};
}

bool AddBar(Report& report, const std::string& name, double value, double bar) {
  return Append(report, name + " (at least)", value, bar, value >= bar);
}

bool AddUpperBar(Report& report, const std::string& name, double value, double bar) {
  return Append(report, name + " (at most)", value, bar, value <= bar);
}

std::string BarsTable(const Report& report) {
  std::string table;
  for (const Report& bar : report["bars"]) {
    table +=
        fmt::format("{:<84} {:>10.3f}   bar {:>8.3f}   {}\n", bar["name"].get<std::string>(),
                    bar["value"].get<double>(), bar["bar"].get<double>(), bar["holds"].get<bool>() ? "holds" : "FAILS");
  }
  return table;
}

int PrintReport(Report report, const std::string& table, const std::string& format, const std::string& save) {
  for (const char* last : {"results", "bars"}) {
    Report member = std::move(report[last]);
    report.erase(last);
    report[last] = std::move(member);
  }
  const std::string json = report.dump(2) + "\n";
  std::cout << (format == "json" ? json : table) << std::flush;
  if (save.empty()) return 0;
  std::ofstream file(save);
  file << json << std::flush;
  if (file.good()) return 0;
  std::cerr << "error: the report cannot be written to " << save << "; give a path in a folder that exists\n";
  return 1;
}

}  // namespace epic
