// What every benchmark needs to say what it measured and on what: used by the programs in this folder alone.
//
// A report is JSON whose members stay in the order in which they were added: first what was measured and on what
// ("benchmark", "processor", "threads", "calibration", ...), then "results", and last "bars", each bar with
// {"name", "value", "bar", "holds"}. The name says whether the bar is to be reached or not to be passed.
#ifndef EPIC_BENCHMARKS_REPORT_H_
#define EPIC_BENCHMARKS_REPORT_H_

#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace epic {

using Report = nlohmann::ordered_json;

// The processor's own name for itself, "unknown processor" where the system does not tell.
std::string ProcessorName();

// All files of a folder in the order of their names, one behind the other.
std::string ReadTexts(const std::string& folder);

// The upper one of the two in the middle. REQUIRES: not empty.
double Median(std::vector<double> values);
// The smallest value that at least `share` of the values do not pass, so that 0.99 of fewer than 100 values is the
// largest. REQUIRES: not empty, share in (0, 1].
double Percentile(std::vector<double> values, double share);

// A report with the members that all of them begin with, "results" and "bars" empty.
Report StartReport(const std::string& benchmark, int threads);

// Appends a bar that holds where value >= bar (AddBar) or value <= bar (AddUpperBar); returns whether it holds.
bool AddBar(Report& report, const std::string& name, double value, double bar);
bool AddUpperBar(Report& report, const std::string& name, double value, double bar);
// The bars as lines, one a bar; empty where there are none.
std::string BarsTable(const Report& report);

// Prints the table, or with format "json" the report alone with the bars as its last member. Where `save` is not
// empty, the report is written to that file as well. Returns the program's exit status: 1 where the file cannot be
// written. A bar that does not hold is a finding, not an error.
int PrintReport(Report report, const std::string& table, const std::string& format, const std::string& save);

}  // namespace epic

#endif  // EPIC_BENCHMARKS_REPORT_H_
