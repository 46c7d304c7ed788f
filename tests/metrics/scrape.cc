// SPDX-License-Identifier: Apache-2.0
#include "tests/metrics/scrape.h"

#include <catch2/catch.hpp>
#include <sstream>

namespace eplbd {
namespace {

// {name="value",...} from `at`, with \\, \" and \n taken back.
Scrape::Labels read_labels(const std::string& line, size_t& at) {
  Scrape::Labels labels;
  if (line[at] != '{') return labels;
  while (line[at] != '}') {
    const size_t equals = line.find("=\"", ++at);
    REQUIRE(equals != std::string::npos);
    const std::string name = line.substr(at, equals - at);
    std::string value;
    for (at = equals + 2; line.at(at) != '"'; ++at) {
      if (line[at] == '\\') {
        ++at;
        value += line.at(at) == 'n' ? '\n' : line.at(at);
      } else {
        value += line[at];
      }
    }
    labels[name] = value;
    ++at;
    REQUIRE((line.at(at) == ',' || line.at(at) == '}'));
  }
  ++at;
  return labels;
}

}  // namespace

Scrape::Scrape(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("# TYPE ", 0) == 0) {
      std::istringstream words(line.substr(7));
      std::string name, type;
      words >> name >> type;
      REQUIRE(types_.emplace(name, type).second);  // a family stands in one piece
    }
    if (line.empty() || line[0] == '#') continue;
    Sample sample;
    size_t at = line.find_first_of("{ ");
    REQUIRE(at != std::string::npos);
    sample.name = line.substr(0, at);
    sample.labels = read_labels(line, at);
    sample.value = std::stod(line.substr(at));
    samples_.push_back(sample);
  }
}

int Scrape::series(const std::string& name) const {
  int found = 0;
  for (const Sample& sample : samples_) found += sample.name == name ? 1 : 0;
  return found;
}

double Scrape::value(const std::string& name, Labels labels) const {
  const Sample* found = nullptr;
  for (const Sample& sample : samples_) {
    Labels own = sample.labels;
    own.erase("deployment");
    if (sample.name != name || own != labels) continue;
    INFO(name << " twice");
    REQUIRE(found == nullptr);
    found = &sample;
  }
  INFO(name);
  REQUIRE(found != nullptr);
  return found->value;
}

}  // namespace eplbd
