// A folder for one test, gone at its end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>

namespace eplbd {

class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "eplbd-test-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  void write(const std::string& name, const std::string& bytes) const {
    std::ofstream(*this / name, std::ios::binary) << bytes;
  }
  void write_secret(const std::string& name, const std::string& bytes) const {
    write(name, bytes);
    std::filesystem::permissions(*this / name, std::filesystem::perms(0600));
  }
  std::string read(const std::string& name) const {
    std::ostringstream bytes;
    bytes << std::ifstream(*this / name, std::ios::binary).rdbuf();
    return bytes.str();
  }
  bool has(const std::string& name) const { return std::filesystem::exists(*this / name); }
  int count(const std::string& beginning) const {
    int found = 0;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      found += entry.path().filename().string().rfind(beginning, 0) == 0 ? 1 : 0;
    }
    return found;
  }

 private:
  std::string path_;
};

}  // namespace eplbd
