// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iostream>

namespace eplbd {
namespace {

constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};

winsize size_of(int descriptor) {
  winsize size{};
  ::ioctl(descriptor, TIOCGWINSZ, &size);
  return size;
}

}  // namespace

bool is_terminal(int descriptor) { return ::isatty(descriptor) == 1; }

int terminal_columns(int descriptor) {
  const int columns = size_of(descriptor).ws_col;
  return columns > 0 ? columns : 80;
}

int terminal_rows(int descriptor) {
  const int rows = size_of(descriptor).ws_row;
  return rows > 0 ? rows : 24;
}

std::string bar(double part, int columns) {
  const int eighths = static_cast<int>(std::lround(std::clamp(part, 0.0, 1.0) * columns * 8));
  std::string text;
  for (int i = 0; i < eighths / 8; ++i) text += "█";
  return text + kEighths[eighths % 8];
}

void Screen::draw(const std::string& lines) {
  std::string text;
  if (drawn_ > 0) text = "\x1b[" + std::to_string(drawn_) + "A";
  for (size_t begin = 0; begin < lines.size();) {
    const size_t end = lines.find('\n', begin) + 1;
    text += lines.substr(begin, end - 1 - begin) + "\x1b[K\n";  // clear to the end of the line
    begin = end;
  }
  text += "\x1b[J";
  drawn_ = static_cast<int>(std::count(lines.begin(), lines.end(), '\n'));
  std::cout << text << std::flush;
}

}  // namespace eplbd
