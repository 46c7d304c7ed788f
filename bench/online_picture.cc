// SPDX-License-Identifier: Apache-2.0
#include "bench/online_picture.h"

#include <algorithm>
#include <fstream>
#include <stdexcept>

namespace eplbd {
namespace {

constexpr double kPanel = 300;   // width of one, with its margins
constexpr double kHeight = 274;  // of a panel
constexpr double kLegend = 34;   // above all of them
constexpr double kFoot = 22;
constexpr double kLeast = 0.70;  // balancedness at the foot
constexpr double kRoom = 4;      // to the right of the most moves, for labels
constexpr const char* kColours[] = {"#c2571a", "#7b5ea7", "#00856a"};

}  // namespace

void OnlinePicture::begin_row() {
  ++rows_;
  columns_ = 0;
}

void OnlinePicture::add(const std::string& title, const std::vector<Series>& series, double limit) {
  Chart chart{.title = title, .width = kPanel, .height = kHeight, .level = limit};
  double least = 1e18;
  double most = 1;
  for (const Series& one : series) {
    ChartSeries drawn{one.name, kColours[chart.series.size() % std::size(kColours)]};
    drawn.dots = true;
    // Lines rise to the right: there is room to the upper left and to the lower right.
    drawn.label_above = one.ours;
    for (const auto& point : one.points) {
      if (point.balancedness < kLeast || point.moves == 0) continue;
      drawn.points.push_back({static_cast<double>(point.moves), point.balancedness, point.label});
      least = std::min(least, drawn.points.back().x);
      most = std::max(most, drawn.points.back().x);
    }
    chart.series.push_back(std::move(drawn));
  }
  chart.x = logarithmic_axis(std::min(least, most), most * kRoom, "");
  chart.y = linear_axis(kLeast, 1, "");
  svg_ += "<g transform='translate(" + std::to_string(kPanel * columns_++) + ' ' +
          std::to_string(kLegend + kHeight * (rows_ - 1)) + ")'>\n" + draw(chart) + "</g>\n";
  widest_ = std::max(widest_, columns_);
  series_ = std::move(chart.series);
}

void OnlinePicture::write(const std::string& file) const {
  const double height = kLegend + kHeight * rows_ + kFoot;
  std::ofstream out(file);
  out << svg(kPanel * widest_, height,
             draw_legend(series_, "each step's own counts known before it", 44, 22) + svg_ +
                 svg_text(44, height - 8, "weights moved (logarithmic); upwards: balancedness"),
             "white");
  if (!out.flush()) throw std::runtime_error("cannot write " + file);
}

}  // namespace eplbd
