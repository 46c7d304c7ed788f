// SPDX-License-Identifier: Apache-2.0
#include "core/balance/matching.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

namespace eplbd {
namespace {

// Rows and columns have potentials of at least zero: their sum is nowhere below the gain, and equal
// to it where a row has its column; who has none has a potential of zero. Nothing better is
// possible then. Those that are left take what is left: it gains nothing.
class Assignment {
 public:
  Assignment(int32_t count, std::span<const Gain> gains)
      : count_(count),
        gains_(gains),
        first_(count + 1),
        row_of_(count, -1),
        column_of_(count, -1),
        row_potential_(count),
        column_potential_(count),
        slack_(count, kFar),
        from_(count),
        reached_(count) {
    for (const Gain& gain : gains) ++first_[gain.row + 1];
    std::partial_sum(first_.begin(), first_.end(), first_.begin());
  }

  std::vector<int32_t> solve() {
    take_largest();
    for (int32_t row = 0; row < count_; ++row) {
      if (column_of_[row] < 0) augment(row);
    }
    take_what_is_left();
    return std::move(column_of_);
  }

 private:
  static constexpr int32_t kFar = std::numeric_limits<int32_t>::max();

  std::span<const Gain> gains_of(int32_t row) const {
    return gains_.subspan(first_[row], first_[row + 1] - first_[row]);
  }
  void join(int32_t row, int32_t column) {
    column_of_[row] = column;
    row_of_[column] = row;
  }

  // A row's own column first, where that is as good as any.
  void take_largest() {
    for (const Gain& gain : gains_) {
      row_potential_[gain.row] = std::max(row_potential_[gain.row], gain.gain);
    }
    for (const bool own : {true, false}) {
      for (const Gain& gain : gains_) {
        if (own && gain.row != gain.column) continue;
        if (gain.gain < row_potential_[gain.row]) continue;
        if (column_of_[gain.row] < 0 && row_of_[gain.column] < 0) join(gain.row, gain.column);
      }
    }
  }

  void take_what_is_left() {
    for (int32_t row = 0; row < count_; ++row) {
      if (column_of_[row] < 0 && row_of_[row] < 0) join(row, row);
    }
    int32_t column = 0;
    for (int32_t row = 0; row < count_; ++row) {
      if (column_of_[row] >= 0) continue;
      while (row_of_[column] >= 0) ++column;
      join(row, column);
    }
  }

  // From a row without a column the way that loses least, by Dijkstra's algorithm on the slack
  // (potentials - gain): to a column without a row, or to a row that gives its column up. Along it
  // everyone takes the next column.
  void augment(int32_t start) {
    rows_.assign(1, {start, 0});
    touched_.clear();
    std::pair<int32_t, int32_t> gives_up{row_potential_[start], start};
    int32_t end = -1;
    for (int32_t row = start; row >= 0; row = row_of_[end]) {
      const int32_t length = rows_.back().second;
      gives_up = std::min(gives_up, {length + row_potential_[row], row});
      for (const Gain& gain : gains_of(row)) reach(gain, length);
      end = nearest();
      if (end < 0 || gives_up.first <= slack_[end]) {
        end = -1;
        break;
      }
      reached_[end] = 1;
      if (row_of_[end] >= 0) rows_.emplace_back(row_of_[end], slack_[end]);
    }
    raise(end < 0 ? gives_up.first : slack_[end]);
    if (end < 0) {
      end = std::exchange(column_of_[gives_up.second], -1);
      if (gives_up.second == start) return;
    }
    for (int32_t row = -1; row != start;) {
      row = from_[end];
      const int32_t left = column_of_[row];
      join(row, end);
      end = left;
    }
  }

  void reach(const Gain& gain, int32_t length) {
    const int32_t slack =
        length + row_potential_[gain.row] + column_potential_[gain.column] - gain.gain;
    if (reached_[gain.column] || slack >= slack_[gain.column]) return;
    if (slack_[gain.column] == kFar) touched_.push_back(gain.column);
    slack_[gain.column] = slack;
    from_[gain.column] = gain.row;
  }

  // Of the columns touched and not yet reached; of equals one without a row. -1: none.
  int32_t nearest() const {
    const auto key = [&](int32_t column) {
      return std::pair(slack_[column], row_of_[column] >= 0);
    };
    int32_t best = -1;
    for (const int32_t column : touched_) {
      if (!reached_[column] && (best < 0 || key(column) < key(best))) best = column;
    }
    return best;
  }

  // Potentials along the ways found, so that no slack is below zero.
  void raise(int32_t length) {
    for (const auto& [row, at] : rows_) row_potential_[row] -= length - at;
    for (const int32_t column : touched_) {
      if (reached_[column]) column_potential_[column] += length - slack_[column];
      reached_[column] = 0;
      slack_[column] = kFar;
    }
  }

  const int32_t count_;
  const std::span<const Gain> gains_;
  std::vector<int32_t> first_;               // [rows + 1] of its gains
  std::vector<int32_t> row_of_, column_of_;  // -1: none
  std::vector<int32_t> row_potential_, column_potential_;
  std::vector<int32_t> slack_;                     // [columns] along the best way found
  std::vector<int32_t> from_;                      // [columns] the row before it on that way
  std::vector<char> reached_;                      // [columns]
  std::vector<int32_t> touched_;                   // columns
  std::vector<std::pair<int32_t, int32_t>> rows_;  // reached, and after what slack
};

// GPUs that are up, by region: a node where groups are kept on nodes, else everything; in each by
// speed, as only GPUs that are as fast may change places.
using Alike = std::map<double, std::vector<int32_t>>;

std::vector<Alike> regions_of_alike(const Topology& topology, std::span<const int32_t> gpus_down,
                                    bool groups_on_nodes) {
  std::vector<Alike> regions(groups_on_nodes ? topology.nodes : 1);
  for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) {
    if (std::find(gpus_down.begin(), gpus_down.end(), gpu) != gpus_down.end()) continue;
    regions[groups_on_nodes ? topology.node_of(gpu) : 0][topology.gpu_speed(gpu)].push_back(gpu);
  }
  return regions;
}

bool alike(const Alike& a, const Alike& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& one, const auto& other) {
    return one.first == other.first && one.second.size() == other.second.size();
  });
}

