#include "eval/plot.h"

#include <cairo-svg.h>
#include <cairo.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <numbers>
#include <string_view>
#include <utility>

#include "core/status_macros.h"
#include "core/utf8.h"
#include "eval/plot_layout.h"
#include "eval/whole_file.h"
#include "fmt/format.h"

namespace epic::eval {
namespace {

using internal::Axes;
using internal::Box;
using internal::kArea;
using internal::kMarkerRadius;
using internal::LabelSize;
using internal::Pixel;

constexpr double kTitleSize = 20, kAxisLabelSize = 15, kTextSize = 13, kPointLabelSize = 12;

struct Colour {
  double red, green, blue;
};
constexpr Colour Rgb(uint32_t hexadecimal) {
  return {.red = (hexadecimal >> 16) / 255.0,
          .green = (hexadecimal >> 8 & 0xFF) / 255.0,
          .blue = (hexadecimal & 0xFF) / 255.0};
}
// The colour as if it were so opaque on white.
constexpr Colour Faded(const Colour& colour, double opacity) {
  return {.red = 1 - opacity * (1 - colour.red),
          .green = 1 - opacity * (1 - colour.green),
          .blue = 1 - opacity * (1 - colour.blue)};
}
constexpr Colour kBackground = Rgb(0xFFFFFF), kGrid = Rgb(0xE4E6E9), kFrame = Rgb(0x6B7280), kText = Rgb(0x1F2328),
                 kFront = Rgb(0x6B7280);

enum class Marker { kCircle, kSquare, kDiamond, kTriangleUp, kTriangleDown, kPentagon, kStar, kPlus };

struct Style {
  std::string_view name;
  Colour colour;
  Marker marker;
  bool hollow = false;
};
// The colours are Okabe and Ito's, chosen to differ for every kind of colour vision; the markers differ in print too.
constexpr std::array<Style, 8> kStyles = {{{"full", Rgb(0x000000), Marker::kStar},
                                           {"prefix", Rgb(0x56B4E9), Marker::kSquare},
                                           {"naive", Rgb(0xD55E00), Marker::kTriangleDown},
                                           {"cacheblend", Rgb(0xE69F00), Marker::kTriangleUp},
                                           {"legolink", Rgb(0x0072B2), Marker::kCircle},
                                           {"random", Rgb(0xCC79A7), Marker::kDiamond},
                                           {"", Rgb(0x009E73), Marker::kPentagon},
                                           {"", Rgb(0x7F7F7F), Marker::kPlus}}};
constexpr size_t kNamedStyles = 6;

std::vector<Style> StylesOf(const ParetoPlot& plot) {
  std::vector<Style> styles;
  size_t others = 0;
  for (const PlotSeries& series : plot.series) {
    const std::string_view family = std::string_view(series.name).substr(0, series.name.find('@'));
    const auto* const named_end = kStyles.begin() + kNamedStyles;
    const auto* style =
        std::find_if(kStyles.begin(), named_end, [&](const Style& known) { return known.name == family; });
    if (style == named_end) style += others++ % (kStyles.size() - kNamedStyles);
    styles.push_back(*style);
    styles.back().hollow = family.size() < series.name.size();
  }
  return styles;
}

class Canvas {
 public:
  explicit Canvas(cairo_t* context) : context_(context) {
    cairo_select_font_face(context, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    // Letters keep their distances in both formats instead of snapping to the PNG's pixels.
    const std::unique_ptr<cairo_font_options_t, decltype(&cairo_font_options_destroy)> options(
        cairo_font_options_create(), cairo_font_options_destroy);
    cairo_font_options_set_hint_style(options.get(), CAIRO_HINT_STYLE_NONE);
    cairo_font_options_set_hint_metrics(options.get(), CAIRO_HINT_METRICS_OFF);
    cairo_font_options_set_antialias(options.get(), CAIRO_ANTIALIAS_GRAY);
    cairo_set_font_options(context, options.get());
  }

  void Fill(const Box& box, const Colour& colour) {
    SetColour(colour);
    cairo_rectangle(context_, box.left, box.top, box.right - box.left, box.bottom - box.top);
    cairo_fill(context_);
  }

  void Lines(std::span<const Pixel> corners, const Colour& colour, double width, bool dashed = false) {
    SetColour(colour);
    cairo_set_line_width(context_, width);
    constexpr std::array<double, 2> kDashes = {7, 5};
    cairo_set_dash(context_, kDashes.data(), dashed ? 2 : 0, 0);
    for (const Pixel& corner : corners) cairo_line_to(context_, corner.x, corner.y);
    cairo_stroke(context_);
    cairo_set_dash(context_, nullptr, 0, 0);
  }

  void Line(Pixel from, Pixel to, const Colour& colour, double width) { Lines(std::array{from, to}, colour, width); }

  void Draw(const Style& style, Pixel at) {
    cairo_new_path(context_);
    switch (style.marker) {
      case Marker::kCircle:
        cairo_arc(context_, at.x, at.y, kMarkerRadius, 0, 2 * std::numbers::pi);
        break;
      case Marker::kSquare:
        Polygon(at, 4, 1.2, 0.25 * std::numbers::pi, 1);
        break;
      case Marker::kDiamond:
        Polygon(at, 4, 1.25, 0, 1);
        break;
      case Marker::kTriangleUp:
        Polygon(at, 3, 1.3, 0, 1);
        break;
      case Marker::kTriangleDown:
        Polygon(at, 3, 1.3, std::numbers::pi, 1);
        break;
      case Marker::kPentagon:
        Polygon(at, 5, 1.15, 0, 1);
        break;
      case Marker::kStar:
        Polygon(at, 10, 1.5, 0, 0.45);
        break;
      case Marker::kPlus:
        cairo_rectangle(context_, at.x - kMarkerRadius, at.y - 2.5, 2 * kMarkerRadius, 5);
        cairo_rectangle(context_, at.x - 2.5, at.y - kMarkerRadius, 5, 2 * kMarkerRadius);
        break;
    }
    // A white edge keeps markers apart that overlap.
    SetColour(kBackground);
    cairo_set_line_width(context_, 2.5);
    cairo_stroke_preserve(context_);
    SetColour(style.hollow ? kBackground : style.colour);
    cairo_fill_preserve(context_);
    if (style.hollow) {
      SetColour(style.colour);
      cairo_set_line_width(context_, 1.6);
      cairo_stroke_preserve(context_);
    }
    cairo_new_path(context_);
  }

  double WidthOf(const std::string& text, double size) {
    cairo_set_font_size(context_, size);
    cairo_text_extents_t extents;
    cairo_text_extents(context_, text.c_str(), &extents);
    return extents.x_advance;
  }

  // Writes from `at`, the middle of the text's height. `anchor`: which part of the text is there, 0 its left end, 0.5
  // its middle, 1 its right end. Text wider than `width_max` is set smaller.
  void Write(const std::string& text, Pixel at, double size, double anchor = 0,
             double width_max = std::numeric_limits<double>::infinity(), bool halo = false) {
    double width = WidthOf(text, size);
    if (width > width_max) {
      cairo_set_font_size(context_, size *= width_max / width);
      width = width_max;
    }
    // Capitals and digits of the font are 0.73 of its size high.
    cairo_move_to(context_, at.x - anchor * width, at.y + 0.365 * size);
    if (halo) {
      cairo_text_path(context_, text.c_str());
      SetColour(kBackground);
      cairo_set_line_width(context_, 3);
      cairo_set_line_join(context_, CAIRO_LINE_JOIN_ROUND);
      cairo_stroke(context_);
      cairo_set_line_join(context_, CAIRO_LINE_JOIN_MITER);
      cairo_move_to(context_, at.x - anchor * width, at.y + 0.365 * size);
    }
    SetColour(kText);
    cairo_show_text(context_, text.c_str());
    cairo_new_path(context_);
  }

  // Like Write with the middle of the text at `at`, from below upwards.
  void WriteUpwards(const std::string& text, Pixel at, double size, double width_max) {
    cairo_save(context_);
    cairo_translate(context_, at.x, at.y);
    cairo_rotate(context_, -0.5 * std::numbers::pi);
    Write(text, {.x = 0, .y = 0}, size, 0.5, width_max);
    cairo_restore(context_);
  }

 private:
  void SetColour(const Colour& colour) { cairo_set_source_rgb(context_, colour.red, colour.green, colour.blue); }

  // Adds a polygon to the path with its first corner upwards, turned by `turn`; every second corner at `inner` of the
  // radius.
  void Polygon(Pixel at, int corners, double radius, double turn, double inner) {
    for (int i = 0; i < corners; ++i) {
      const double angle = turn + 2 * std::numbers::pi * i / corners;
      const double distance = kMarkerRadius * radius * (i % 2 == 1 ? inner : 1);
      cairo_line_to(context_, at.x + distance * std::sin(angle), at.y - distance * std::cos(angle));
    }
    cairo_close_path(context_);
  }

  cairo_t* context_;
};

void DrawAxes(Canvas& canvas, const ParetoPlot& plot, const Axes& axes) {
  const double middle_x = 0.5 * (kArea.left + kArea.right), width = kArea.right - kArea.left;
  for (const double tick : internal::LogarithmicTicks(axes.x_low, axes.x_high)) {
    const double x = axes.PlaceOf(tick, axes.y_low).x;
    canvas.Line({x, kArea.top}, {x, kArea.bottom}, kGrid, 1);
    canvas.Write(fmt::format("{:.{}f}", tick, internal::DecimalsOf(tick)), {x, kArea.bottom + 18}, kTextSize, 0.5);
  }
  const std::vector<double> y_ticks = internal::LinearTicks(axes.y_low, axes.y_high);
  const int decimals = internal::DecimalsOf(y_ticks[1] - y_ticks[0]);
  for (const double tick : y_ticks) {
    const double y = axes.PlaceOf(axes.x_low, tick).y;
    canvas.Line({kArea.left, y}, {kArea.right, y}, kGrid, 1);
    canvas.Write(fmt::format("{:.{}f}", tick, decimals), {kArea.left - 10, y}, kTextSize, 1, kArea.left - 46);
  }
  canvas.Lines(std::array<Pixel, 3>{{{kArea.left, kArea.top}, {kArea.left, kArea.bottom}, {kArea.right, kArea.bottom}}},
               kFrame, 1.2);
  canvas.Write(plot.title, {middle_x, 34}, kTitleSize, 0.5, width);
  canvas.Write(plot.x_label, {middle_x, kPlotHeightPx - 26.0}, kAxisLabelSize, 0.5, width);
  canvas.WriteUpwards(plot.y_label, {24, 0.5 * (kArea.top + kArea.bottom)}, kAxisLabelSize, kArea.bottom - kArea.top);
}

void DrawLegend(Canvas& canvas, const ParetoPlot& plot, const std::vector<Style>& styles) {
  const double left = kArea.right + 22;
  double y = kArea.top + 14;
  const auto write = [&](const std::string& text) {
    canvas.Write(text, {left + 42, y}, kTextSize, 0, kPlotWidthPx - left - 52);
    y += 28;
  };
  for (size_t i = 0; i < plot.series.size(); ++i) {
    canvas.Line({left, y}, {left + 32, y}, styles[i].colour, 1.2);
    canvas.Draw(styles[i], {left + 16, y});
    write(plot.series[i].name);
  }
  canvas.Lines(std::array<Pixel, 2>{{{left, y}, {left + 32, y}}}, kFront, 1.5, /*dashed=*/true);
  write("Pareto front");
}

// Joins the labels that stand far from their markers to them.
void DrawLeaders(Canvas& canvas, const std::vector<Pixel>& markers, const std::vector<Box>& labels) {
  constexpr double kNearPx = 18;
  for (size_t i = 0; i < labels.size(); ++i) {
    const Box& label = labels[i];
    const Pixel nearest = {.x = std::clamp(markers[i].x, label.left, label.right),
                           .y = std::clamp(markers[i].y, label.top, label.bottom)};
    if (std::hypot(nearest.x - markers[i].x, nearest.y - markers[i].y) > kNearPx) {
      canvas.Line(markers[i], nearest, kFrame, 0.7);
    }
  }
}

void DrawPlot(cairo_t* context, const ParetoPlot& plot) {
  const std::vector<PlotPoint> points = internal::AllPoints(plot);
  const Axes axes = internal::AxesOf(points);
  const std::vector<Style> styles = StylesOf(plot);
  Canvas canvas(context);
  canvas.Fill({0, 0, kPlotWidthPx, kPlotHeightPx}, kBackground);
  DrawAxes(canvas, plot, axes);

  std::vector<Box> obstacles;
  const std::vector<Pixel> front = internal::FrontSteps(points, axes);
  canvas.Lines(front, kFront, 1.5, /*dashed=*/true);
  internal::AddLine(front, obstacles);

  std::vector<Pixel> markers;
  std::vector<LabelSize> sizes;
  for (size_t i = 0; i < plot.series.size(); ++i) {
    std::vector<Pixel> line;
    for (const PlotPoint& point : plot.series[i].points) {
      line.push_back(axes.PlaceOf(point.x, point.y));
      markers.push_back(line.back());
      sizes.push_back({.width = canvas.WidthOf(point.label, kPointLabelSize), .height = kPointLabelSize});
      if (point.y_low == point.y_high) continue;
      const std::array<Pixel, 2> bar = {axes.PlaceOf(point.x, point.y_low), axes.PlaceOf(point.x, point.y_high)};
      const Colour faded = Faded(styles[i].colour, 0.55);
      canvas.Lines(bar, faded, 1.5);
      for (const Pixel& end : bar) canvas.Line({end.x - 4, end.y}, {end.x + 4, end.y}, faded, 1.5);
      internal::AddLine(bar, obstacles);
    }
    canvas.Lines(line, styles[i].colour, 1.2);
    internal::AddLine(line, obstacles);
  }
  const std::vector<Box> labels = internal::PlaceLabels(markers, sizes, obstacles, kArea);
  DrawLeaders(canvas, markers, labels);
  size_t marker = 0;
  for (size_t i = 0; i < plot.series.size(); ++i) {
    for (size_t j = 0; j < plot.series[i].points.size(); ++j) {
      canvas.Draw(styles[i], markers[marker++]);
    }
  }
  for (size_t i = 0; i < labels.size(); ++i) {
    canvas.Write(points[i].label, {labels[i].left, 0.5 * (labels[i].top + labels[i].bottom)}, kPointLabelSize, 0,
                 std::numeric_limits<double>::infinity(), /*halo=*/true);
  }
  DrawLegend(canvas, plot, styles);
}

absl::Status CheckText(const std::string& text, std::string_view what) {
  if (!FindInvalidUtf8(text).has_value()) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("the {} of a plot is not UTF-8", what));
}

absl::Status CheckPoint(const PlotPoint& point) {
  EPIC_RETURN_IF_ERROR(CheckText(point.label, "label of a point"));
  // Written so that NaN fails too.
  if (!(point.x >= 1 / kPlotValueMax && point.x <= kPlotValueMax)) {
    return absl::InvalidArgumentError(
        fmt::format("the point '{}' cannot be drawn on a logarithmic axis: x is {}, expected a number from {} to {}",
                    point.label, point.x, 1 / kPlotValueMax, kPlotValueMax));
  }
  for (const auto& [name, value] : {std::pair("y", point.y), {"y_low", point.y_low}, {"y_high", point.y_high}}) {
    if (std::abs(value) <= kPlotValueMax) continue;
    return absl::InvalidArgumentError(
        fmt::format("the point '{}' cannot be drawn: {} is {}, expected a finite number of at most {} in magnitude",
                    point.label, name, value, kPlotValueMax));
  }
  if (point.y_low > point.y_high) {
    return absl::InvalidArgumentError(
        fmt::format("the point '{}' cannot be drawn: its error bar runs from {} down to {}, expected y_low <= y_high",
                    point.label, point.y_low, point.y_high));
  }
  return absl::OkStatus();
}

absl::Status CheckPlot(const ParetoPlot& plot) {
  EPIC_RETURN_IF_ERROR(CheckText(plot.title, "title"));
  EPIC_RETURN_IF_ERROR(CheckText(plot.x_label, "x axis' label"));
  EPIC_RETURN_IF_ERROR(CheckText(plot.y_label, "y axis' label"));
  bool empty = true;
  for (const PlotSeries& series : plot.series) {
    EPIC_RETURN_IF_ERROR(CheckText(series.name, "name of a series"));
    for (const PlotPoint& point : series.points) EPIC_RETURN_IF_ERROR(CheckPoint(point));
    empty = empty && series.points.empty();
  }
  if (empty) return absl::InvalidArgumentError(fmt::format("the plot '{}' has no point to draw", plot.title));
  return absl::OkStatus();
}

cairo_status_t Append(void* bytes, const unsigned char* data, unsigned int length) {
  static_cast<std::string*>(bytes)->append(reinterpret_cast<const char*>(data), length);
  return CAIRO_STATUS_SUCCESS;
}

using Surface = std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)>;

// Draws on the surface; what cairo could not do is in its result.
cairo_status_t DrawOn(cairo_surface_t* surface, const ParetoPlot& plot) {
  const std::unique_ptr<cairo_t, decltype(&cairo_destroy)> context(cairo_create(surface), cairo_destroy);
  DrawPlot(context.get(), plot);
  return cairo_status(context.get());
}

absl::Status Finish(cairo_status_t status, const std::string& path, std::string_view bytes) {
  if (status == CAIRO_STATUS_SUCCESS) return WriteFileWhole(path, bytes);
  return absl::InternalError(fmt::format("cannot draw '{}': {}", path, cairo_status_to_string(status)));
}

}  // namespace

