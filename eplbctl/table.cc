// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/table.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

namespace eplbd {
namespace {

constexpr std::string_view kBlanks = " \t\r";
// As many cells as a table of cells may leave out, on the whole and for each that it has.
constexpr int64_t kMostLeftOut = 1 << 16;
constexpr int64_t kMostLeftOutEach = 256;

[[noreturn]] void fail(int64_t line, const std::string& what) {
  throw std::runtime_error("line " + std::to_string(line) + ": " + what);
}

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  text = text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
  if (text.size() > 1 && text.front() == '"' && text.back() == '"') {
    return text.substr(1, text.size() - 2);
  }
  return text;
}

std::optional<double> to_number(std::string_view cell) {
  double value = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (error != std::errc() || end != cell.data() + cell.size()) return std::nullopt;
  return value;
}

// Lines with something in them, cut into cells.
class Lines {
 public:
  explicit Lines(std::string_view text) : text_(text) {
    if (text_.starts_with("\xef\xbb\xbf")) text_.remove_prefix(3);
  }

  bool next() {
    while (!text_.empty()) {
      const std::string_view line = text_.substr(0, text_.find('\n'));
      text_.remove_prefix(std::min(line.size() + 1, text_.size()));
      ++number_;
      const size_t first = line.find_first_not_of(kBlanks);
      if (first == std::string_view::npos || line[first] == '#') continue;
      cut(line.substr(first, line.find_last_not_of('\r') - first + 1));
      return true;
    }
    return false;
  }
  const std::vector<std::string_view>& cells() const { return cells_; }
  int64_t number() const { return number_; }

 private:
  void cut(std::string_view line) {
    if (!separator_) separator_ = separator_of(line);
    cells_.clear();
    while (true) {
      const size_t end = std::min(line.find(*separator_), line.size());
      const std::string_view cell = trimmed(line.substr(0, end));
      if (*separator_ != ' ' || !cell.empty()) cells_.push_back(cell);
      if (end == line.size()) return;
      line.remove_prefix(end + 1);
    }
  }
  static char separator_of(std::string_view line) {
    for (const char c : {',', ';', '\t'}) {
      if (line.find(c) != std::string_view::npos) return c;
    }
    return ' ';
  }

  std::string_view text_;
  std::optional<char> separator_;
  std::vector<std::string_view> cells_;
  int64_t number_ = 0;
};

bool is_heading(const std::vector<std::string_view>& cells) {
  return std::any_of(cells.begin(), cells.end(), [](auto cell) { return !to_number(cell); });
}

// Which column says what; none: no column does.
struct Columns {
  std::optional<size_t> step, layer, expert;
  std::vector<size_t> values;
  size_t all = 0;
};

Columns columns_of(const std::vector<std::string_view>& cells, bool heading, int64_t line) {
  Columns columns;
  columns.all = cells.size();
  for (size_t i = 0; i < cells.size(); ++i) {
    std::string name(heading ? cells[i] : "");
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    std::optional<size_t>* const key =
        name == "step" || name == "time"                                      ? &columns.step
        : name == "layer" || name == "layer_id"                               ? &columns.layer
        : name == "expert" || name == "expert_id" || name == "logical_expert" ? &columns.expert
                                                                              : nullptr;
    if (!key) {
      columns.values.push_back(i);
    } else if (*key) {
      fail(line, "two columns say the " + name);
    } else {
      *key = i;
    }
  }
  if (columns.expert && (columns.values.size() != 1 || !columns.layer)) {
    fail(line, "with a column expert, layer and one column of loads are needed beside it");
  }
  if (columns.values.empty()) fail(line, "no column holds loads");
  return columns;
}

struct Row {
  double step = 0;
  double layer = 0;
  int64_t line = 0;
  std::vector<double> values;  // [experts], or one of a cell
  std::optional<double> expert;
};

double cell_of(const Lines& lines, size_t column) {
  const auto value = to_number(lines.cells()[column]);
  if (value) return *value;
  fail(lines.number(), "column " + std::to_string(column + 1) + ": a number expected, found '" +
                           std::string(lines.cells()[column].substr(0, 40)) + "'");
}

std::vector<Row> rows_of(Lines& lines, const Columns& columns, bool skip_first) {
  std::vector<Row> rows;
  std::map<double, double> next_layer;  // of each step, where no column says it
  for (bool first = true; first || lines.next(); first = false) {
    if (first && skip_first) continue;
    if (lines.cells().size() != columns.all) {
      fail(lines.number(), std::to_string(lines.cells().size()) +
                               " columns, those before it have " + std::to_string(columns.all));
    }
    Row row;
    row.line = lines.number();
    if (columns.step) row.step = cell_of(lines, *columns.step);
    if (!std::isfinite(row.step)) fail(row.line, "a step that is no number");
    row.layer = columns.layer ? cell_of(lines, *columns.layer) : next_layer[row.step]++;
    if (!std::isfinite(row.layer)) fail(row.line, "a layer that is no number");
    if (columns.expert) row.expert = cell_of(lines, *columns.expert);
    for (const size_t column : columns.values) row.values.push_back(cell_of(lines, column));
    rows.push_back(std::move(row));
  }
  if (rows.empty()) throw std::runtime_error("it has a heading and nothing below");
  return rows;
}

// Numbers that may begin anywhere, as places from 0 in their order.
using Places = std::map<double, int64_t>;
Places places(const std::vector<Row>& rows, double Row::*number) {
  Places found;
  for (const Row& row : rows) found.emplace(row.*number, 0);
  int64_t place = 0;
  for (auto& [value, at] : found) at = place++;
  return found;
}

int64_t experts_of(const std::vector<Row>& rows) {
  if (!rows.front().expert) return static_cast<int64_t>(rows.front().values.size());
  double most = 0;
  for (const Row& row : rows) {
    const double expert = *row.expert;
    if (!(expert >= 0 && expert < 1 << 20) || std::trunc(expert) != expert) {
      fail(row.line, "an expert's number expected, from 0");
    }
    most = std::max(most, expert);
  }
  return static_cast<int64_t>(most) + 1;
}

std::string shown(double number) {
  std::array<char, 32> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
  return {digits.data(), end};
}

// Every layer of every step has a line.
void check_whole(const NestedList& loads, const Places& steps, const Places& layers) {
  const auto hole = std::find_if(loads.values.begin(), loads.values.end(),
                                 [](double value) { return std::isnan(value); });
  if (hole == loads.values.end()) return;
  const int64_t place = (hole - loads.values.begin()) / loads.shape[2];
  const auto step = std::next(steps.begin(), place / loads.shape[1]);
  const auto layer = std::next(layers.begin(), place % loads.shape[1]);
  throw std::runtime_error("step " + shown(step->first) + " has no layer " + shown(layer->first));
}

}  // namespace

