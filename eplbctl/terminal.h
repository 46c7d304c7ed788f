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

int characters_of(const std::string& text);  // of UTF-8
// With blanks behind it, so that it takes `columns`.
std::string padded(const std::string& text, int columns);

// The first `rows` lines of UTF-8, each of at most `columns` characters.
std::string clip_lines(const std::string& text, int columns, int rows);

// Lines that are longer than `columns` go on below, between words, `indent` columns in.
std::string wrap_lines(const std::string& text, int columns, int indent);

// Draws over what it drew before.
class Screen {
 public:
  // Each line ends in a newline and is no wider than the terminal; there are fewer than its rows.
  void draw(const std::string& lines);

 private:
  int drawn_ = 0;  // lines
};

}  // namespace eplbd
