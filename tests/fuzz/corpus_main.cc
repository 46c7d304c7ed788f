// A fuzz target without libFuzzer, for every compiler and sanitizer: each file of its corpus, and
// so many mutations of each, the same ones every time.
//
//   fuzz_X FOLDER MUTATIONS
//
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

// SplitMix64 (Steele, Lea, Flood 2014).
class Random {
 public:
  size_t below(size_t bound) {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (z ^ z >> 31) % bound;
  }

 private:
  uint64_t state_ = 1;
};

std::string mutated(std::string bytes, const std::string& other, Random& random) {
  for (size_t changes = 1 + random.below(4); changes > 0; --changes) {
    const size_t at = random.below(bytes.size() + 1);
    switch (random.below(6)) {
      case 0:
        if (at < bytes.size()) bytes[at] = static_cast<char>(bytes[at] ^ 1 << random.below(8));
        break;
      case 1:
        bytes.insert(at, 1 + random.below(8), static_cast<char>(random.below(256)));
        break;
      case 2:
        bytes.erase(at, 1 + random.below(16));
        break;
      case 3:
        bytes.resize(at);
        break;
      case 4: {  // bytes that are edges of numbers
        static constexpr char kEdges[] = {'\x00', '\x7f', '\x80', '\xff', '-', '9'};
        const size_t size = std::min<size_t>(1 + random.below(8), bytes.size() - at);
        std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(at), size, kEdges[random.below(6)]);
        break;
      }
      case 5:
        bytes.insert(at, other.substr(random.below(other.size() + 1), random.below(64)));
        break;
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) files.push_back(entry);
  std::sort(files.begin(), files.end());
  std::vector<std::string> corpus;
  for (const auto& file : files) {
    std::ostringstream bytes;
    bytes << std::ifstream(file, std::ios::binary).rdbuf();
    corpus.push_back(bytes.str());
  }
  if (corpus.empty()) return 2;
  const auto run = [](const std::string& bytes) {
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  };
  for (const std::string& seed : corpus) run(seed);
  Random random;
  const long mutations = std::atol(argv[2]);
  for (long i = 0; i < mutations; ++i) {
    for (const std::string& seed : corpus) {
      run(mutated(seed, corpus[random.below(corpus.size())], random));
    }
  }
  std::printf("%zu files, %ld mutations of each\n", corpus.size(), mutations);
  return 0;
}
