// A file with a content, gone with its object.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>

namespace eplbd {

class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& content, const std::string& suffix = "") {
    char name[] = "/tmp/eplbctl_test_XXXXXX";
    ::close(::mkstemp(name));
    unlinked_ = name;
    name_ = name + suffix;
    std::ofstream(name_, std::ios::binary) << content;
  }
  ~TemporaryFile() {
    std::remove(unlinked_.c_str());
    std::remove(name_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& name() const { return name_; }

 private:
  std::string unlinked_;
  std::string name_;
};

}  // namespace eplbd
