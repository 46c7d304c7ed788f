// SPDX-License-Identifier: Apache-2.0
#include "config/nearest.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace eplbd {
namespace {

constexpr size_t kLongest = 60;  // longer ones are no slip of a finger

// Letters to add, to leave out or to write otherwise, or neighbours to exchange (optimal string
// alignment).
size_t edit_distance(std::string_view a, std::string_view b) {
  const size_t width = b.size() + 1;
  std::vector<size_t> table((a.size() + 1) * width);  // [letters of a][letters of b]
  std::iota(table.begin(), table.begin() + static_cast<ptrdiff_t>(width), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t* row = table.data() + i * width;
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const bool same = a[i - 1] == b[j - 1];
      row[j] = std::min({(row - width)[j] + 1, row[j - 1] + 1, (row - width)[j - 1] + !same});
      const bool exchanged = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (exchanged) row[j] = std::min(row[j], (row - 2 * width)[j - 2] + 1);
    }
  }
  return table.back();
}

}  // namespace

std::optional<std::string> nearest(std::string_view name, std::span<const std::string> known) {
  if (name.size() > kLongest) return {};
  std::optional<std::string> best;
  size_t least = std::clamp<size_t>(name.size() / 3, 1, 4) + 1;
  for (const std::string& candidate : known) {
    const size_t distance = edit_distance(name, candidate);
    if (distance >= least) continue;
    least = distance;
    best = candidate;
  }
  return best;
}

}  // namespace eplbd
