// What every benchmark needs to say what it measured and on what: used by the programs in this folder alone.
#ifndef EPIC_BENCHMARKS_REPORT_H_
#define EPIC_BENCHMARKS_REPORT_H_

#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace epic {

// The processor's own name for itself, "unknown processor" where the system does not tell.
std::string ProcessorName();

// All files of a folder in the order of their names, one behind the other.
std::string ReadTexts(const std::string& folder);

// The upper one of the two in the middle. REQUIRES: not empty.
double Median(std::vector<double> values);

// Appends {"name", "value", "bar", "holds"} to report["bars"]; holds where value >= bar, which is returned.
bool AddBar(nlohmann::json& report, const std::string& name, double value, double bar);

}  // namespace epic

#endif  // EPIC_BENCHMARKS_REPORT_H_
