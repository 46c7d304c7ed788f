// An etcd of its own on loopback, for the tests of one program; ended with it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "daemon/etcd/etcd_client.h"
#include "tests/daemon/folder.h"

namespace eplbd {

inline TimePoint within(int seconds) {
  return std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
}

class EtcdServer {
 public:
  // The one that all tests share; null, with a word why, where etcd is not installed.
  static EtcdServer* shared() {
    static std::optional<EtcdServer> server;
    static const bool installed = access("/usr/bin/etcd", X_OK) == 0;
    if (!installed) {
      WARN("skipped: there is no /usr/bin/etcd; install etcd-server");
      return nullptr;
    }
    if (!server) server.emplace();
    return &*server;
  }

  EtcdServer() {
    const std::string clients = "http://127.0.0.1:" + free_port();
    const std::string peers = "http://127.0.0.1:" + free_port();
    std::vector<std::string> words = {"/usr/bin/etcd",
                                      "--data-dir",
                                      folder_ / "data",
                                      "--listen-client-urls",
                                      clients,
                                      "--advertise-client-urls",
                                      clients,
                                      "--listen-peer-urls",
                                      peers,
                                      "--initial-advertise-peer-urls",
                                      peers,
                                      "--initial-cluster",
                                      "default=" + peers};
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t quiet;
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, 2, (folder_ / "log").c_str(), O_CREAT | O_WRONLY,
                                     0600);
    const int failed =
        posix_spawn(&process_, words[0].c_str(), &quiet, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&quiet);
    if (failed != 0) throw std::runtime_error("etcd cannot be started");
    options.etcd = {clients};
    until_it_answers();
  }
  ~EtcdServer() {
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
  }
  EtcdServer(const EtcdServer&) = delete;
  EtcdServer& operator=(const EtcdServer&) = delete;

  HaOptions options;  // how it is reached

 private:
  static std::string free_port() {
    boost::asio::io_context io;
    const boost::asio::ip::tcp::acceptor any(io, {boost::asio::ip::make_address("127.0.0.1"), 0});
    return std::to_string(any.local_endpoint().port());
  }

  void until_it_answers() {
    EtcdClient client(options);
    for (const TimePoint end = within(30);;) {
      try {
        client.range("/", within(5));
        return;
      } catch (const EtcdError&) {
        if (std::chrono::steady_clock::now() > end) throw;
        client.pause(std::chrono::steady_clock::now() + std::chrono::milliseconds(20));
      }
    }
  }

  Folder folder_;
  pid_t process_ = 0;
};

}  // namespace eplbd
