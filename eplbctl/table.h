// Tables of numbers as text: comma, semicolon, tab or blanks between columns, with a heading or
// not.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "eplbctl/nested_list.h"

namespace eplbd {

// By its first line: numbers, or several columns of which none has a colon as YAML's do.
bool looks_like_table(std::string_view text);

// Loads [steps, layers, experts]. Without a heading, and with one that names no `layer` and no
// `step`: a line is a layer, a column an expert. With `layer`, `expert` and one more: a line is a
// cell, the others are 0. With `layer` or `step` or both: the other columns are experts; without
// `layer`, the lines of a step are its layers. Layers and steps are taken in the order of their
// numbers, which may begin anywhere. Lines that begin with # are skipped.
// Throws std::runtime_error: what is wrong, with its line.
NestedList read_table_loads(std::string_view text);

// As it stands: [lines, columns], a heading skipped.
NestedList read_table(std::string_view text);

}  // namespace eplbd