absl::Status WriteSvg(const ParetoPlot& plot, const std::string& path) {
  EPIC_RETURN_IF_ERROR(CheckPlot(plot));
  std::string bytes;
  const Surface surface(cairo_svg_surface_create_for_stream(Append, &bytes, kPlotWidthPx, kPlotHeightPx),
                        cairo_surface_destroy);
  cairo_svg_surface_set_document_unit(surface.get(), CAIRO_SVG_UNIT_PX);
  cairo_status_t status = DrawOn(surface.get(), plot);
  cairo_surface_finish(surface.get());
  if (status == CAIRO_STATUS_SUCCESS) status = cairo_surface_status(surface.get());
  return Finish(status, path, bytes);
}

absl::Status WritePng(const ParetoPlot& plot, const std::string& path) {
  EPIC_RETURN_IF_ERROR(CheckPlot(plot));
  std::string bytes;
  const Surface surface(cairo_image_surface_create(CAIRO_FORMAT_RGB24, kPlotWidthPx, kPlotHeightPx),
                        cairo_surface_destroy);
  cairo_status_t status = DrawOn(surface.get(), plot);
  if (status == CAIRO_STATUS_SUCCESS) status = cairo_surface_write_to_png_stream(surface.get(), Append, &bytes);
  return Finish(status, path, bytes);
}

}  // namespace epic::eval
