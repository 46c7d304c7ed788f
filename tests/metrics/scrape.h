// Reads Prometheus text format 0.0.4 back, strictly: what it cannot read fails the test.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

namespace eplbd {

class Scrape {
 public:
  using Labels = std::map<std::string, std::string>;
  struct Sample {
    std::string name;
    Labels labels;
    double value = 0;
  };

  explicit Scrape(const std::string& text);

  const std::vector<Sample>& samples() const { return samples_; }
  const std::map<std::string, std::string>& types() const { return types_; }  // of families
  bool has(const std::string& name) const { return series(name) > 0; }
  int series(const std::string& name) const;
  // Of the one sample that has these labels beside `deployment`; fails the test otherwise.
  double value(const std::string& name, Labels labels = {}) const;

 private:
  std::vector<Sample> samples_;
  std::map<std::string, std::string> types_;
};

}  // namespace eplbd