class LayerMatching {
 public:
  LayerMatching(const Topology& topology, std::span<const int32_t> gpus_down, bool groups_on_nodes)
      : topology_(topology),
        regions_(regions_of_alike(topology, gpus_down, groups_on_nodes)),
        common_(topology.gpus),
        holders_(topology.logical_experts),
        place_of_(topology.gpus) {}

  // [gpus] of whose content in `next` each GPU gets; -1: of none.
  std::vector<int32_t> match(std::span<const int32_t> base, std::span<const int32_t> next) {
    find_common(base, next);
    content_of_.assign(topology_.gpus, -1);
    const auto count = static_cast<int32_t>(regions_.size());
    // More than all slots that stay: a region never changes places with one that is not like it.
    const int32_t allowed = count * (topology_.slots + 1);
    std::vector<Gain> gains;
    for (int32_t from = 0; count > 1 && from < count; ++from) {
      for (int32_t to = 0; to < count; ++to) {
        if (!alike(regions_[from], regions_[to])) continue;
        gains.push_back({from, to, allowed + pair_up(from, to)});
      }
    }
    const auto region_of = best_assignment(count, gains);
    for (int32_t from = 0; from < count; ++from) pair_up(from, region_of[from]);
    return content_of_;
  }

 private:
  struct Common {
    int32_t gpu = 0;  // of `base`
    int32_t experts = 0;
  };

  // For each GPU of `next` those of `base` that hold an expert of it.
  void find_common(std::span<const int32_t> base, std::span<const int32_t> next) {
    for (auto& gpus : holders_) gpus.clear();
    for (int32_t slot = 0; slot < topology_.slots; ++slot) {
      if (base[slot] == kNoExpert) continue;
      auto& gpus = holders_[base[slot]];
      const int32_t gpu = topology_.gpu_of(slot);
      if (gpus.empty() || gpus.back() != gpu) gpus.push_back(gpu);
    }
    for (auto& others : common_) others.clear();
    for (int32_t slot = 0; slot < topology_.slots; ++slot) {
      if (next[slot] == kNoExpert) continue;
      auto& others = common_[topology_.gpu_of(slot)];
      for (const int32_t gpu : holders_[next[slot]]) {
        const auto known = std::find_if(others.begin(), others.end(),
                                        [&](const Common& other) { return other.gpu == gpu; });
        if (known == others.end()) {
          others.push_back({gpu, 1});
        } else {
          ++known->experts;
        }
      }
    }
  }

  // Gives the GPUs of one region the contents of another; returns how many experts stay.
  int32_t pair_up(int32_t from, int32_t to) {
    int32_t stays = 0;
    auto target = regions_[to].begin();
    for (const auto& [speed, contents] : regions_[from]) {
      const auto& gpus = (target++)->second;
      std::fill(place_of_.begin(), place_of_.end(), -1);
      for (size_t i = 0; i < gpus.size(); ++i) place_of_[gpus[i]] = static_cast<int32_t>(i);
      gains_.clear();
      for (size_t i = 0; i < contents.size(); ++i) {
        for (const auto& [gpu, experts] : common_[contents[i]]) {
          if (place_of_[gpu] < 0) continue;
          gains_.push_back({static_cast<int32_t>(i), place_of_[gpu], experts});
        }
      }
      const auto column_of = best_assignment(static_cast<int32_t>(gpus.size()), gains_);
      for (size_t i = 0; i < gpus.size(); ++i) content_of_[gpus[column_of[i]]] = contents[i];
      for (const Gain& gain : gains_) stays += column_of[gain.row] == gain.column ? gain.gain : 0;
    }
    return stays;
  }

  const Topology& topology_;
  const std::vector<Alike> regions_;
  std::vector<std::vector<Common>> common_;    // [gpus]
  std::vector<std::vector<int32_t>> holders_;  // [experts] GPUs of `base`
  std::vector<int32_t> place_of_;              // [gpus] among those to be given
  std::vector<Gain> gains_;
  std::vector<int32_t> content_of_;  // [gpus]
};

}  // namespace

std::vector<int32_t> best_assignment(int32_t count, std::span<const Gain> gains) {
  return Assignment(count, gains).solve();
}

Placement match_gpus(const Topology& topology, const Placement& base, const Placement& next,
                     std::span<const int32_t> gpus_down, bool groups_on_nodes) {
  const int32_t width = topology.slots_per_gpu();
  LayerMatching matching(topology, gpus_down, groups_on_nodes);
  std::vector<int32_t> map(next.map().size(), kNoExpert);
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    const auto row = next.layer(layer);
    const auto content_of = matching.match(base.layer(layer), row);
    const auto to = map.begin() + static_cast<ptrdiff_t>(layer) * topology.slots;
    for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) {
      if (content_of[gpu] < 0) continue;
      std::copy_n(row.begin() + content_of[gpu] * width, width, to + gpu * width);
    }
  }
  return keep_slots(topology, base, Placement(topology, std::move(map)));
}

}  // namespace eplbd
