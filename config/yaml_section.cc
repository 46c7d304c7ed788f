// SPDX-License-Identifier: Apache-2.0
#include "config/yaml_section.h"

#include <algorithm>
#include <numeric>

#include "config/yaml_scalar.h"

namespace eplbd {
namespace {

std::string join(const std::string& section, const std::string& name) {
  return section.empty() ? name : section + "." + name;
}

// Levenshtein.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

template <typename T, typename Text>
Wrong check_range(T value, T min, T max, const Text& text) {
  if (value < min) return "must be at least " + text(min) + ", is " + text(value);
  if (value > max) return "must be at most " + text(max) + ", is " + text(value);
  return {};
}

std::string whole_text(int64_t value) { return std::to_string(value); }

Wrong parse_int32(const YamlNode& node, int32_t& out, int32_t min) {
  int64_t value = 0;
  if (Wrong wrong = parse_integer(node, value)) return wrong;
  if (Wrong wrong =
          check_range<int64_t>(value, min, std::numeric_limits<int32_t>::max(), whole_text)) {
    return wrong;
  }
  out = static_cast<int32_t>(value);
  return {};
}

Wrong parse_duration_in(const YamlNode& node, Duration& out, DurationRange range) {
  Duration value{};
  if (Wrong wrong = parse_duration(node, value)) return wrong;
  if (Wrong wrong = check_range(value, range.min, range.max, duration_text)) return wrong;
  out = value;
  return {};
}

std::string item_key(const std::string& list, size_t index) {
  return list + "[" + std::to_string(index) + "]";
}

// A key in a message: as it is where it can be, else quoted and on one line.
std::string shown(const std::string& name) {
  const bool simple = !name.empty() && name.size() <= 60 &&
                      name.find_first_of(" \t\r\n:\"") == std::string::npos && check_utf8(name).ok;
  return simple ? name : quoted(std::string_view(name).substr(0, 60));
}

}  // namespace

std::string ConfigReader::hint(const Unknown& unknown) const {
  const std::string* best = nullptr;
  const size_t allowed = std::clamp<size_t>(unknown.name.size() / 3, 1, 4);
  size_t best_distance = allowed + 1;
  std::string names;
  for (const auto& [section, name] : known_) {
    if (section != unknown.section) continue;
    const size_t distance = unknown.name.size() > 60 ? 60 : edit_distance(unknown.name, name);
    if (distance < best_distance) {
      best_distance = distance;
      best = &name;
    }
    names += (names.empty() ? "" : ", ") + name;
  }
  if (best) return "unknown key; did you mean " + join(unknown.section, *best) + "?";
  for (const auto& [section, name] : known_) {
    if (name == unknown.name) return "unknown key here; did you mean " + join(section, name) + "?";
  }
  return "unknown key; known here: " + names;
}

std::vector<ConfigProblem> ConfigReader::finish() {
  for (const Unknown& unknown : unknown_) {
    const std::string message =
        unknown.name == "<<" ? "merge keys are not read; write the values out" : hint(unknown);
    problem(unknown.line, join(unknown.section, shown(unknown.name)), message);
  }
  unknown_.clear();
  std::stable_sort(problems_.begin(), problems_.end(),
                   [](const ConfigProblem& a, const ConfigProblem& b) { return a.line < b.line; });
  return problems_;
}

Section::Section(ConfigReader& reader, const YamlNode* node, std::string path, int line)
    : reader_(reader), path_(std::move(path)), line_(line) {
  if (!node || node->kind == YamlNode::Kind::nothing) return;
  if (node->kind != YamlNode::Kind::map) {
    readable_ = false;
    reader_.problem(line_, path_.empty() ? "yaml" : path_,
                    "must be a section of keys with values, " + describe(*node));
    return;
  }
  for (size_t i = 0; i < node->keys.size(); ++i) {
    const YamlNode& key = *node->keys[i];
    if (key.kind != YamlNode::Kind::scalar) {
      reader_.problem(key.line, path_.empty() ? "yaml" : path_,
                      "a key must be text, " + describe(key));
      continue;
    }
    const std::string& name = key.text;
    const auto [entry, inserted] =
        entries_.try_emplace(name, Entry{key.line, node->values[i].get()});
    if (!inserted) {
      reader_.problem(key.line, join(path_, shown(name)),
                      "duplicate key, first on line " + std::to_string(entry->second.line));
    }
  }
}

Section::~Section() {
  for (const auto& [name, entry] : entries_) {
    if (!asked_.contains(name)) reader_.unknown_.push_back({entry.line, path_, name});
  }
}

const Section::Entry* Section::find(const std::string& name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second;
}

const Section::Entry* Section::ask(const std::string& name) {
  if (asked_.insert(name).second) reader_.known_.emplace_back(path_, name);
  return find(name);
}

bool Section::has(const std::string& name) { return ask(name) != nullptr; }

int Section::line_of(const std::string& name) const {
  const Entry* entry = find(name);
  return entry ? entry->line : line_;
}

std::string Section::key_of(const std::string& name) const { return join(path_, name); }

Section Section::section(const std::string& name) {
  const Entry* entry = ask(name);
  return Section(reader_, entry ? entry->value : nullptr, key_of(name),
                 entry ? entry->line : line_);
}

template <typename T, typename Parse>
bool Section::read_value(const std::string& name, T& out, const Parse& parse) {
  const Entry* entry = ask(name);
  if (!entry) return false;
  const Wrong wrong = parse(*entry->value, out);
  if (wrong) problem(name, *wrong);
  return !wrong;
}

template <typename T, typename Parse>
bool Section::read_list(const std::string& name, std::vector<T>& out, const Parse& parse) {
  bool complete = true;
  const auto parse_list = [&](const YamlNode& list, std::vector<T>& into) -> Wrong {
    if (list.kind != YamlNode::Kind::list) {
      return "must be a list in square brackets, " + describe(list);
    }
    into.assign(list.values.size(), T{});
    for (size_t i = 0; i < into.size(); ++i) {
      const Wrong wrong = parse(*list.values[i], into[i]);
      if (wrong) reader_.problem(list.values[i]->line, item_key(key_of(name), i), *wrong);
      complete = complete && !wrong;
    }
    return {};
  };
  return read_value(name, out, parse_list) && complete;
}

bool Section::read(const std::string& name, std::string& out) {
  return read_value(name, out, parse_text);
}

bool Section::read(const std::string& name, bool& out) {
  return read_value(name, out, parse_boolean);
}

bool Section::read(const std::string& name, int32_t& out, int32_t min) {
  return read_value(
      name, out, [&](const YamlNode& node, int32_t& into) { return parse_int32(node, into, min); });
}

bool Section::read(const std::string& name, int64_t& out, Range<int64_t> range) {
  return read_value(name, out, [&](const YamlNode& node, int64_t& into) -> Wrong {
    int64_t value = 0;
    if (Wrong wrong = parse_integer(node, value)) return wrong;
    if (Wrong wrong = check_range(value, range.min, range.max, whole_text)) return wrong;
    into = value;
    return {};
  });
}

bool Section::read(const std::string& name, uint64_t& out) {
  return read_value(name, out, parse_unsigned);
}

bool Section::read(const std::string& name, double& out, Range<double> range) {
  return read_value(name, out, [&](const YamlNode& node, double& into) -> Wrong {
    double value = 0;
    if (Wrong wrong = parse_number(node, value)) return wrong;
    if (Wrong wrong = check_range(value, range.min, range.max, number_text)) return wrong;
    into = value;
    return {};
  });
}

bool Section::read(const std::string& name, Duration& out, DurationRange range) {
  return read_value(name, out, [&](const YamlNode& node, Duration& into) {
    return parse_duration_in(node, into, range);
  });
}

bool Section::read(const std::string& name, std::optional<Duration>& out,
                   std::string_view automatic) {
  const auto parse = [&](const YamlNode& node, std::optional<Duration>& into) -> Wrong {
    if (node.kind == YamlNode::Kind::scalar && node.text == automatic) {
      into.reset();
      return {};
    }
    Duration value{};
    if (Wrong wrong = parse_duration_in(node, value, {})) return wrong;
    into = value;
    return {};
  };
  return read_value(name, out, parse);
}

bool Section::read(const std::string& name, std::vector<int32_t>& out) {
  return read_list(name, out,
                   [](const YamlNode& node, int32_t& into) { return parse_int32(node, into, 0); });
}

bool Section::read(const std::string& name, std::vector<double>& out) {
  return read_list(name, out, parse_number);
}

std::vector<ListItem> Section::read(const std::string& name, std::vector<std::string>& out) {
  std::vector<ListItem> items;
  size_t index = 0;
  const auto parse = [&](const YamlNode& node, std::string& into) {
    const std::string key = item_key(key_of(name), index++);
    Wrong wrong = parse_text(node, into);
    if (!wrong) items.push_back({node.line, key, into});
    return wrong;
  };
  read_list(name, out, parse);
  return items;
}

std::optional<size_t> Section::choose(const std::string& name,
                                      const std::vector<std::string_view>& names) {
  size_t chosen = 0;
  const auto parse = [&](const YamlNode& node, size_t& into) -> Wrong {
    std::string expected;
    for (size_t i = 0; i < names.size(); ++i) {
      if (node.kind == YamlNode::Kind::scalar && node.text == names[i]) {
        into = i;
        return {};
      }
      expected += (i == 0 ? "" : i + 1 == names.size() ? " or " : ", ") + std::string(names[i]);
    }
    return "must be " + expected + ", " + describe(node);
  };
  if (!read_value(name, chosen, parse)) return {};
  return chosen;
}

}  // namespace eplbd
