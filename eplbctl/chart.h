// Charts as SVG: what eplbctl and the benchmarks draw.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace eplbd {

struct ChartPoint {
  double x = 0;
  double y = 0;
  std::string label = {};  // beside the point; empty: none
};

struct ChartSeries {
  std::string name;
  std::string colour;  // CSS
  std::vector<ChartPoint> points = {};
  bool line = true;
  bool dots = false;
  bool label_above = true;          // to the upper left of points, else to the lower right
  std::vector<double> events = {};  // x where something happened: ticks at the foot
};

struct ChartAxis {
  double least = 0;
  double most = 1;
  bool logarithmic = false;
  std::string title = {};
  // Where a line of the grid is, and what stands there.
  struct Tick {
    double at = 0;
    std::string text;
  };
  std::vector<Tick> ticks = {};
};

// About `count` round numbers from least to most; the powers of ten on a logarithmic axis.
ChartAxis linear_axis(double least, double most, std::string title, int count = 6);
ChartAxis logarithmic_axis(double least, double most, std::string title);

struct Chart {
  std::string title;
  double width = 300;  // pixels, with its margins
  double height = 274;
  ChartAxis x = {};
  ChartAxis y = {};
  std::vector<ChartSeries> series = {};
  std::optional<double> level = {};  // a dashed line across
};

// 12300 -> 12k, 2500000 -> 2.5M.
std::string short_number(double value);

std::string escaped(const std::string& text);  // for XML and HTML

// Elements from (0, 0) to (width, height). A point outside of the axes is drawn at their edge on x,
// and left out below the foot.
std::string draw(const Chart& chart);

// A dot and a name a series in a row, from (x, y) on; `level`: the name of the dashed line.
std::string draw_legend(const std::vector<ChartSeries>& series, const std::string& level, double x,
                        double y);

std::string svg_text(double x, double y, const std::string& text, const std::string& more = "");

// A whole picture. `background` empty: none.
std::string svg(double width, double height, const std::string& elements,
                const std::string& background);

}  // namespace eplbd
