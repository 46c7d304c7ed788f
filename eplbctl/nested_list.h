// Rectangular nested lists of numbers in JSON, as arrays: every dimension's length is checked and
// an odd one out is named by its place.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace eplbd {

struct NestedList {
  std::vector<int64_t> shape;
  std::vector<double> values;  // C order
};

// Throws std::runtime_error, for example "logical_count[3][7]: a number expected, found a string".
// `name` is what the list is called there; dimensions: the fewest and most allowed.
NestedList read_nested_list(const nlohmann::json& list, const std::string& name, int fewest,
                            int most);

// Parses a whole file; throws std::runtime_error with line and column for what is no JSON.
nlohmann::json parse_json(const std::string& text);

}  // namespace eplbd