bool looks_like_table(std::string_view text) {
  Lines lines(text);
  if (!lines.next()) return false;
  const auto& cells = lines.cells();
  if (!is_heading(cells)) return true;
  return cells.size() > 1 && std::none_of(cells.begin(), cells.end(), [](std::string_view cell) {
           return cell.find_first_of(":{}[]") != std::string_view::npos;
         });
}

NestedList read_table_loads(std::string_view text) {
  Lines lines(text);
  lines.next();
  const bool heading = is_heading(lines.cells());
  const Columns columns = columns_of(lines.cells(), heading, lines.number());
  const std::vector<Row> rows = rows_of(lines, columns, heading);
  const Places steps = places(rows, &Row::step);
  const Places layers = places(rows, &Row::layer);
  const int64_t experts = experts_of(rows);
  NestedList loads;
  loads.shape = {static_cast<int64_t>(steps.size()), static_cast<int64_t>(layers.size()), experts};
  const int64_t all = loads.shape[0] * loads.shape[1];
  const auto there = static_cast<int64_t>(rows.size() * rows.front().values.size());
  if (all > (kMostLeftOut + kMostLeftOutEach * there) / experts) {
    throw std::runtime_error("it stands for far more cells than it has");
  }
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  loads.values.assign(static_cast<size_t>(all * experts), kNone);
  for (const Row& row : rows) {
    const int64_t place = steps.at(row.step) * loads.shape[1] + layers.at(row.layer);
    auto cell =
        loads.values.begin() + place * experts + static_cast<int64_t>(row.expert.value_or(0));
    if (!std::isnan(*cell)) fail(row.line, "the second line for this place");
    for (const double value : row.values) {
      if (!std::isfinite(value)) fail(row.line, "a load that is no finite number");
      *cell++ = value;
    }
  }
  if (!columns.expert) check_whole(loads, steps, layers);
  std::replace_if(
      loads.values.begin(), loads.values.end(), [](double v) { return std::isnan(v); }, 0.0);
  return loads;
}

NestedList read_table(std::string_view text) {
  Lines lines(text);
  lines.next();
  Columns columns;
  columns.all = lines.cells().size();
  if (columns.all == 0) fail(lines.number(), "it has no columns");
  for (size_t i = 0; i < columns.all; ++i) columns.values.push_back(i);
  NestedList table;
  for (const Row& row : rows_of(lines, columns, is_heading(lines.cells()))) {
    table.values.insert(table.values.end(), row.values.begin(), row.values.end());
  }
  table.shape = {static_cast<int64_t>(table.values.size() / columns.all),
                 static_cast<int64_t>(columns.all)};
  return table;
}

}  // namespace eplbd
