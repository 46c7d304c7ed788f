// SPDX-License-Identifier: Apache-2.0
#include "config/yaml_node.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <sstream>

#include "core/model/utf8.h"

namespace eplbd {
namespace {

constexpr size_t kMaxLevels = 16;

struct Unreadable {
  int line;
  std::string message;
};

class TreeBuilder : public YAML::EventHandler {
 public:
  std::shared_ptr<YamlNode> root;

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (root) throw Unreadable{line_of(mark), "a second document begins; a file has one"};
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    remember(anchor, add(YamlNode::Kind::nothing, mark));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) throw Unreadable{line_of(mark), "an alias refers to itself"};
    attach(found->second);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_tag(mark, tag);
    const auto node = add(YamlNode::Kind::scalar, mark);
    node->text = value;
    node->plain = tag == "?";
    remember(anchor, node);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    begin(YamlNode::Kind::list, mark, tag, anchor);
  }
  void OnSequenceEnd() override { end(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    begin(YamlNode::Kind::map, mark, tag, anchor);
  }
  void OnMapEnd() override { end(); }

 private:
  struct Open {
    std::shared_ptr<YamlNode> node;
    YAML::anchor_t anchor;
  };

  static int line_of(const YAML::Mark& mark) { return std::max(mark.line, 0) + 1; }

  static void refuse_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!") {
      throw Unreadable{line_of(mark), "the tag " + quoted(tag) + " means nothing here"};
    }
  }
  void begin(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag,
             YAML::anchor_t anchor) {
    refuse_tag(mark, tag);
    if (open_.size() >= kMaxLevels) {
      throw Unreadable{line_of(mark), "nested over " + std::to_string(kMaxLevels) + " levels"};
    }
    open_.push_back({add(kind, mark), anchor});
  }
  void end() {
    remember(open_.back().anchor, open_.back().node);
    open_.pop_back();
  }
  std::shared_ptr<YamlNode> add(YamlNode::Kind kind, const YAML::Mark& mark) {
    auto node = std::make_shared<YamlNode>();
    node->kind = kind;
    node->line = line_of(mark);
    attach(node);
    return node;
  }
  void attach(const std::shared_ptr<YamlNode>& node) {
    if (open_.empty()) {
      root = node;
      return;
    }
    YamlNode& parent = *open_.back().node;
    const bool is_key =
        parent.kind == YamlNode::Kind::map && parent.keys.size() == parent.values.size();
    (is_key ? parent.keys : parent.values).push_back(node);
  }
  // Only when complete: an alias inside its own anchor must not find it.
  void remember(YAML::anchor_t anchor, const std::shared_ptr<YamlNode>& node) {
    if (anchor != 0) anchors_[anchor] = node;
  }

  std::vector<Open> open_;
  std::map<YAML::anchor_t, std::shared_ptr<YamlNode>> anchors_;
};

int line_at(std::string_view text, size_t offset) {
  return 1 + static_cast<int>(std::count(text.begin(), text.begin() + offset, '\n'));
}

// yaml-cpp takes some tabs for spaces and blames others on a wrong line.
void find_tab(std::string_view text) {
  int line = 1;
  for (size_t begin = 0; begin < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view content = text.substr(begin, end - begin);
    const size_t first = content.find_first_not_of(" \t\r");
    if (first != content.npos && content[first] != '#' &&
        content.substr(0, first).find('\t') != content.npos) {
      throw Unreadable{line, "a tab indents this line; YAML wants spaces"};
    }
    begin = end + 1;
  }
}

std::shared_ptr<YamlNode> build_tree(std::string_view text) {
  if (text.size() > kMaxConfigBytes) throw Unreadable{1, "over 1 MiB: not a configuration file"};
  if (const size_t offset = find_unprintable(text, "\t\r\n"); offset < text.size()) {
    const auto byte = static_cast<unsigned char>(text[offset]);
    throw Unreadable{line_at(text, offset),
                     fmt::format("the byte 0x{:02x} is not UTF-8 text", byte)};
  }
  find_tab(text);
  // The end is marked: yaml-cpp takes the end of the text for the end of an open quote.
  std::istringstream stream{std::string(text) + "\n...\n"};
  TreeBuilder builder;
  YAML::Parser parser(stream);
  try {
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& e) {
    const int last = line_at(text, text.size());
    if (e.mark.line < last) throw;
    throw Unreadable{last, "the file ends inside a quoted text, a list or a section"};
  }
  return builder.root;
}

}  // namespace

YamlNodePtr parse_yaml(std::string_view text, std::vector<ConfigProblem>& problems) {
  try {
    auto root = build_tree(text);
    if (root && root->kind != YamlNode::Kind::nothing) return root;
    root = std::make_shared<YamlNode>();
    root->kind = YamlNode::Kind::map;
    return root;
  } catch (const Unreadable& e) {
    problems.push_back({e.line, "yaml", e.message});
  } catch (const YAML::Exception& e) {
    problems.push_back({std::max(e.mark.line, 0) + 1, "yaml", e.msg});
  }
  return nullptr;
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace eplbd
