// The plot of accuracy against time to first token: one marker a linker, an error bar each, and the Pareto front.
//
// One drawing for both formats, by cairo: WritePng and WriteSvg write the same picture of kPlotWidthPx x kPlotHeightPx.
// x is logarithmic (milliseconds span decades), y linear. Text is drawn in DejaVu Sans, or what the system has in its
// place; in an SVG file it is outlines, so that it looks the same everywhere.
//
// Pure but for the file that is written. Different plots may be written from different threads.
#ifndef EPIC_EVAL_PLOT_H_
#define EPIC_EVAL_PLOT_H_

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace epic::eval {

inline constexpr int kPlotWidthPx = 1200;
inline constexpr int kPlotHeightPx = 750;

// The largest magnitude of x and y that is drawn, and the inverse of the smallest x: far outside any time or score, and
// small enough that ticks can be computed and their labels fit.
inline constexpr double kPlotValueMax = 1e9;

struct PlotPoint {
  double x = 0;  // positive
  double y = 0;
  double y_low = 0;  // the error bar's ends; both equal to y where there is none
  double y_high = 0;
  std::string label = {};
};

// The points of one family, joined by a thin line in the order given.
struct PlotSeries {
  // Families of linkers (full, prefix, naive, cacheblend, legolink, random) have a colour and a marker of their own,
  // the same in every plot; other names take one of two spare pairs in turn. With "@" and a recipe behind it a family's
  // marker is hollow.
  std::string name;
  std::vector<PlotPoint> points;
};

struct ParetoPlot {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<PlotSeries> series;
};

// The points that no other point dominates (as small an x and as large a y, and better in one of them), as indices, x
// ascending; with equal x, which are then equal points, indices ascending.
std::vector<size_t> ParetoFront(std::span<const PlotPoint> points);

// Write the picture to `path`, replacing what is there. The file appears whole: it is written beside its place and
// renamed. INVALID_ARGUMENT, naming the point by its label, for an x that is not positive, a value that is not finite
// or beyond kPlotValueMax, and y_low above y_high; also for text that is not UTF-8, and for a plot without points.
// Where the file cannot be written the error names it and has the system's reason.
absl::Status WriteSvg(const ParetoPlot& plot, const std::string& path);
absl::Status WritePng(const ParetoPlot& plot, const std::string& path);

}  // namespace epic::eval

#endif  // EPIC_EVAL_PLOT_H_
