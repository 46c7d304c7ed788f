// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <sstream>

namespace eplbd {
namespace {

constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};

// The first `columns` characters of a line of UTF-8.
std::string clip(const std::string& text, size_t columns) {
  size_t characters = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((text[i] & 0xc0) != 0x80 && characters++ == columns) return text.substr(0, i);
  }
  return text;
}

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

int characters_of(const std::string& text) {
  return static_cast<int>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string padded(const std::string& text, int columns) {
  return text + std::string(static_cast<size_t>(std::max(0, columns - characters_of(text))), ' ');
}

std::string clip_lines(const std::string& text, int columns, int rows) {
  std::string clipped;
  size_t begin = 0;
  for (int row = 0; row < rows && begin < text.size(); ++row) {
    const size_t end = text.find('\n', begin);
    clipped += clip(text.substr(begin, end - begin), static_cast<size_t>(columns)) + "\n";
    begin = end + 1;
  }
  return clipped;
}

std::string wrap_lines(const std::string& text, int columns, int indent) {
  std::istringstream lines(text);
  std::string wrapped;
  for (std::string line; std::getline(lines, line);) {
    while (characters_of(line) > columns) {
      const std::string head = clip(line, static_cast<size_t>(columns) + 1);
      const size_t blank = head.rfind(' ');
      if (blank == std::string::npos || blank <= static_cast<size_t>(indent)) break;
      wrapped += line.substr(0, blank) + "\n";
      line = std::string(static_cast<size_t>(indent), ' ') + line.substr(blank + 1);
    }
    wrapped += line + "\n";
  }
  return wrapped;
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
