// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/unpack.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>
#include <vector>

namespace eplbd {
namespace {

// What is unpacked is held in memory.
constexpr size_t kMostBytes = size_t{4} << 30;
constexpr size_t kChunk = 1 << 16;
constexpr int kGzip = 16 + MAX_WBITS;
constexpr int kRaw = -MAX_WBITS;
constexpr auto kPreferred = std::to_array<std::string_view>(
    {"counts", "loads", "logical_count", "physical_to_logical_map"});

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

class Inflater {
 public:
  explicit Inflater(int window_bits) {
    if (inflateInit2(&stream_, window_bits) != Z_OK) throw std::bad_alloc();
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // One member; what is behind it stays in `packed`.
  void read(std::string_view& packed, std::string& out) {
    std::array<char, kChunk> chunk;
    int status = Z_OK;
    while (status != Z_STREAM_END) {
      const size_t taken = std::min<size_t>(packed.size(), std::numeric_limits<uInt>::max());
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
      stream_.avail_in = static_cast<uInt>(taken);
      stream_.next_out = reinterpret_cast<Bytef*>(chunk.data());
      stream_.avail_out = kChunk;
      status = inflate(&stream_, Z_NO_FLUSH);
      packed.remove_prefix(taken - stream_.avail_in);
      if (status == Z_BUF_ERROR) fail("it is truncated: its packed data have no end");
      if (status != Z_OK && status != Z_STREAM_END) fail("its packed data are damaged");
      out.append(chunk.data(), kChunk - stream_.avail_out);
      if (out.size() > kMostBytes) fail("it unpacks to more than 4 GiB: unpack it, or cut it");
    }
    inflateReset(&stream_);
  }

 private:
  z_stream stream_{};
};

// Little-endian fields of a ZIP record.
class Fields {
 public:
  Fields(std::string_view bytes, size_t at) : bytes_(bytes.substr(std::min(at, bytes.size()))) {}

  uint64_t number(size_t at, size_t size) const {
    if (at + size > bytes_.size()) fail("its archive is damaged or truncated");
    uint64_t value = 0;
    for (size_t i = size; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes_[at + i]);
    return value;
  }
  std::string_view text(uint64_t at, uint64_t size) const {
    if (at > bytes_.size() || size > bytes_.size() - at) {
      fail("its archive is damaged or truncated");
    }
    return bytes_.substr(at, size);
  }

 private:
  std::string_view bytes_;
};

struct Member {
  std::string_view name;
  uint64_t method = 0;
  uint64_t size = 0;    // packed
  uint64_t header = 0;  // where its own begins
};

// Of an archive over 4 GiB, or of streams, the sizes stand in an extra field (ID 1).
void read_zip64(std::string_view extra, uint64_t unpacked, Member& member) {
  constexpr uint64_t kElsewhere = 0xffffffff;
  while (extra.size() >= 4) {
    const Fields field(extra, 0);
    const std::string_view content = field.text(4, field.number(2, 2));
    if (field.number(0, 2) == 1) {
      size_t at = unpacked == kElsewhere ? 8 : 0;
      for (uint64_t* value : {&member.size, &member.header}) {
        if (*value != kElsewhere) continue;
        *value = Fields(content, 0).number(at, 8);
        at += 8;
      }
    }
    extra.remove_prefix(4 + content.size());
  }
}

std::vector<Member> members_of(std::string_view archive) {
  const size_t end = archive.rfind("PK\5\6");
  if (end == std::string_view::npos) fail("it is truncated: its archive has no directory");
  uint64_t count = Fields(archive, end).number(10, 2);
  uint64_t at = Fields(archive, end).number(16, 4);
  if (at == 0xffffffff) {
    const size_t end64 = archive.rfind("PK\6\6", end);
    if (end64 == std::string_view::npos) fail("its archive is damaged");
    count = Fields(archive, end64).number(32, 8);
    at = Fields(archive, end64).number(48, 8);
  }
  std::vector<Member> members;
  for (; count > 0; --count) {
    const Fields entry(archive, at);
    if (entry.text(0, 4) != "PK\1\2") fail("its archive is damaged");
    const uint64_t name = entry.number(28, 2);
    const uint64_t extra = entry.number(30, 2);
    Member member{entry.text(46, name), entry.number(10, 2), entry.number(20, 4),
                  entry.number(42, 4)};
    read_zip64(entry.text(46 + name, extra), entry.number(24, 4), member);
    members.push_back(member);
    at += 46 + name + extra + entry.number(32, 2);
  }
  return members;
}

std::string content_of(std::string_view archive, const Member& member) {
  const Fields local(archive, member.header);
  if (local.text(0, 4) != "PK\3\4") fail("its archive is damaged");
  std::string_view packed = local.text(30 + local.number(26, 2) + local.number(28, 2), member.size);
  if (member.method == 0) return std::string(packed);
  if (member.method != Z_DEFLATED) fail("its archive is packed in a way that cannot be read");
  std::string out;
  Inflater(kRaw).read(packed, out);
  return out;
}

std::string_view array_name(const Member& member) {
  return member.name.substr(0, member.name.size() - std::string_view(".npy").size());
}

}  // namespace

std::string gunzip(std::string_view packed) {
  Inflater inflater(kGzip);
  std::string out;
  do {
    inflater.read(packed, out);
  } while (packed.starts_with("\x1f\x8b"));
  return out;
}

std::string npz_array(std::string_view archive) {
  std::vector<Member> arrays;
  for (const Member& member : members_of(archive)) {
    if (member.name.ends_with("data.pkl")) {
      fail("it is a PyTorch file; convert it: python3 -m eplbd convert FILE.pt FILE.npy");
    }
    if (member.name.ends_with(".npy")) arrays.push_back(member);
  }
  if (arrays.size() == 1) return content_of(archive, arrays.front());
  std::string names;
  for (const Member& array : arrays) {
    const auto name = array_name(array);
    if (std::find(kPreferred.begin(), kPreferred.end(), name) != kPreferred.end()) {
      return content_of(archive, array);
    }
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  if (names.empty()) fail("it is a ZIP archive, but no .npz: no array is in it");
  fail("it holds the arrays " + names + ", of which none is called counts, loads, logical_count " +
       "or physical_to_logical_map: save one alone, with numpy.save");
}

}  // namespace eplbd
