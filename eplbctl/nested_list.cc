// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/nested_list.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "core/model/utf8.h"

namespace eplbd {
namespace {

using nlohmann::json;

std::string place(const std::string& name, const std::vector<size_t>& indices, size_t depth) {
  std::string text = name;
  for (size_t d = 0; d < depth; ++d) text += "[" + std::to_string(indices[d]) + "]";
  return text.empty() ? "the list" : text;
}

// Depth-first over a tree of at most three levels, without recursion.
class Reader {
 public:
  Reader(const json& list, const std::string& name) : name_(name) { measure(list); }

  NestedList read(const json& list) {
    std::vector<size_t> indices(result_.shape.size(), 0);
    std::vector<const json*> at = {&list};
    while (!at.empty()) {
      const size_t depth = at.size();
      const json& node = *at.back();
      if (indices[depth - 1] == 0) check_length(node, indices, depth - 1);
      if (indices[depth - 1] == node.size()) {
        indices[depth - 1] = 0;
        at.pop_back();
        if (!at.empty()) ++indices[at.size() - 1];
      } else if (depth == result_.shape.size()) {
        read_row(node, indices);
        indices[depth - 1] = node.size();
      } else {
        at.push_back(&node[indices[depth - 1]]);
      }
    }
    return std::move(result_);
  }

  size_t dimensions() const { return result_.shape.size(); }

 private:
  void measure(const json& list) {
    const json* node = &list;
    while (node->is_array()) {
      result_.shape.push_back(static_cast<int64_t>(node->size()));
      if (node->empty()) break;
      node = &node->front();
    }
  }
  void check_length(const json& node, const std::vector<size_t>& indices, size_t depth) const {
    if (!node.is_array()) {
      throw std::runtime_error(place(name_, indices, depth) + ": a list expected, found " +
                               node.type_name());
    }
    if (node.size() != static_cast<size_t>(result_.shape[depth])) {
      throw std::runtime_error(place(name_, indices, depth) + " has " +
                               std::to_string(node.size()) + " items, those before it " +
                               std::to_string(result_.shape[depth]));
    }
  }
  void read_row(const json& row, std::vector<size_t>& indices) {
    for (const json& value : row) {
      if (!value.is_number()) {
        throw std::runtime_error(place(name_, indices, indices.size()) +
                                 ": a number expected, found " + value.type_name());
      }
      result_.values.push_back(value.get<double>());
      ++indices.back();
    }
  }

  const std::string name_;
  NestedList result_;
};

}  // namespace

NestedList read_nested_list(const json& list, const std::string& name, int fewest, int most) {
  if (!list.is_array()) {
    throw std::runtime_error(place(name, {}, 0) + ": a list expected, found " + list.type_name());
  }
  Reader reader(list, name);
  const int dimensions = static_cast<int>(reader.dimensions());
  if (dimensions < fewest || dimensions > most) {
    throw std::runtime_error(place(name, {}, 0) + " has " + std::to_string(dimensions) +
                             " dimensions, " + std::to_string(fewest) +
                             (most > fewest ? " to " + std::to_string(most) : "") + " expected");
  }
  return reader.read(list);
}

json parse_json(const std::string& text) {
  try {
    return json::parse(text);
  } catch (const json::parse_error& error) {
    constexpr size_t kShown = 24;
    const size_t at = std::min(error.byte > 0 ? error.byte - 1 : 0, text.size());
    const auto end = text.begin() + static_cast<ptrdiff_t>(at);
    const auto line = std::count(text.begin(), end, '\n') + 1;
    throw std::runtime_error("line " + std::to_string(line) + ": it is no JSON: " +
                             (end == text.end()
                                  ? "it ends too early"
                                  : "\"" + printable_line(text.substr(at, kShown), kShown) +
                                        "\" is not expected there"));
  } catch (const json::exception&) {  // a number that is none
    throw std::runtime_error("it is no JSON: a number is out of range");
  }
}

}  // namespace eplbd
