// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/chart.h"

#include <catch2/catch.hpp>

namespace eplbd {
namespace {

TEST_CASE("axes have round numbers within their ends") {
  for (const auto& [least, most] :
       {std::pair{0.0, 400.0}, {1.0, 1.73}, {0.4, 1.0}, {0.0, 86400.0}, {3.0, 3.0}}) {
    CAPTURE(least, most);
    const ChartAxis axis = linear_axis(least, most, "");
    CHECK(axis.ticks.size() >= 3);
    CHECK(axis.ticks.size() <= 13);
    for (const auto& tick : axis.ticks) {
      CHECK(tick.at >= axis.least - 1e-9);
      CHECK(tick.at <= axis.most + 1e-6 * axis.most);
    }
  }
  CHECK(linear_axis(0.4, 1, "").ticks.front().text == "0.4");
  const ChartAxis moves = logarithmic_axis(730, 51'000, "");
  CHECK(moves.least == Approx(100));
  CHECK(moves.ticks.size() == 3);
  CHECK(moves.ticks.back().text == "10k");
}

TEST_CASE("points are where their values say, and text is escaped") {
  Chart chart{.title = "a<b & c"};
  chart.x = linear_axis(0, 10, "");
  chart.y = linear_axis(0, 1, "");
  ChartSeries series{"s", "red", {{0, 0, ""}, {10, 1, ""}, {5, -1, "below the foot"}}};
  series.dots = true;
  series.events = {5};
  chart.series = {series};
  const std::string drawn = draw(chart);
  CHECK(drawn.find("points='48.0,234.0 288.0,28.0 '") != drawn.npos);
  CHECK(drawn.find("a&lt;b &amp; c") != drawn.npos);
  CHECK(drawn.find("below") == drawn.npos);
  CHECK(drawn.find("x1='168.0' y1='234.0' x2='168.0'") != drawn.npos);  // the event
}

}  // namespace
}  // namespace eplbd
