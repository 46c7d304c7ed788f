// SPDX-License-Identifier: Apache-2.0
#include "daemon/formats/npy.h"

#include <charconv>
#include <cstring>
#include <limits>
#include <optional>
#include <stdexcept>

namespace eplbd {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kAlignment = 64;

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

// The header is a Python dict literal with three keys; what numpy writes has one spelling, other
// writers differ in spaces and quotes.
class DictReader {
 public:
  explicit DictReader(std::string_view text) : text_(text) {}

  NpyHeader read() {
    NpyHeader header;
    std::optional<std::string> descr;
    std::optional<bool> fortran;
    bool shape = false;
    expect('{');
    while (!take('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr" && !descr) {
        descr = quoted();
      } else if (key == "fortran_order" && !fortran) {
        fortran = boolean();
      } else if (key == "shape" && !shape) {
        header.shape = tuple();
        shape = true;
      } else {
        fail("its header repeats the key '" + key + "', or should not have it");
      }
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    if (!descr || !fortran || !shape) fail("its header lacks descr, fortran_order or shape");
    header.type = type_of(*descr);
    if (*fortran && header.shape.size() > 1) {
      fail("it is in Fortran order; save it with numpy.ascontiguousarray");
    }
    return header;
  }

 private:
  void skip_spaces() {
    while (!text_.empty() && (text_.front() == ' ' || text_.front() == '\n')) {
      text_.remove_prefix(1);
    }
  }
  bool take(char c) {
    skip_spaces();
    if (text_.empty() || text_.front() != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail(std::string("its header is damaged: '") + c + "' expected");
  }
  std::string quoted() {
    skip_spaces();
    const char quote = text_.empty() ? '\0' : text_.front();
    if (quote == '[') fail("it holds records; an array of numbers is needed");
    const size_t end =
        quote == '\'' || quote == '"' ? text_.find(quote, 1) : std::string_view::npos;
    if (end == std::string_view::npos) fail("its header is damaged: a string expected");
    std::string value(text_.substr(1, end - 1));
    text_.remove_prefix(end + 1);
    return value;
  }
  bool boolean() {
    skip_spaces();
    for (const auto& [word, value] : {std::pair("True", true), std::pair("False", false)}) {
      if (text_.starts_with(word)) {
        text_.remove_prefix(std::strlen(word));
        return value;
      }
    }
    fail("its header is damaged: True or False expected");
  }
  std::vector<int64_t> tuple() {
    std::vector<int64_t> values;
    expect('(');
    while (!take(')')) {
      skip_spaces();
      int64_t value = -1;
      const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), value);
      if (error != std::errc() || value < 0) fail("its header is damaged: a size expected");
      text_.remove_prefix(end - text_.data());
      values.push_back(value);
      if (!take(',')) {
        expect(')');
        break;
      }
    }
    return values;
  }
  static NpyType type_of(const std::string& descr) {
    std::string name = descr;
    if (name.starts_with('=') || name.starts_with('|')) name[0] = '<';
    if (const auto type = from_name<NpyType>(name)) return *type;
    if (descr.starts_with('>')) {
      fail("it is big-endian (" + descr + "); save it with .astype('<" + descr.substr(1) + "')");
    }
    fail("its type is " + descr +
         "; int32, int64, uint32, uint64, float32 and float64 can be read");
  }

  std::string_view text_;
};

// f(T{}) for the C++ type that an element has.
template <typename F>
auto with_type(NpyType type, const F& f) {
  switch (type) {
    case NpyType::int32:
      return f(int32_t{});
    case NpyType::int64:
      return f(int64_t{});
    case NpyType::uint32:
      return f(uint32_t{});
    case NpyType::uint64:
      return f(uint64_t{});
    case NpyType::float32:
      return f(float{});
    case NpyType::float64:
      break;
  }
  return f(double{});
}

}  // namespace

size_t size_of(NpyType type) {
  return with_type(type, [](auto value) { return sizeof(value); });
}

int64_t NpyHeader::elements() const {
  int64_t elements = 1;
  for (const int64_t size : shape) {
    if (size != 0 && elements > std::numeric_limits<int64_t>::max() / 8 / size) {
      fail("its shape is too large");
    }
    elements *= size;
  }
  return elements;
}

NpyHeader read_npy_header(std::span<const std::byte> file) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (!text.starts_with(kMagic)) fail("it is no .npy file");
  const auto byte = [&](size_t at) {
    if (at >= file.size()) fail("it is truncated in its header");
    return static_cast<size_t>(file[at]);
  };
  const size_t version = byte(kMagic.size());
  if (version < 1 || version > 3) {
    fail("its .npy format version is " + std::to_string(version) + "; 1 to 3 can be read");
  }
  const size_t length_at = kMagic.size() + 2;
  const size_t length_bytes = version == 1 ? 2 : 4;
  size_t length = 0;
  for (size_t i = length_bytes; i-- > 0;) length = length << 8 | byte(length_at + i);
  const size_t start = length_at + length_bytes;
  if (file.size() - start < length) fail("it is truncated in its header");

  NpyHeader header = DictReader(text.substr(start, length)).read();
  header.data_offset = start + length;
  const size_t bytes = static_cast<size_t>(header.elements()) * size_of(header.type);
  const size_t there = file.size() - header.data_offset;
  if (there != bytes) {
    fail((there < bytes ? "it is truncated: " : "it has bytes behind its end: ") +
         std::to_string(there) + " bytes of data, its shape needs " + std::to_string(bytes));
  }
  return header;
}

double npy_element(const NpyHeader& header, std::span<const std::byte> file, int64_t index) {
  const size_t at = header.data_offset + static_cast<size_t>(index) * size_of(header.type);
  return with_type(header.type, [&](auto value) {
    std::memcpy(&value, file.data() + at, sizeof(value));
    return static_cast<double>(value);
  });
}

std::string npy_header(NpyType type, std::span<const int64_t> shape) {
  std::string dict = "{'descr': '";
  dict += to_string(type);
  dict += "', 'fortran_order': False, 'shape': (";
  for (const int64_t size : shape) dict += std::to_string(size) + ", ";
  dict += "), }";
  const size_t prefix = kMagic.size() + 4;
  dict.append(kAlignment - 1 - (prefix + dict.size()) % kAlignment, ' ');
  dict += '\n';
  std::string header(kMagic);
  header +=
      {'\x01', '\0', static_cast<char>(dict.size() & 0xff), static_cast<char>(dict.size() >> 8)};
  return header + dict;
}

}  // namespace eplbd
