// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/keygen.h"

#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <stdexcept>
#include <vector>

#include "eplbctl/errors.h"
#include "eplbctl/file.h"
#include "eplbctl/key_file.h"

namespace eplbd {
namespace {

struct Pair {
  std::string name;
  std::string role;  // in a line of the daemon's authorized keys
};

std::string source_role(const std::vector<std::string>& sources) {
  std::string role;
  for (const std::string& source : sources) {
    if (source.empty() || source.find_first_of(" \t\n") != std::string::npos) {
      throw UsageError("a source's name in a key file has no spaces: \"" + source + "\"");
    }
    role += (role.empty() ? " source " : " ") + source;
  }
  return role;
}

std::vector<Pair> pairs_of(const KeygenOptions& options) {
  if (options.observer) return {{options.name, " observer"}};
  if (options.workers == 0) return {{options.name, source_role(options.sources)}};
  std::vector<Pair> pairs;
  for (int32_t worker = 0; worker < options.workers; ++worker) {
    const std::string name = options.name + std::to_string(worker);
    pairs.push_back({name, source_role({std::filesystem::path(name).filename().string()})});
  }
  return pairs;
}

std::string secret_file(const Pair& pair) { return pair.name + ".key"; }
std::string public_file(const Pair& pair) { return pair.name + ".pub"; }

void write_pair(const Pair& pair) {
  const KeyPair keys = make_key_pair();
  write_file(secret_file(pair),
             "# secret CURVE key of " + pair.name + "\n" + keys.secret_key + "\n", 0600);
  write_file(public_file(pair),
             "# public CURVE key of " + pair.name + "\n" + keys.public_key + pair.role + "\n",
             0644);
}

}  // namespace

int run_keygen(const KeygenOptions& options) {
  const std::vector<Pair> pairs = pairs_of(options);
  for (const Pair& pair : pairs) {
    for (const std::string& file : {secret_file(pair), public_file(pair)}) {
      if (::access(file.c_str(), F_OK) == 0) {
        throw std::runtime_error(file + ": is there already; remove it first if it is not in use");
      }
    }
  }
  for (const Pair& pair : pairs) write_pair(pair);
  const auto all = [&](std::string (*file)(const Pair&)) {
    return file(pairs.front()) + (pairs.size() > 1 ? " to " + file(pairs.back()) : "");
  };
  std::cout << all(secret_file)
            << (pairs.size() > 1 ? ": one for each worker, to keep secret\n" : ": keep it secret\n")
            << all(public_file)
            << (pairs.front().role.empty()
                    ? ": give it to whom this one talks to\n"
                    : ": put it into the daemon's security.authorized_keys folder\n");
  return 0;
}

}  // namespace eplbd
