#include "benchmarks/report.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace epic {

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

bool AddBar(nlohmann::json& report, const std::string& name, double value, double bar) {
  report["bars"].push_back({{"name", name}, {"value", value}, {"bar", bar}, {"holds", value >= bar}});
  return value >= bar;
}

}  // namespace epic
