// A terminal that is drawn anew again and again.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace eplbd {

bool is_terminal(int descriptor);
int terminal_columns(int descriptor);  // 80 where it does not say
int terminal_rows(int descriptor);     // 24 where it does not say

// A bar of `columns` cells, filled to `part` (0..1) in eighths of a cell.
std::string bar(double part, int columns);

// Draws over what it drew before. Lines must not be wider than the terminal.
class Screen {
 public:
  void draw(const std::string& lines);  // each ends in a newline
 private:
  int drawn_ = 0;  // lines
};

}  // namespace eplbd
