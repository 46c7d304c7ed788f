// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "config/config.h"
#include "config/duration.h"
#include "config/keys.h"
#include "config/yaml_node.h"
#include "config/yaml_scalar.h"

namespace eplbd {
namespace {

std::string text(const std::string& value) { return quoted(value); }
std::string text(bool value) { return value ? "true" : "false"; }
std::string text(int32_t value) { return std::to_string(value); }
std::string text(int64_t value) { return std::to_string(value); }
std::string text(uint64_t value) { return std::to_string(value); }
std::string text(double value) { return number_text(value); }
std::string text(Duration value) { return duration_text(value); }
std::string text(const std::optional<Duration>& value) {
  return value ? duration_text(*value) : std::string(kAutomatic);
}
template <Named Enum>
std::string text(Enum value) {
  return std::string(to_string(value));
}
template <typename T>
std::string text(const std::vector<T>& values) {
  std::string out = "[";
  for (const T& value : values) out += (out.size() == 1 ? "" : ", ") + text(value);
  return out + "]";
}

// The lines of a configuration: each key with its value, each section.
struct Line {
  std::string key;   // trigger.imbalance
  std::string text;  // of the value; empty: a section
};

class Lines {
 public:
  template <typename T>
  void operator()(const char* name, const T& value, const char*, const BoundsOf<T>& = {}) {
    lines.push_back({path_ + name, text(value)});
  }
  template <typename Options>
  void section(const char* name, const Options& options, const char*) {
    lines.push_back({path_ + name, ""});
    const std::string above = path_;
    path_ += std::string(name) + ".";
    visit(options, *this);
    path_ = above;
  }

  std::vector<Line> lines;

 private:
  std::string path_;
};

std::vector<Line> lines_of(const Config& config) {
  Lines all;
  visit(config, all);
  return std::move(all.lines);
}

}  // namespace

std::string print_config(const Config& config) {
  std::string out;
  for (const Line& line : lines_of(config)) {
    const auto depth = static_cast<size_t>(std::count(line.key.begin(), line.key.end(), '.'));
    out += std::string(2 * depth, ' ') + line.key.substr(line.key.rfind('.') + 1) + ":" +
           (line.text.empty() ? "" : " ") + line.text + "\n";
  }
  return out;
}

std::vector<std::string> unreloadable_changes(const Config& running, const Config& next) {
  Config reloaded = next;
  reloaded.rebalancer = running.rebalancer;
  reloaded.log = running.log;
  const std::vector<Line> before = lines_of(running);
  const std::vector<Line> after = lines_of(reloaded);
  std::vector<std::string> changed;
  for (size_t i = 0; i < before.size(); ++i) {
    if (before[i].text != after[i].text) changed.push_back(before[i].key);
  }
  return changed;
}

}  // namespace eplbd
