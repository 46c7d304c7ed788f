// SPDX-License-Identifier: Apache-2.0
#include "config/key_reader.h"

#include <algorithm>

#include "config/nearest.h"
#include "core/model/utf8.h"

namespace eplbd {
namespace {

std::string join(const std::string& section, const std::string& name) {
  return section.empty() ? name : section + "." + name;
}

// A key in a message: as it is where it can be, else quoted and on one line.
std::string shown(const std::string& name) {
  const bool simple = !name.empty() && name.size() <= 60 &&
                      name.find_first_of(" :\"") == std::string::npos && is_printable_utf8(name);
  return simple ? name : quoted(std::string_view(name).substr(0, 60));
}

}  // namespace

std::string item_key(const std::string& list, size_t index) {
  return list + "[" + std::to_string(index) + "]";
}

void Findings::problem(const std::string& key, std::string message) {
  std::string place = key;
  while (!place.empty() && !lines_.contains(place)) {
    const size_t last = place.find_last_of(".[");
    place.resize(last == place.npos ? 0 : last);
  }
  problem_at(place.empty() ? 1 : lines_.at(place), key, std::move(message));
}

bool Findings::sound(const std::string& key) const {
  return std::none_of(unsound_.begin(), unsound_.end(), [&](const std::string& unsound) {
    const bool below = unsound.starts_with(key) && unsound.size() > key.size() &&
                       (unsound[key.size()] == '.' || unsound[key.size()] == '[');
    return unsound == key || below;
  });
}

std::string Findings::hint(const Unknown& unknown) const {
  std::vector<std::string> here;
  for (const auto& [section, name] : known_) {
    if (section == unknown.section) here.push_back(name);
  }
  if (const auto best = nearest(unknown.name, here)) {
    return "unknown key; did you mean " + join(unknown.section, *best) + "?";
  }
  std::string names;
  for (const std::string& name : here) names += (names.empty() ? "" : ", ") + name;
  for (const auto& [section, name] : known_) {
    if (name == unknown.name) return "unknown key here; did you mean " + join(section, name) + "?";
  }
  return "unknown key; known here: " + names;
}

std::vector<ConfigProblem> Findings::finish() {
  for (const Unknown& unknown : unknown_) {
    const std::string message =
        unknown.name == "<<" ? "merge keys are not read; write the values out" : hint(unknown);
    problem_at(unknown.line, join(unknown.section, shown(unknown.name)), message);
  }
  unknown_.clear();
  std::stable_sort(problems_.begin(), problems_.end(),
                   [](const ConfigProblem& a, const ConfigProblem& b) { return a.line < b.line; });
  return problems_;
}

KeyReader::KeyReader(Findings& found, const YamlNode* node, std::string path, int line,
                     bool required)
    : found_(found),
      path_(std::move(path)),
      line_(line),
      stands_(node != nullptr),
      required_(required) {
  found_.lines_[path_] = line;
  if (!node || node->kind == YamlNode::Kind::nothing) return;
  const std::string place = path_.empty() ? "yaml" : path_;
  if (node->kind != YamlNode::Kind::map) {
    stands_ = false;
    found_.problem_at(line_, place, "must be a section of keys with values, " + describe(*node));
    return;
  }
  for (size_t i = 0; i < node->keys.size(); ++i) {
    const YamlNode& key = *node->keys[i];
    if (key.kind != YamlNode::Kind::scalar) {
      found_.problem_at(key.line, place, "a key must be text, " + describe(key));
      continue;
    }
    const std::string& name = key.text;
    const auto [entry, inserted] =
        entries_.try_emplace(name, Entry{key.line, node->values[i].get()});
    if (!inserted) {
      found_.problem_at(key.line, join(path_, shown(name)),
                        "duplicate key, first on line " + std::to_string(entry->second.line));
    }
  }
}

KeyReader::~KeyReader() {
  for (const auto& [name, entry] : entries_) {
    if (!asked_.contains(name)) found_.unknown_.push_back({entry.line, path_, name});
  }
}

std::string KeyReader::key_of(const std::string& name) const { return join(path_, name); }

const KeyReader::Entry* KeyReader::ask(const std::string& name) {
  asked_.insert(name);
  found_.known_.emplace_back(path_, name);
  const auto entry = entries_.find(name);
  if (entry == entries_.end()) return nullptr;
  found_.lines_[key_of(name)] = entry->second.line;
  found_.given_.insert(key_of(name));
  return &entry->second;
}

void KeyReader::missing(const std::string& name, const std::string& meaning) {
  misses_ = true;
  found_.unsound_.insert(key_of(name));
  if (required_ && stands_) found_.problem_at(line_, key_of(name), "is required: " + meaning);
}

void KeyReader::report(const std::string& name, int line, std::string message) {
  found_.unsound_.insert(key_of(name));
  found_.problem_at(line, key_of(name), std::move(message));
}

}  // namespace eplbd
