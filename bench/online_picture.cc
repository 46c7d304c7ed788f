// SPDX-License-Identifier: Apache-2.0
#include "bench/online_picture.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <stdexcept>

namespace eplbd {
namespace {

constexpr double kPanel = 300;  // width of one, with its margins
constexpr double kLeft = 44;
constexpr double kRight = 12;
constexpr double kTop = 28;
constexpr double kBottom = 26;
constexpr double kHeight = 274;  // of a panel
constexpr double kLegend = 34;   // above all of them
constexpr double kFoot = 22;
constexpr double kLeast = 0.70;  // balancedness at the foot
constexpr const char* kColours[] = {"#c2571a", "#7b5ea7", "#00856a"};

// Thousands and millions, as people say them.
std::string short_number(double value) {
  const auto whole = static_cast<int64_t>(value);
  if (whole >= 1'000'000) return std::to_string(whole / 1'000'000) + "M";
  if (whole >= 1'000) return std::to_string(whole / 1'000) + "k";
  return std::to_string(whole);
}

// From moves and balancedness to a place in a panel.
struct Axes {
  static constexpr double left = kLeft;
  static constexpr double right = kPanel - kRight;
  double least_moves = 1;
  double most_moves = 10;

  double x(double moves) const {
    const double part = std::log(moves / least_moves) / std::log(most_moves / least_moves);
    return left + (right - left) * std::clamp(part, 0.0, 1.0);
  }
  static double y(double balancedness) {
    return kTop + (kHeight - kTop - kBottom) * (1 - balancedness) / (1 - kLeast);
  }
};

Axes axes_of(const std::vector<Series>& series) {
  double least = 1e18;
  double most = 1;
  for (const Series& one : series) {
    for (const auto& point : one.points) {
      if (point.balancedness < kLeast || point.moves == 0) continue;
      least = std::min(least, static_cast<double>(point.moves));
      most = std::max(most, static_cast<double>(point.moves));
    }
  }
  return {std::pow(10, std::floor(std::log10(std::min(least, most)))), most * 4};
}

std::string text(double x, double y, const std::string& what, const std::string& more = "") {
  std::ostringstream out;
  out << "<text x='" << x << "' y='" << y << "' " << more << ">" << what << "</text>\n";
  return out.str();
}

std::string grid(const Axes& axes) {
  std::ostringstream out;
  for (int percent = static_cast<int>(kLeast * 100); percent <= 100; percent += 5) {
    const double y = Axes::y(percent / 100.0);
    out << "<line x1='" << axes.left << "' x2='" << axes.right << "' y1='" << y << "' y2='" << y
        << "' stroke='#ddd'/>\n"
        << text(axes.left - 6, y + 4, percent == 100 ? "1.00" : "0." + std::to_string(percent),
                "text-anchor='end'");
  }
  for (double moves = axes.least_moves; moves <= axes.most_moves; moves *= 10) {
    out << text(axes.x(moves), kHeight - kBottom + 18, short_number(moves), "text-anchor='middle'");
  }
  return out.str();
}

std::string drawn(const Series& series, const Axes& axes, const char* colour) {
  std::ostringstream line;
  std::ostringstream out;
  for (const auto& point : series.points) {
    if (point.balancedness < kLeast || point.moves == 0) continue;
    const double x = axes.x(static_cast<double>(point.moves));
    const double y = Axes::y(point.balancedness);
    line << x << ',' << y << ' ';
    out << "<circle cx='" << x << "' cy='" << y << "' r='" << (point.label.empty() ? 2.5 : 4)
        << "' fill='" << colour << "'/>\n";
    if (point.label.empty()) continue;
    // Lines rise to the right: there is room to the upper left and to the lower right.
    out << text(series.ours ? x + 4 : x - 2, series.ours ? y - 9 : y + 15, point.label,
                std::string("text-anchor='") + (series.ours ? "end" : "start") +
                    "' font-size='10' fill='" + colour + "'");
  }
  return "<polyline points='" + line.str() + "' fill='none' stroke='" + colour + "'/>\n" +
         out.str();
}

}  // namespace

void OnlinePicture::begin_row() {
  ++rows_;
  columns_ = 0;
}

void OnlinePicture::add(const std::string& title, const std::vector<Series>& series, double limit) {
  const Axes axes = axes_of(series);
  svg_ << "<g transform='translate(" << kPanel * columns_++ << ' '
       << kLegend + kHeight * (rows_ - 1) << ")'>\n"
       << text(axes.left, kTop - 12, title, "font-weight='bold'") << grid(axes);
  widest_ = std::max(widest_, columns_);
  svg_ << "<line x1='" << axes.left << "' x2='" << axes.right << "' y1='" << Axes::y(limit)
       << "' y2='" << Axes::y(limit) << "' stroke='#555' stroke-dasharray='5 4'/>\n";
  names_.clear();
  for (const Series& one : series) {
    svg_ << drawn(one, axes, kColours[names_.size() % std::size(kColours)]);
    names_.push_back(one.name);
  }
  svg_ << "</g>\n";
}

void OnlinePicture::write(const std::string& file) const {
  std::ofstream out(file);
  const double height = kLegend + kHeight * rows_ + kFoot;
  out << "<svg xmlns='http://www.w3.org/2000/svg' width='" << kPanel * widest_ << "' height='"
      << height << "' font-family='sans-serif' font-size='11'>\n"
      << "<rect width='100%' height='100%' fill='white'/>\n";
  double x = kLeft;
  for (size_t i = 0; i < names_.size(); ++i) {
    out << "<circle cx='" << x << "' cy='18' r='4' fill='" << kColours[i % std::size(kColours)]
        << "'/>\n"
        << text(x + 9, 22, names_[i]);
    x += 30 + 7.0 * static_cast<double>(names_[i].size());
  }
  out << "<line x1='" << x << "' x2='" << x + 22
      << "' y1='18' y2='18' stroke='#555' stroke-dasharray='5 4'/>\n"
      << text(x + 28, 22, "each step's own counts known before it") << svg_.str()
      << text(kLeft, height - 8, "weights moved (logarithmic); upwards: balancedness")
      << "</svg>\n";
  if (!out.flush()) throw std::runtime_error("cannot write " + file);
}

}  // namespace eplbd
