// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/keygen.h"

#include <unistd.h>

#include <iostream>
#include <stdexcept>

#include "eplbctl/errors.h"
#include "eplbctl/file.h"
#include "eplbctl/key_file.h"

namespace eplbd {
namespace {

// As a line of the daemon's authorized keys.
std::string role_of(const KeygenOptions& options) {
  if (options.observer) return " observer";
  std::string role;
  for (const std::string& source : options.sources) {
    if (source.empty() || source.find_first_of(" \t\n") != std::string::npos) {
      throw UsageError("a source's name in a key file has no spaces: \"" + source + "\"");
    }
    role += (role.empty() ? " source " : " ") + source;
  }
  return role;
}

}  // namespace

int run_keygen(const KeygenOptions& options) {
  const std::string secret_file = options.name + ".key";
  const std::string public_file = options.name + ".pub";
  for (const std::string& file : {secret_file, public_file}) {
    if (::access(file.c_str(), F_OK) == 0) {
      throw std::runtime_error(file + ": is there already; remove it first if it is not in use");
    }
  }
  const std::string role = role_of(options);
  const KeyPair pair = make_key_pair();
  write_file(secret_file, "# secret CURVE key of " + options.name + "\n" + pair.secret_key + "\n",
             0600);
  write_file(public_file,
             "# public CURVE key of " + options.name + "\n" + pair.public_key + role + "\n", 0644);
  std::cout << secret_file << ": keep it secret\n"
            << public_file
            << (role.empty() ? ": give it to whom this one talks to\n"
                             : ": put it into the daemon's security.authorized_keys folder\n");
  return 0;
}

}  // namespace eplbd
