// The picture of bench_online: balancedness against moves, a row a trace and a panel a shape.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eplbctl/chart.h"

namespace eplbd {

// Results that belong together: a policy at several intervals, or ours at several prices.
struct Series {
  struct Point {
    std::string label;  // beside the point; empty: none
    double balancedness = 0;
    int64_t moves = 0;
  };
  std::string name;
  bool ours = false;
  std::vector<Point> points;
};

// SVG; all panels have the same series, told apart in a legend.
class OnlinePicture {
 public:
  void begin_row();  // of what is added from here on
  // `limit`: the balancedness that no policy can exceed.
  void add(const std::string& title, const std::vector<Series>& series, double limit);
  void write(const std::string& file) const;

 private:
  int rows_ = 0;
  int columns_ = 0;  // of the last row
  int widest_ = 0;
  std::vector<ChartSeries> series_;  // of the last panel: what the legend names
  std::string svg_;
};

}  // namespace eplbd
