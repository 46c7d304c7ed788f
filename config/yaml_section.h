// One mapping of the configuration file, read key by key: every value is checked, every problem
// collected with its line, and what nobody asked for is an unknown key.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/config.h"
#include "config/yaml_node.h"
#include "core/model/time.h"

namespace eplbd {

// What one file's sections share: the problems so far, and the keys there could have been.
class ConfigReader {
 public:
  void problem(int line, std::string key, std::string message) {
    problems_.push_back({line, std::move(key), std::move(message)});
  }
  // All of them, in order of their lines; unknown keys with the nearest known one.
  std::vector<ConfigProblem> finish();

 private:
  friend class Section;
  struct Unknown {
    int line;
    std::string section;  // "" at the top
    std::string name;
  };
  std::string hint(const Unknown& unknown) const;

  std::vector<ConfigProblem> problems_;
  std::vector<std::pair<std::string, std::string>> known_;  // section, name; in reading order
  std::vector<Unknown> unknown_;
};

template <typename T>
struct Range {
  T min = std::numeric_limits<T>::lowest();
  T max = std::numeric_limits<T>::max();
};

struct DurationRange {
  Duration min = std::chrono::milliseconds(1);
  Duration max = std::chrono::hours(24 * 30);
};

// A text of a list, and where it stands.
struct ListItem {
  int line;
  std::string key;  // endpoints.counts.bind[1]
  std::string text;
};

class Section {
 public:
  // `node` null or without a value: an empty section that stands on `line`. `path` is "" at the
  // top.
  Section(ConfigReader& reader, const YamlNode* node, std::string path, int line);
  // Reports the keys that were not asked for.
  ~Section();
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;

  Section section(const std::string& name);
  bool has(const std::string& name);
  bool readable() const { return readable_; }  // false: not a section, which is said already

  // Each leaves `out` alone where the key is missing or its value wrong; true: it was read.
  bool read(const std::string& name, std::string& out);
  bool read(const std::string& name, bool& out);
  bool read(const std::string& name, int32_t& out, int32_t min);
  bool read(const std::string& name, int64_t& out, Range<int64_t> range);
  bool read(const std::string& name, uint64_t& out);
  bool read(const std::string& name, double& out, Range<double> range);
  bool read(const std::string& name, Duration& out, DurationRange range = {});
  // The word `automatic`, or a duration.
  bool read(const std::string& name, std::optional<Duration>& out, std::string_view automatic);
  bool read(const std::string& name, std::vector<int32_t>& out);
  bool read(const std::string& name, std::vector<double>& out);
  std::vector<ListItem> read(const std::string& name, std::vector<std::string>& out);

  // One of `values`, by the name that to_string gives it.
  template <typename Enum>
  bool read_choice(const std::string& name, Enum& out, std::initializer_list<Enum> values) {
    std::vector<std::string_view> names;
    for (const Enum value : values) names.push_back(to_string(value));
    const std::optional<size_t> chosen = choose(name, names);
    if (chosen) out = values.begin()[*chosen];
    return chosen.has_value();
  }

  void problem(const std::string& name, std::string message) {
    reader_.problem(line_of(name), key_of(name), std::move(message));
  }
  void problem(const ListItem& item, std::string message) {
    reader_.problem(item.line, item.key, std::move(message));
  }

 private:
  struct Entry {
    int line;
    const YamlNode* value;
  };
  const Entry* find(const std::string& name) const;
  int line_of(const std::string& name) const;
  std::string key_of(const std::string& name) const;
  const Entry* ask(const std::string& name);
  std::optional<size_t> choose(const std::string& name, const std::vector<std::string_view>& names);
  template <typename T, typename Parse>
  bool read_value(const std::string& name, T& out, const Parse& parse);
  template <typename T, typename Parse>
  bool read_list(const std::string& name, std::vector<T>& out, const Parse& parse);

  ConfigReader& reader_;
  std::string path_;
  int line_;
  bool readable_ = true;
  std::map<std::string, Entry> entries_;
  std::set<std::string> asked_;
};

}  // namespace eplbd
