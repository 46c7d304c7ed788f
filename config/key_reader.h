// Walks the keys of a configuration beside the YAML text: every value is read and checked, every
// problem collected with its line, and what no key asked for is an unknown key.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/config.h"
#include "config/keys.h"
#include "config/yaml_node.h"
#include "config/yaml_scalar.h"

namespace eplbd {

// What was found in one file. Keys are whole: trigger.imbalance, endpoints.counts.bind[1].
class Findings {
 public:
  // On the line where the key stands, else its section.
  void problem(const std::string& key, std::string message);
  void problem_at(int line, std::string key, std::string message) {
    problems_.push_back({line, std::move(key), std::move(message)});
  }
  bool given(const std::string& key) const { return given_.contains(key); }
  // Whether neither the key nor one below it has a wrong value or misses a required one.
  bool sound(const std::string& key) const;

  // All problems in order of their lines; unknown keys with the nearest known one.
  std::vector<ConfigProblem> finish();

 private:
  friend class KeyReader;
  struct Unknown {
    int line;
    std::string section;  // "" at the top
    std::string name;
  };
  std::string hint(const Unknown& unknown) const;

  std::vector<ConfigProblem> problems_;
  std::vector<std::pair<std::string, std::string>> known_;  // section, name; in reading order
  std::vector<Unknown> unknown_;
  std::map<std::string, int> lines_;  // of what is given, and of every section
  std::set<std::string> given_;
  std::set<std::string> unsound_;
};

std::string item_key(const std::string& list, size_t index);

// Of one section. visit(options, reader) fills `options`, and leaves alone what is missing or
// wrong.
class KeyReader {
 public:
  // The whole file. `required`: whether keys without a default must be given.
  KeyReader(Findings& found, const YamlNode& root, bool required)
      : KeyReader(found, &root, "", 1, required) {}
  // Reports the keys that were not asked for.
  ~KeyReader();
  KeyReader(const KeyReader&) = delete;
  KeyReader& operator=(const KeyReader&) = delete;

  template <typename T>
  void operator()(const char* name, T& value, const char* meaning, BoundsOf<T> bounds = {}) {
    const Entry* entry = ask(name);
    if (entry == nullptr) {
      if (must_be_given(value, bounds)) missing(name, meaning);
    } else if (const Wrong wrong = read(*entry, name, value, bounds)) {
      report(name, entry->line, *wrong);
    }
  }

  template <typename Options>
  void section(const char* name, Options& options, const char* meaning) {
    const Entry* entry = ask(name);
    const YamlNode* node = entry == nullptr ? nullptr : entry->value;
    const int line = entry == nullptr ? line_ : entry->line;
    KeyReader reader(found_, node, key_of(name), line, required_);
    visit(options, reader);
    if (entry == nullptr && reader.misses_) missing(name, meaning);
  }

 private:
  struct Entry {
    int line;
    const YamlNode* value;
  };

  KeyReader(Findings& found, const YamlNode* node, std::string path, int line, bool required);
  std::string key_of(const std::string& name) const;
  const Entry* ask(const std::string& name);
  void missing(const std::string& name, const std::string& meaning);
  void report(const std::string& name, int line, std::string message);

  template <typename T>
  Wrong read(const Entry& entry, const char*, T& value, const BoundsOf<T>& bounds) {
    T parsed = value;
    Wrong wrong = parse(*entry.value, parsed, bounds);
    if (!wrong) value = parsed;
    return wrong;
  }
  // Of a list each wrong element has a message of its own.
  template <typename T>
  Wrong read(const Entry& entry, const char* name, std::vector<T>& value, const Bounds<T>& bounds) {
    const YamlNode& list = *entry.value;
    if (list.kind != YamlNode::Kind::list) {
      return "must be a list in square brackets, " + describe(list);
    }
    value.assign(list.values.size(), T{});
    for (size_t i = 0; i < value.size(); ++i) {
      const YamlNode& item = *list.values[i];
      const std::string item_name = item_key(name, i);
      found_.lines_[key_of(item_name)] = item.line;
      if (const Wrong wrong = parse(item, value[i], bounds)) report(item_name, item.line, *wrong);
    }
    return {};
  }

  Findings& found_;
  std::string path_;
  int line_;
  bool stands_;  // in the file, as a section: else nobody wants to hear of each key that misses
  bool required_;
  bool misses_ = false;
  std::map<std::string, Entry> entries_;
  std::set<std::string> asked_;
};

}  // namespace eplbd
