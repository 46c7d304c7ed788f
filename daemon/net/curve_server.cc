// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/curve_server.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "config/file.h"
#include "daemon/net/zmq_readable.h"
#include "daemon/net/zmq_socket.h"

namespace eplbd {
namespace {

constexpr size_t kZ85KeyChars = 40;
constexpr size_t kKeyBytes = 32;

struct Permission {
  bool observer = false;
  std::set<std::string, std::less<>> sources;
};
// By the public key as Z85 text, which is also the ZAP user id.
using Permissions = std::map<std::string, Permission, std::less<>>;

bool is_key(const std::string& text) {
  std::array<uint8_t, kKeyBytes> key{};
  return text.size() == kZ85KeyChars && zmq_z85_decode(key.data(), text.c_str()) != nullptr;
}

std::string read_key_file(const std::string& path, Readable may) {
  constexpr size_t kMostBytes = 1 << 20;
  try {
    return read_regular_file(path, kMostBytes, may);
  } catch (const std::exception& error) {
    throw std::runtime_error("cannot read the CURVE keys in " + path + ": " + error.what());
  }
}

std::string read_secret_key(const std::string& path) {
  std::istringstream file(read_key_file(path, Readable::not_by_anybody));
  std::string key;
  // What eplbctl keygen writes begins with comments.
  for (std::string line; key.empty() && std::getline(file, line);) {
    if (line.rfind("# ", 0) != 0 && !line.empty()) key = line;
  }
  if (!is_key(key)) {
    throw std::runtime_error(path + ": must hold a CURVE secret key, 40 characters of Z85 (" +
                             "eplbctl keygen makes one)");
  }
  return key;
}

void read_line(const std::string& line, const std::string& where, Permissions& permissions) {
  std::istringstream words(line);
  std::string key;
  std::string role;
  words >> key >> role;
  if (!is_key(key)) {
    throw std::runtime_error(where + ": must begin with a public key, 40 characters of Z85");
  }
  Permission& permission = permissions[key];
  if (role == "observer") {
    permission.observer = true;
  } else if (role == "source") {
    for (std::string name; words >> name;) permission.sources.insert(name);
  }
  const bool whole = role == "observer" || (role == "source" && !permission.sources.empty());
  if (!whole || (words >> role)) {
    throw std::runtime_error(where + ": after the key must follow `source NAME...` or `observer`");
  }
}

Permissions read_folder(const std::string& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  const std::filesystem::directory_iterator entries(folder, error);
  if (error) {
    throw std::runtime_error("cannot read the authorized keys, security.authorized_keys \"" +
                             folder + "\": " + error.message());
  }
  for (const auto& entry : entries) {
    if (entry.path().extension() == ".pub") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  Permissions permissions;
  for (const auto& path : files) {
    std::istringstream file(read_key_file(path, Readable::by_anybody));
    int number = 0;
    for (std::string line; std::getline(file, line);) {
      ++number;
      if (line.find_first_not_of(" \t\r") == std::string::npos || line.rfind("# ", 0) == 0)
        continue;
      read_line(line, path.string() + ":" + std::to_string(number), permissions);
    }
  }
  return permissions;
}

// The frames of one ZAP request (RFC 27), or fewer when it is none.
std::vector<std::string> receive_request(zmq::socket_ref socket) {
  std::vector<std::string> frames;
  zmq::message_t frame;
  while (receive(socket, frame)) {
    frames.push_back(frame.to_string());
    if (!frame.more()) break;
  }
  return frames;
}

}  // namespace

struct CurveServer::Impl {
  explicit Impl(zmq::context_t& zmq_context) : zap(zmq_context, zmq::socket_type::rep) {}

  bool drain() {
    for (;;) {
      const std::vector<std::string> request = receive_request(zap);
      if (request.empty()) return false;
      answer(request);
    }
  }

  // version, request id, domain, address, identity, mechanism, credentials
  void answer(const std::vector<std::string>& request) {
    std::string user;
    if (request.size() == 7 && request[5] == "CURVE" && request[6].size() == kKeyBytes) {
      std::array<char, kZ85KeyChars + 1> text{};
      zmq_z85_encode(text.data(), reinterpret_cast<const uint8_t*>(request[6].data()), kKeyBytes);
      if (may_connect(text.data(), request[2])) user = text.data();
    }
    if (user.empty()) denied(request.size() > 3 ? request[3] : "");
    const std::array<std::string, 6> reply = {"1.0",
                                              request.size() > 1 ? request[1] : "",
                                              user.empty() ? "400" : "200",
                                              user.empty() ? "this key is not authorized" : "OK",
                                              user,
                                              ""};
    for (size_t i = 0; i < reply.size(); ++i) {
      zmq_send(zap.handle(), reply[i].data(), reply[i].size(),
               i + 1 < reply.size() ? ZMQ_SNDMORE : 0);
    }
  }

  bool may_connect(std::string_view key, std::string_view domain) const {
    const auto found = permissions.find(key);
    if (found == permissions.end()) return false;
    return domain == kPlacementsDomain || !found->second.sources.empty();
  }

  std::string secret_key;
  std::string folder;
  Permissions permissions;
  std::function<void(std::string_view)> denied;
  zmq::socket_t zap;
  std::unique_ptr<ZmqReadable> readable;
};

CurveServer::CurveServer(boost::asio::io_context& io, zmq::context_t& zmq_context,
                         const std::string& secret_key_file, const std::string& authorized_keys,
                         std::function<void(std::string_view peer)> denied)
    : impl_(std::make_unique<Impl>(zmq_context)) {
  impl_->secret_key = read_secret_key(secret_key_file);
  impl_->folder = authorized_keys;
  impl_->denied = std::move(denied);
  reload();
  impl_->zap.bind("inproc://zeromq.zap.01");
  impl_->readable =
      std::make_unique<ZmqReadable>(io, impl_->zap, [impl = impl_.get()] { return impl->drain(); });
}

CurveServer::~CurveServer() = default;

void CurveServer::secure(zmq::socket_ref socket, const char* domain) const {
  socket.set(zmq::sockopt::curve_server, true);
  socket.set(zmq::sockopt::curve_secretkey, impl_->secret_key);
  socket.set(zmq::sockopt::zap_domain, domain);
}

bool CurveServer::may_speak(std::string_view user_id, std::string_view source) const {
  const auto found = impl_->permissions.find(user_id);
  return found != impl_->permissions.end() && found->second.sources.count(source) > 0;
}

bool CurveServer::may_connect(std::string_view user_id, std::string_view domain) const {
  return impl_->may_connect(user_id, domain);
}

void CurveServer::reload() { impl_->permissions = read_folder(impl_->folder); }

}  // namespace eplbd
