// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/key_file.h"

#include <zmq.h>

#include <array>
#include <sstream>
#include <stdexcept>

#include "eplbctl/file.h"

namespace eplbd {
namespace {

constexpr size_t kKeyCharacters = 40;
constexpr size_t kKeyBytes = 32;
using KeyText = std::array<char, kKeyCharacters + 1>;  // and the 0 that libzmq writes

}  // namespace

std::string read_key(const std::string& file) {
  std::istringstream lines{std::string(MappedFile(file).text())};
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.starts_with("# ")) continue;
    std::string key = line.substr(0, line.find_first_of(" \r"));
    std::array<uint8_t, kKeyBytes> bytes{};
    if (key.size() == kKeyCharacters && zmq_z85_decode(bytes.data(), key.c_str()) != nullptr) {
      return key;
    }
    break;
  }
  throw std::runtime_error(file + ": holds no CURVE key, 40 characters of Z85; `eplbctl keygen` " +
                           "makes a pair");
}

std::string public_key_of(const std::string& secret_key) {
  KeyText text{};
  if (zmq_curve_public(text.data(), secret_key.c_str()) != 0) {
    throw std::runtime_error("cannot compute the public key: " +
                             std::string(zmq_strerror(zmq_errno())));
  }
  return text.data();
}

KeyPair make_key_pair() {
  KeyText public_key{};
  KeyText secret_key{};
  if (zmq_curve_keypair(public_key.data(), secret_key.data()) != 0) {
    throw std::runtime_error("libzmq makes no keys here: " +
                             std::string(zmq_strerror(zmq_errno())));
  }
  return {public_key.data(), secret_key.data()};
}

}  // namespace eplbd
