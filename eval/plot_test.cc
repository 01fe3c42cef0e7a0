#include "eval/plot.h"

#include <cairo.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "eval/plot_layout.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

// fontconfig keeps what it found for the process's life, by pointers that the leak checker cannot follow.
// NOLINTNEXTLINE(bugprone-reserved-identifier,readability-identifier-naming): the sanitizer looks for this name
extern "C" const char* __lsan_default_suppressions() { return "leak:libfontconfig"; }

namespace epic::eval {
namespace {

using internal::Box;
using internal::Pixel;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

PlotPoint Point(double x, double y, double error = 0, const std::string& label = "") {
  return {.x = x, .y = y, .y_low = y - error, .y_high = y + error, .label = label};
}

TEST(ParetoFrontTest, KeepsWhatNoOtherPointDominates) {
  const std::vector<PlotPoint> points = {Point(100, 0.5), Point(10, 0.2), Point(50, 0.1), Point(200, 0.4),
                                         Point(20, 0.3)};
  EXPECT_THAT(ParetoFront(points), ElementsAre(1, 4, 0));
}

TEST(ParetoFrontTest, OfEqualsInOneCoordinateTheBetterInTheOtherStays) {
  EXPECT_THAT(ParetoFront(std::vector<PlotPoint>{Point(10, 0.2), Point(10, 0.3)}), ElementsAre(1));
  EXPECT_THAT(ParetoFront(std::vector<PlotPoint>{Point(20, 0.2), Point(10, 0.2)}), ElementsAre(1));
}

TEST(ParetoFrontTest, EqualPointsAreBothOnIt) {
  EXPECT_THAT(ParetoFront(std::vector<PlotPoint>{Point(10, 0.2), Point(20, 0.1), Point(10, 0.2)}), ElementsAre(0, 2));
}

TEST(ParetoFrontTest, OfNoPointsIsEmpty) { EXPECT_THAT(ParetoFront({}), ElementsAre()); }

TEST(TicksTest, LogarithmicOnesAreOneTwoAndFive) {
  EXPECT_THAT(internal::LogarithmicTicks(8, 300), ElementsAre(10, 20, 50, 100, 200));
  EXPECT_THAT(internal::LogarithmicTicks(0.04, 1), ElementsAre(0.05, 0.1, 0.2, 0.5, 1));
  EXPECT_THAT(internal::LogarithmicTicks(21, 49), ElementsAre());
}

TEST(TicksTest, LogarithmicOnesThinOutOverManyDecades) {
  EXPECT_THAT(internal::LogarithmicTicks(0.9, 2e5), ElementsAre(1, 10, 100, 1000, 1e4, 1e5));
  EXPECT_THAT(internal::LogarithmicTicks(1e-9, 1e9), ElementsAre(1e-8, 1e-6, 1e-4, 1e-2, 1, 1e2, 1e4, 1e6, 1e8));
}

TEST(TicksTest, LinearOnesAreRoundNumbers) {
  EXPECT_THAT(internal::LinearTicks(0, 1), ElementsAre(0, 0.2, 0.4, 0.6, 0.8, 1));
  EXPECT_THAT(internal::LinearTicks(0.31, 0.36), ElementsAre(0.31, 0.32, 0.33, 0.34, 0.35, 0.36));
  EXPECT_THAT(internal::LinearTicks(-12, 45), ElementsAre(-10, 0, 10, 20, 30, 40));
}

TEST(TicksTest, ThereAreAlwaysEnoughLinearOnesAndNeverTooMany) {
  for (double span = 1e-6; span < 1e9; span *= 1.37) {
    const size_t count = internal::LinearTicks(-0.3 * span, 0.7 * span).size();
    EXPECT_GE(count, 3u) << span;
    EXPECT_LE(count, 9u) << span;
  }
}

TEST(TicksTest, LabelsHaveTheDigitsThatTheyNeed) {
  EXPECT_EQ(internal::DecimalsOf(200), 0);
  EXPECT_EQ(internal::DecimalsOf(1), 0);
  EXPECT_EQ(internal::DecimalsOf(0.5), 1);
  EXPECT_EQ(internal::DecimalsOf(0.1), 1);
  EXPECT_EQ(internal::DecimalsOf(0.02), 2);
  EXPECT_EQ(internal::DecimalsOf(0.001), 3);
}

TEST(AxesTest, CoverEveryPointWithItsErrorBar) {
  const std::vector<PlotPoint> points = {Point(100, 0.5, 0.1), Point(1000, 0.7, 0.2)};
  const internal::Axes axes = internal::AxesOf(points);
  EXPECT_LT(axes.x_low, 100);
  EXPECT_GT(axes.x_high, 1000);
  EXPECT_LT(axes.y_low, 0.4);
  EXPECT_GT(axes.y_high, 0.9);
}

TEST(AxesTest, OfASinglePointHaveARange) {
  for (const double y : {0.0, 0.4, -1e9}) {
    const internal::Axes axes = internal::AxesOf(std::vector<PlotPoint>{Point(100, y)});
    EXPECT_GE(internal::LogarithmicTicks(axes.x_low, axes.x_high).size(), 2u);
    EXPECT_LT(axes.y_low, y);
    EXPECT_GT(axes.y_high, y);
  }
}

TEST(AxesTest, EqualRatiosOfXAreEquallyFarApart) {
  const internal::Axes axes = {.x_low = 1, .x_high = 100, .y_low = 0, .y_high = 2};
  const Pixel middle = axes.PlaceOf(10, 1);
  EXPECT_NEAR(middle.x, 0.5 * (internal::kArea.left + internal::kArea.right), 1e-9);
  EXPECT_NEAR(middle.y, 0.5 * (internal::kArea.top + internal::kArea.bottom), 1e-9);
  EXPECT_NEAR(axes.PlaceOf(1, 2).y, internal::kArea.top, 1e-9);  // larger is higher
}

bool Overlap(const Box& a, const Box& b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

TEST(PlaceLabelsTest, LabelsOfNeighboursDoNotOverlapNorLeaveTheArea) {
  // A row of markers closer together than their labels are wide, the last at the right edge.
  std::vector<Pixel> markers;
  std::vector<internal::LabelSize> sizes;
  for (int i = 0; i < 5; ++i) {
    markers.push_back({.x = 800.0 + 30 * i, .y = 300.0 + i});
    sizes.push_back({.width = 70, .height = 12});
  }
  const Box area = {.left = 100, .top = 50, .right = 925, .bottom = 700};
  const std::vector<Box> labels = internal::PlaceLabels(markers, sizes, {}, area);
  ASSERT_EQ(labels.size(), markers.size());
  for (size_t i = 0; i < labels.size(); ++i) {
    EXPECT_LE(labels[i].right, area.right) << i;
    EXPECT_NEAR(labels[i].right - labels[i].left, 70, 1e-9);
    for (size_t j = 0; j < i; ++j) EXPECT_FALSE(Overlap(labels[i], labels[j])) << i << " and " << j;
    for (const Pixel& marker : markers) {
      EXPECT_FALSE(Overlap(labels[i], {marker.x - 5, marker.y - 5, marker.x + 5, marker.y + 5})) << i;
    }
  }
}

TEST(PlaceLabelsTest, KeepsAwayFromLines) {
  const std::vector<Pixel> marker = {{.x = 400, .y = 300}};
  const std::vector<internal::LabelSize> size = {{.width = 60, .height = 12}};
  const Box area = {.left = 0, .top = 0, .right = 800, .bottom = 600};
  const Box usual = internal::PlaceLabels(marker, size, {}, area)[0];
  std::vector<Box> line;
  internal::AddLine(std::vector<Pixel>{{usual.left, usual.top + 6}, {usual.right, usual.top + 6}}, line);
  const Box moved = internal::PlaceLabels(marker, size, line, area)[0];
  for (const Box& box : line) EXPECT_FALSE(Overlap(moved, box));
}

// ---- The files ----

class PlotFileTest : public testing::Test {
 protected:
  PlotFileTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "epic-plot-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~PlotFileTest() override { std::filesystem::remove_all(folder_); }

  std::string PathOf(const std::string& name) const { return folder_ + "/" + name; }

  std::string folder_;
};

ParetoPlot SimplePlot() {
  return {.title = "A title",
          .x_label = "TTFT, ms",
          .y_label = "F1",
          .series = {{.name = "full", .points = {Point(1000, 0.8, 0.05, "full")}},
                     {.name = "legolink", .points = {Point(100, 0.5, 0.05, "legolink:0"), Point(300, 0.7, 0, "b")}},
                     {.name = "random", .points = {Point(400, 0.45, 0.02, "random:15")}}}};
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

size_t CountOf(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// The picture of a PNG file, as cairo reads it.
class Picture {
 public:
  explicit Picture(const std::string& path)
      : surface_(cairo_image_surface_create_from_png(path.c_str()), cairo_surface_destroy) {
    EXPECT_EQ(cairo_surface_status(surface_.get()), CAIRO_STATUS_SUCCESS);
  }
  int width() const { return cairo_image_surface_get_width(surface_.get()); }
  int height() const { return cairo_image_surface_get_height(surface_.get()); }
  // 0xRRGGBB of the pixel that the place is in.
  uint32_t At(Pixel place) const {
    const unsigned char* row = cairo_image_surface_get_data(surface_.get()) +
                               static_cast<ptrdiff_t>(place.y) * cairo_image_surface_get_stride(surface_.get());
    return reinterpret_cast<const uint32_t*>(row)[static_cast<ptrdiff_t>(place.x)] & 0xFFFFFF;
  }
  // How many pixels of the box have the colour.
  int CountOf(uint32_t colour, const Box& box) const {
    int count = 0;
    for (double y = box.top; y < box.bottom; ++y) {
      for (double x = box.left; x < box.right; ++x) count += At({x, y}) == colour ? 1 : 0;
    }
    return count;
  }

 private:
  std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)> surface_;
};

constexpr uint32_t kWhite = 0xFFFFFF, kLegolinkBlue = 0x0072B2, kFullBlack = 0x000000, kRandomPurple = 0xCC79A7;

Pixel PlaceIn(const ParetoPlot& plot, double x, double y) {
  return internal::AxesOf(internal::AllPoints(plot)).PlaceOf(x, y);
}

TEST_F(PlotFileTest, PngHasThePromisedSize) {
  ASSERT_TRUE(WritePng(SimplePlot(), PathOf("plot.png")).ok());
  const std::string bytes = ReadFile(PathOf("plot.png"));
  EXPECT_EQ(bytes.substr(0, 8), "\x89PNG\r\n\x1a\n");
  // Width and height, big-endian, at the start of the first part: 1200 = 0x04B0, 750 = 0x02EE.
  EXPECT_EQ(bytes.substr(16, 8), std::string("\0\0\x04\xB0\0\0\x02\xEE", 8));
  const Picture picture(PathOf("plot.png"));
  EXPECT_EQ(picture.width(), 1200);
  EXPECT_EQ(picture.height(), 750);
}

TEST_F(PlotFileTest, MarkersStandAtTheirPlaceInTheColourOfTheirFamily) {
  const ParetoPlot plot = SimplePlot();
  ASSERT_TRUE(WritePng(plot, PathOf("plot.png")).ok());
  const Picture picture(PathOf("plot.png"));
  EXPECT_EQ(picture.At(PlaceIn(plot, 1000, 0.8)), kFullBlack);
  EXPECT_EQ(picture.At(PlaceIn(plot, 100, 0.5)), kLegolinkBlue);
  EXPECT_EQ(picture.At(PlaceIn(plot, 300, 0.7)), kLegolinkBlue);
  EXPECT_EQ(picture.At(PlaceIn(plot, 400, 0.45)), kRandomPurple);
  EXPECT_EQ(picture.At({2, 2}), kWhite);
}

TEST_F(PlotFileTest, AFamilyKeepsItsColourWhereverItStandsAndOthersDiffer) {
  ParetoPlot plot = SimplePlot();
  plot.series[0].name = "another";
  plot.series[2].name = "and another";
  ASSERT_TRUE(WritePng(plot, PathOf("plot.png")).ok());
  const Picture picture(PathOf("plot.png"));
  EXPECT_EQ(picture.At(PlaceIn(plot, 100, 0.5)), kLegolinkBlue);
  const uint32_t first = picture.At(PlaceIn(plot, 1000, 0.8)), second = picture.At(PlaceIn(plot, 400, 0.45));
  EXPECT_NE(first, second);
  for (const uint32_t taken : {kWhite, kFullBlack, kLegolinkBlue, kRandomPurple}) {
    EXPECT_NE(first, taken);
    EXPECT_NE(second, taken);
  }
}

TEST_F(PlotFileTest, AFamilyOverOtherChunksIsHollowInItsOwnColour) {
  ParetoPlot plot = SimplePlot();
  plot.series[2].name = "legolink@document";
  ASSERT_TRUE(WritePng(plot, PathOf("plot.png")).ok());
  const Picture picture(PathOf("plot.png"));
  const Pixel place = PlaceIn(plot, 400, 0.45);
  EXPECT_EQ(picture.At(place), kWhite);
  EXPECT_GE(picture.CountOf(kLegolinkBlue, {place.x - 10, place.y - 10, place.x + 10, place.y + 10}), 10);
  EXPECT_EQ(picture.At(PlaceIn(plot, 100, 0.5)), kLegolinkBlue);
}

TEST_F(PlotFileTest, ErrorBarsReachFromLowToHigh) {
  const ParetoPlot plot = SimplePlot();
  ASSERT_TRUE(WritePng(plot, PathOf("plot.png")).ok());
  const Picture picture(PathOf("plot.png"));
  // The cap at each end is 8 pixels wide, and no other blue is near it.
  const auto blue_near = [&](double y) {
    const Pixel place = PlaceIn(plot, 100, y);
    int count = 0;
    for (int x = -4; x <= 4; ++x) {
      for (int down = -1; down <= 1; ++down) {
        const uint32_t colour = picture.At({place.x + x, place.y + down});
        if ((colour & 0xFF) > (colour >> 16) + 0x40) ++count;
      }
    }
    return count;
  };
  EXPECT_GE(blue_near(0.45), 8);
  EXPECT_GE(blue_near(0.55), 8);
  EXPECT_EQ(blue_near(0.58), 0);
  EXPECT_EQ(blue_near(0.42), 0);
}

TEST_F(PlotFileTest, TheFrontIsDashedAndStepped) {
  const ParetoPlot plot = SimplePlot();
  ASSERT_TRUE(WritePng(plot, PathOf("plot.png")).ok());
  const Picture picture(PathOf("plot.png"));
  // From legolink:0 to the right at its height, to below the next point of the front at x = 300.
  const Pixel from = PlaceIn(plot, 150, 0.5), to = PlaceIn(plot, 290, 0.5);
  int drawn = 0, left_out = 0;
  for (double x = from.x; x < to.x; ++x) {
    uint32_t darkest = kWhite;
    for (int down = -1; down <= 1; ++down) darkest = std::min(darkest, picture.At({x, from.y + down}) & 0xFF);
    ++(darkest < 0xB0 ? drawn : left_out);
  }
  EXPECT_GT(drawn, 40);
  EXPECT_GT(left_out, 20);
  // Nothing goes straight to the next point of the front from the last one's height at its x, but up.
  EXPECT_LT(picture.At({PlaceIn(plot, 300, 0.6).x, PlaceIn(plot, 300, 0.6).y}) & 0xFF, 0xFFu);
}

TEST_F(PlotFileTest, TitleAxesAndLegendAreWritten) {
  ParetoPlot plot = SimplePlot();
  ASSERT_TRUE(WritePng(plot, PathOf("with.png")).ok());
  plot.title = plot.x_label = plot.y_label = "";
  for (PlotSeries& series : plot.series) {
    series.name = "";
    for (PlotPoint& point : series.points) point.label = "";
  }
  ASSERT_TRUE(WritePng(plot, PathOf("without.png")).ok());
  const Picture with(PathOf("with.png")), without(PathOf("without.png"));
  const Box title = {300, 20, 900, 48}, x_label = {300, 715, 900, 735}, y_label = {10, 200, 38, 500};
  for (const Box& box : {title, x_label, y_label}) {
    const int pixels = static_cast<int>((box.right - box.left) * (box.bottom - box.top));
    EXPECT_EQ(without.CountOf(kWhite, box), pixels);
    EXPECT_LT(with.CountOf(kWhite, box), pixels - 20);
  }
  const Box legend = {internal::kArea.right + 60, internal::kArea.top, kPlotWidthPx, internal::kArea.top + 84};
  EXPECT_LT(with.CountOf(kWhite, legend), without.CountOf(kWhite, legend) - 100);
}

TEST_F(PlotFileTest, LongTextStaysInThePicture) {
  ParetoPlot plot = SimplePlot();
  plot.title = std::string(500, 'W');
  plot.series[0].name = std::string(200, 'W');
  ASSERT_TRUE(WritePng(plot, PathOf("plot.png")).ok());
  const Picture picture(PathOf("plot.png"));
  const Box right_edge = {kPlotWidthPx - 6, 0, kPlotWidthPx, kPlotHeightPx};
  EXPECT_EQ(picture.CountOf(kWhite, right_edge), 6 * kPlotHeightPx);
}

// Whether every tag of the text is closed in its order.
bool TagsAreBalanced(const std::string& text) {
  std::vector<std::string> open;
  for (size_t at = text.find('<'); at != std::string::npos; at = text.find('<', at + 1)) {
    const size_t end = text.find('>', at);
    if (end == std::string::npos) return false;
    const std::string tag = text.substr(at + 1, end - at - 1);
    if (tag.starts_with("?") || tag.starts_with("!") || tag.ends_with("/")) continue;
    if (!tag.starts_with("/")) {
      open.push_back(tag.substr(0, tag.find_first_of(" \n")));
    } else if (open.empty() || open.back() != tag.substr(1)) {
      return false;
    } else {
      open.pop_back();
    }
  }
  return open.empty();
}

TEST_F(PlotFileTest, SvgIsAWholeDrawingOfTheSameSize) {
  ASSERT_TRUE(WriteSvg(SimplePlot(), PathOf("plot.svg")).ok());
  const std::string svg = ReadFile(PathOf("plot.svg"));
  EXPECT_TRUE(svg.starts_with("<?xml"));
  EXPECT_THAT(svg, AllOf(HasSubstr("<svg "), HasSubstr("width=\"1200px\""), HasSubstr("height=\"750px\"")));
  EXPECT_TRUE(TagsAreBalanced(svg));
}

TEST_F(PlotFileTest, SvgDrawsEveryPointAndEveryLetter) {
  ParetoPlot plot = SimplePlot();
  ASSERT_TRUE(WriteSvg(plot, PathOf("few.svg")).ok());
  const std::string few = ReadFile(PathOf("few.svg"));
  // Inside the range that the axes have already: nothing but the point itself is new.
  plot.series[1].points.push_back(Point(500, 0.6, 0.03, "new"));
  ASSERT_TRUE(WriteSvg(plot, PathOf("more.svg")).ok());
  const std::string more = ReadFile(PathOf("more.svg"));
  // The bar, its two caps, and the marker; the label's halo.
  EXPECT_GE(CountOf(more, "<path"), CountOf(few, "<path") + 4);
  EXPECT_GE(CountOf(more, "<use"), CountOf(few, "<use") + 3);
}

TEST_F(PlotFileTest, ReplacesAFileAndLeavesNothingBeside) {
  std::ofstream(PathOf("plot.png")) << "old";
  ASSERT_TRUE(WritePng(SimplePlot(), PathOf("plot.png")).ok());
  EXPECT_EQ(ReadFile(PathOf("plot.png")).substr(1, 3), "PNG");
  ASSERT_TRUE(WriteSvg(SimplePlot(), PathOf("plot.svg")).ok());
  const auto files = std::filesystem::directory_iterator(folder_);
  EXPECT_EQ(std::distance(begin(files), end(files)), 2);
}

TEST_F(PlotFileTest, AFileThatCannotBeWrittenIsNamedWithTheReason) {
  for (const auto& write : {WritePng, WriteSvg}) {
    const absl::Status absent = write(SimplePlot(), PathOf("absent/plot"));
    EXPECT_EQ(absent.code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(absent.message()), AllOf(HasSubstr(PathOf("absent/plot")), HasSubstr("No such file")));
  }
  // A folder is in its place: what was written beside it goes away again.
  std::filesystem::create_directories(PathOf("folder/inside"));
  const absl::Status folder = WritePng(SimplePlot(), PathOf("folder"));
  EXPECT_FALSE(folder.ok());
  EXPECT_THAT(std::string(folder.message()), AllOf(HasSubstr(PathOf("folder")), HasSubstr("directory")));
  const auto files = std::filesystem::directory_iterator(folder_);
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST_F(PlotFileTest, RefusesPointsThatCannotBeDrawn) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN(), kInfinity = std::numeric_limits<double>::infinity();
  for (const PlotPoint& bad :
       {Point(0, 0.5, 0, "bad point"), Point(-1, 0.5, 0, "bad point"), Point(kNan, 0.5, 0, "bad point"),
        Point(kInfinity, 0.5, 0, "bad point"), Point(1e-10, 0.5, 0, "bad point"), Point(10, kNan, 0, "bad point"),
        Point(10, kInfinity, 0, "bad point"), Point(10, 1e10, 0, "bad point"), Point(10, 0.5, kNan, "bad point"),
        Point(10, 0.5, -0.1, "bad point")}) {
    ParetoPlot plot = SimplePlot();
    plot.series[1].points.push_back(bad);
    for (const auto& write : {WritePng, WriteSvg}) {
      const absl::Status status = write(plot, PathOf("plot"));
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.x << " " << bad.y;
      EXPECT_THAT(std::string(status.message()), HasSubstr("'bad point'"));
    }
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(PlotFileTest, RefusesAPlotWithoutPointsAndTextThatIsNotUtf8) {
  ParetoPlot empty = SimplePlot();
  for (PlotSeries& series : empty.series) series.points.clear();
  EXPECT_EQ(WritePng(empty, PathOf("plot")).code(), absl::StatusCode::kInvalidArgument);
  ParetoPlot broken = SimplePlot();
  broken.series[0].points[0].label = "\xff";
  EXPECT_EQ(WriteSvg(broken, PathOf("plot")).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(PlotFileTest, DrawsTheWidestRangesThatItTakes) {
  const ParetoPlot plot = {.title = "",
                           .x_label = "",
                           .y_label = "",
                           .series = {{.name = "full", .points = {Point(1e-9, -1e9), Point(1e9, 1e9)}}}};
  EXPECT_TRUE(WritePng(plot, PathOf("plot.png")).ok());
}

}  // namespace
}  // namespace epic::eval
