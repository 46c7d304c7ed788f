// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/trace_file.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>

#include "daemon/formats/npy.h"
#include "eplbctl/data_file.h"
#include "eplbctl/nested_list.h"
#include "eplbctl/table.h"

namespace eplbd {
namespace {

using nlohmann::json;

// Beyond this, layers times experts cannot be a model, and indices would not fit 32 bits.
constexpr int64_t kMaxDimension = 1 << 20;
// Rounding may lose this part of a step's load before the numbers cannot be token counts.
constexpr double kMaxRoundingLoss = 0.01;

// Appends one step [layers, experts], which is called `name`.
void add_step(const json& list, const std::string& name, NestedList& all) {
  const NestedList load = read_nested_list(list, name, 2, 2);
  if (all.shape.empty()) all.shape = {0, load.shape[0], load.shape[1]};
  if (load.shape[0] != all.shape[1] || load.shape[1] != all.shape[2]) {
    throw std::runtime_error(name + " has another shape than the first");
  }
  ++all.shape[0];
  all.values.insert(all.values.end(), load.values.begin(), load.values.end());
}

// {"load_history": [{"logical_expert_load": [[..experts] ..layers]} ..]}
NestedList read_load_history(const json& history) {
  if (!history.is_array() || history.empty()) {
    throw std::runtime_error("load_history: a list of steps expected");
  }
  NestedList all;
  for (size_t step = 0; step < history.size(); ++step) {
    const std::string name = "load_history[" + std::to_string(step) + "]";
    if (!history[step].is_object() || !history[step].contains("logical_expert_load")) {
      throw std::runtime_error(name + " has no logical_expert_load");
    }
    add_step(history[step]["logical_expert_load"], name + ".logical_expert_load", all);
  }
  return all;
}

// A line is a step: a bare list, or an object with logical_expert_load or logical_count.
NestedList read_json_lines(std::string_view text) {
  NestedList all;
  for (size_t number = 1; !text.empty(); ++number) {
    const std::string line(text.substr(0, text.find('\n')));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string name = "line " + std::to_string(number);
    const json step = json::parse(line, nullptr, false);
    if (step.is_discarded()) throw std::runtime_error(name + ": it is no JSON");
    const char* const key =
        step.contains("logical_expert_load") ? "logical_expert_load" : "logical_count";
    if (!step.is_array() && !step.contains(key)) {
      throw std::runtime_error(name + ": a list, logical_expert_load or logical_count expected");
    }
    add_step(step.is_array() ? step : step[key], name, all);
  }
  return all;
}

NestedList read_json_loads(const std::string& text) {
  const json document = parse_json(text);
  if (document.is_array()) return read_nested_list(document, "", 2, 3);
  if (!document.is_object()) {
    throw std::runtime_error("an object or a list expected, found " +
                             std::string(document.type_name()));
  }
  for (const char* key : {"physical_to_logical_map", "logical_to_physical_map"}) {
    if (document.contains(key)) {
      throw std::runtime_error(std::string("it holds a placement (") + key +
                               "): there, logical_count may be replicas, not loads. Give a file "
                               "of loads only");
    }
  }
  const bool history = document.contains("load_history");
  if (history == document.contains("logical_count")) {
    throw std::runtime_error(
        "it needs one of load_history (ADRS) and logical_count (SGLang), or to be a bare list");
  }
  return history ? read_load_history(document["load_history"])
                 : read_nested_list(document["logical_count"], "logical_count", 2, 3);
}

}  // namespace

struct TraceFile::Impl {
  explicit Impl(const std::string& file_name) : name(file_name), file(file_name) {
    try {
      load();
      check_values();
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(name + ": " + error.what());
    }
  }

