// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace eplbd {
namespace {

using fmt::format;

constexpr double kLeft = 48;
constexpr double kRight = 12;
constexpr double kTop = 28;
constexpr double kBottom = 40;
constexpr double kEventHeight = 7;
constexpr char kGrid[] = "#8884";  // on white and on black
constexpr char kDashed[] = "stroke='#888' stroke-dasharray='5 4'";

double part_of(const ChartAxis& axis, double value) {
  const double part = axis.logarithmic
                          ? std::log(value / axis.least) / std::log(axis.most / axis.least)
                          : (value - axis.least) / (axis.most - axis.least);
  return std::clamp(part, 0.0, 1.0);
}

// From values to a place in the chart.
struct Places {
  const Chart& chart;
  double right() const { return chart.width - kRight; }
  double foot() const { return chart.height - kBottom; }
  double x(double value) const { return kLeft + (right() - kLeft) * part_of(chart.x, value); }
  double y(double value) const { return foot() - (foot() - kTop) * part_of(chart.y, value); }
  bool shown(const ChartPoint& point) const {
    return point.y >= chart.y.least && (!chart.x.logarithmic || point.x > 0);
  }
};

std::string line(double x1, double y1, double x2, double y2, const std::string& more) {
  return format("<line x1='{:.1f}' y1='{:.1f}' x2='{:.1f}' y2='{:.1f}' {}/>\n", x1, y1, x2, y2,
                more);
}

std::string draw_axes(const Places& at) {
  const Chart& chart = at.chart;
  std::string out;
  for (const ChartAxis::Tick& tick : chart.y.ticks) {
    const double y = at.y(tick.at);
    out += line(kLeft, y, at.right(), y, format("stroke='{}'", kGrid));
    out += svg_text(kLeft - 6, y + 4, tick.text, "text-anchor='end'");
  }
  for (const ChartAxis::Tick& tick : chart.x.ticks) {
    out += svg_text(at.x(tick.at), at.foot() + 16, tick.text, "text-anchor='middle'");
  }
  const double middle = (kLeft + at.right()) / 2;
  out += svg_text(middle, chart.height - 6, chart.x.title, "text-anchor='middle' opacity='.7'");
  out += svg_text(kLeft, kTop - 12, chart.title, "font-weight='bold'");
  return out;
}

std::string draw_series(const Places& at, const ChartSeries& series) {
  std::string path;
  std::string dots;
  for (const ChartPoint& point : series.points) {
    if (!at.shown(point)) continue;
    const double x = at.x(point.x);
    const double y = at.y(point.y);
    path += format("{:.1f},{:.1f} ", x, y);
    if (series.dots) {
      dots += format("<circle cx='{:.1f}' cy='{:.1f}' r='{}' fill='{}'/>\n", x, y,
                     point.label.empty() ? 2.5 : 4.0, series.colour);
    }
    if (point.label.empty()) continue;
    const bool above = series.label_above;
    dots += svg_text(above ? x + 4 : x - 2, above ? y - 9 : y + 15, point.label,
                     format("text-anchor='{}' font-size='10' fill='{}'", above ? "end" : "start",
                            series.colour));
  }
  if (!series.line) return dots;
  return format("<polyline points='{}' fill='none' stroke='{}' stroke-width='1.4'/>\n", path,
                series.colour) +
         dots;
}

}  // namespace

std::string short_number(double value) {
  if (value >= 1e6) return format("{:.3g}M", value / 1e6);
  if (value >= 1e3) return format("{:.3g}k", value / 1e3);
  return format("{:.4g}", value);
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

ChartAxis linear_axis(double least, double most, std::string title, int count) {
  if (!(most > least)) most = least + 1;
  const double rough = (most - least) / count;
  const double ten = std::pow(10, std::floor(std::log10(rough)));
  const double step = ten * (rough / ten < 1.5   ? 1
                             : rough / ten < 3.5 ? 2
                             : rough / ten < 7.5 ? 5
                                                 : 10);
  ChartAxis axis{least, most, false, std::move(title)};
  const int decimals = std::max(0, static_cast<int>(std::ceil(-std::log10(step) - 1e-9)));
  const double first = std::ceil(least / step - 1e-9) + 0.0;  // no -0
  for (double at = first * step; at <= most + step * 1e-9; at += step) {
    axis.ticks.push_back({at, most >= 1e4 ? short_number(at) : format("{:.{}f}", at, decimals)});
  }
  return axis;
}

ChartAxis logarithmic_axis(double least, double most, std::string title) {
  ChartAxis axis{std::pow(10, std::floor(std::log10(least))), std::max(most, least * 10), true,
                 std::move(title)};
  for (double at = axis.least; at <= axis.most * 1.0001; at *= 10) {
    axis.ticks.push_back({at, short_number(at)});
  }
  return axis;
}

std::string svg_text(double x, double y, const std::string& text, const std::string& more) {
  return format("<text x='{:.1f}' y='{:.1f}' {}>{}</text>\n", x, y, more, escaped(text));
}

std::string draw(const Chart& chart) {
  const Places at{chart};
  std::string out = draw_axes(at);
  if (chart.level) {
    const double y = at.y(*chart.level);
    out += line(kLeft, y, at.right(), y, kDashed);
  }
  double events = at.foot();  // a row for each series that has some
  for (const ChartSeries& series : chart.series) {
    out += draw_series(at, series);
    if (series.events.empty()) continue;
    for (const double x : series.events) {
      out += line(at.x(x), events, at.x(x), events - kEventHeight,
                  format("stroke='{}' stroke-width='1.5'", series.colour));
    }
    events -= kEventHeight + 2;
  }
  return out;
}

std::string draw_legend(const std::vector<ChartSeries>& series, const std::string& level, double x,
                        double y) {
  std::string out;
  for (const ChartSeries& one : series) {
    out += format("<circle cx='{:.1f}' cy='{:.1f}' r='4' fill='{}'/>\n", x, y - 4, one.colour) +
           svg_text(x + 9, y, one.name);
    x += 30 + 7.0 * static_cast<double>(one.name.size());
  }
  if (!level.empty()) {
    out += line(x, y - 4, x + 22, y - 4, kDashed) + svg_text(x + 28, y, level);
  }
  return out;
}

std::string svg(double width, double height, const std::string& elements,
                const std::string& background) {
  const std::string rectangle =
      background.empty() ? ""
                         : format("<rect width='100%' height='100%' fill='{}'/>\n", background);
  return format(
             "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0} {1}' width='{0}' "
             "height='{1}' font-family='sans-serif' font-size='11' fill='currentColor'>\n",
             width, height) +
         rectangle + elements + "</svg>\n";
}

}  // namespace eplbd