  void load() {
    std::vector<int64_t> shape;
    if (file.kind() == DataKind::npy) {
      npy = read_npy_header(file.bytes());
      shape = npy->shape;
    } else {
      NestedList list = read_text();
      shape = list.shape;
      values = std::move(list.values);
    }
    if (shape.size() == 2) shape.insert(shape.begin(), 1);
    if (shape.size() != 3) {
      throw std::runtime_error("it has " + std::to_string(shape.size()) +
                               " dimensions; [layers, experts] or [steps, layers, experts] needed");
    }
    for (const int64_t size : shape) {
      if (size < 1) throw std::runtime_error("it has a dimension of 0: there are no loads in it");
    }
    if (shape[1] > kMaxDimension || shape[2] > kMaxDimension) {
      throw std::runtime_error("it has too many layers or experts");
    }
    steps = shape[0];
    layers = static_cast<int32_t>(shape[1]);
    experts = static_cast<int32_t>(shape[2]);
  }

  NestedList read_text() const {
    switch (file.kind()) {
      case DataKind::json:
        return read_json_loads(std::string(file.text()));
      case DataKind::json_lines:
        return read_json_lines(file.text());
      case DataKind::table:
        return read_table_loads(file.text());
      default:
        throw std::runtime_error(
            "it is text, but neither JSON, JSON Lines nor a table of numbers (CSV)");
    }
  }

  double at(int64_t index) const {
    return npy ? npy_element(*npy, file.bytes(), index) : values[static_cast<size_t>(index)];
  }

  void check_values() const {
    if (npy && (npy->type == NpyType::uint32 || npy->type == NpyType::uint64)) return;
    const int64_t cells = int64_t{layers} * experts;
    for (int64_t i = 0; i < steps * cells; ++i) {
      const double value = at(i);
      if (std::isfinite(value) && value >= 0) continue;
      throw std::runtime_error("step " + std::to_string(i / cells) + ", layer " +
                               std::to_string(i % cells / experts) + ", expert " +
                               std::to_string(i % experts) + ": the load " + std::to_string(value) +
                               " is not a number >= 0");
    }
  }

  std::string name;
  DataFile file;
  std::optional<NpyHeader> npy;
  std::vector<double> values;  // of text
  int64_t steps = 0;
  int32_t layers = 0;
  int32_t experts = 0;
};

TraceFile::TraceFile(const std::string& file) : impl_(std::make_unique<Impl>(file)) {}
TraceFile::~TraceFile() = default;
TraceFile::TraceFile(TraceFile&&) noexcept = default;

int64_t TraceFile::steps() const { return impl_->steps; }
int32_t TraceFile::layers() const { return impl_->layers; }
int32_t TraceFile::experts() const { return impl_->experts; }

void TraceFile::read_step(int64_t step, std::span<double> counts) const {
  const int64_t first = step * static_cast<int64_t>(cells());
  for (size_t i = 0; i < counts.size(); ++i) {
    counts[i] = impl_->at(first + static_cast<int64_t>(i));
  }
}

void TraceFile::read_counts(int64_t step, std::span<double> loads,
                            std::span<uint32_t> counts) const {
  read_step(step, loads);
  try {
    to_counts(loads, counts);
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(impl_->name + ": step " + std::to_string(step) + ": " + error.what());
  }
}

std::vector<double> TraceFile::sum() const {
  std::vector<double> total(cells(), 0.0);
  std::vector<double> counts(cells());
  for (int64_t step = 0; step < steps(); ++step) {
    read_step(step, counts);
    for (size_t i = 0; i < counts.size(); ++i) total[i] += counts[i];
  }
  return total;
}

void to_counts(std::span<const double> step, std::span<uint32_t> counts) {
  double total = 0;
  double lost = 0;
  for (size_t i = 0; i < step.size(); ++i) {
    const double rounded = std::nearbyint(step[i]);
    if (rounded > std::numeric_limits<uint32_t>::max()) {
      throw std::runtime_error("the load " + std::to_string(step[i]) +
                               " of one step is more than 32 bits hold; scale the trace down");
    }
    counts[i] = static_cast<uint32_t>(rounded);
    total += step[i];
    lost += std::abs(step[i] - rounded);
  }
  if (lost > kMaxRoundingLoss * total) {
    throw std::runtime_error(
        "its loads are fractions, not token counts: rounding would lose more than a hundredth. "
        "Multiply them by the tokens of a step");
  }
}

}  // namespace eplbd
