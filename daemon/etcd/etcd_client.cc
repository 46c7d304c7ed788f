// SPDX-License-Identifier: Apache-2.0
#include "daemon/etcd/etcd_client.h"

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <chrono>
#include <vector>

#include "daemon/etcd/etcd_credentials.h"

namespace eplbd {
namespace {

namespace asio = boost::asio;

constexpr size_t kMostWatchBytes = 64 << 10;

}  // namespace

struct EtcdClient::Impl {
  explicit Impl(const HaOptions& from) : options(from), tls(read_certificates(options)) {
    read_password(options);
    for (const std::string& url : options.etcd) {
      if (const auto split = split_http_url(url)) endpoints.emplace_back(*split);
    }
  }

  void turn_to_next();
  void connect(TimePoint deadline);
  EtcdResponse ask(const std::string& path, const std::string& body, TimePoint deadline);
  std::string post(const std::string& path, const std::string& body, TimePoint deadline);
  void authenticate(TimePoint deadline);
  std::string call(const std::string& path, const std::string& body, TimePoint deadline);

  HaOptions options;
  std::string token;
  std::unique_ptr<asio::ssl::context> tls;  // null: to be read again
  std::vector<EtcdEndpoint> endpoints;
  size_t next = 0;  // of them, to be asked
  EtcdWaiting waiting;
  std::unique_ptr<EtcdConnection> connection;
};

// Certificates may be what is wrong, and others by now.
void EtcdClient::Impl::turn_to_next() {
  next = (next + 1) % endpoints.size();
  connection.reset();
  tls.reset();
}

void EtcdClient::Impl::connect(TimePoint deadline) {
  if (connection && connection->usable()) return;
  connection.reset();
  try {
    if (!tls) tls = read_certificates(options);
  } catch (const std::runtime_error& error) {
    throw EtcdError(std::string("etcd: ") + error.what());
  }
  connection = std::make_unique<EtcdConnection>(waiting, *tls, endpoints[next], deadline);
}

EtcdResponse EtcdClient::Impl::ask(const std::string& path, const std::string& body,
                                   TimePoint deadline) {
  const bool reused = connection && connection->usable();
  connect(deadline);
  try {
    return connection->post("/v3/" + path, token, body, deadline);
  } catch (const EtcdError&) {
    const bool over = waiting.interrupted || std::chrono::steady_clock::now() >= deadline;
    if (!reused || over) throw;
  }
  connection.reset();  // it was of a member that went away; the same once more, by a new one
  return ask(path, body, deadline);
}

// Asks the endpoints in turn until one answers.
std::string EtcdClient::Impl::post(const std::string& path, const std::string& body,
                                   TimePoint deadline) {
  if (waiting.interrupted) throw EtcdError("etcd: interrupted");
  for (size_t tried = 1;; ++tried) {
    // One that is not there, or hangs, must leave time for the others.
    const TimePoint now = std::chrono::steady_clock::now();
    const bool last = tried == endpoints.size();
    EtcdResponse response;
    try {
      response = ask(path, body, last ? deadline : now + (deadline - now) / 2);
    } catch (const EtcdError&) {
      turn_to_next();
      if (last || waiting.interrupted || std::chrono::steady_clock::now() >= deadline) throw;
      continue;
    }
    // One that has lost the others is of no use, and may say so for long.
    if (response.status >= 500) turn_to_next();
    check_refusal(path, response);
    return std::move(response.body);
  }
}

void EtcdClient::Impl::authenticate(TimePoint deadline) {
  token.clear();
  std::string password;
  try {
    password = read_password(options);
  } catch (const std::runtime_error& error) {
    throw EtcdError(std::string("etcd: ") + error.what());
  }
  const std::string body = authenticate_request(options.user, password);
  token = token_in(post("auth/authenticate", body, deadline));
}

std::string EtcdClient::Impl::call(const std::string& path, const std::string& body,
                                   TimePoint deadline) {
  if (options.user.empty()) return post(path, body, deadline);
  const bool fresh = token.empty();
  if (fresh) authenticate(deadline);
  try {
    return post(path, body, deadline);
  } catch (const EtcdRefused& refused) {
    // A token that expired, and one of before users or roles were changed.
    const bool stale = refused.code == EtcdRefused::kUnauthenticated ||
                       refused.code == EtcdRefused::kInvalidArgument;
    if (fresh || !stale) throw;
  }
  authenticate(deadline);
  return post(path, body, deadline);
}

EtcdClient::EtcdClient(const HaOptions& options) : impl_(std::make_unique<Impl>(options)) {}

EtcdClient::~EtcdClient() = default;

EtcdLease EtcdClient::grant(Duration ttl, TimePoint deadline) {
  return lease_in(impl_->call("lease/grant", grant_request(ttl), deadline));
}

std::optional<Duration> EtcdClient::keep_alive(int64_t lease, TimePoint deadline) {
  return kept_alive_in(impl_->call("lease/keepalive", lease_request(lease), deadline));
}

void EtcdClient::revoke(int64_t lease, TimePoint deadline) {
  try {
    impl_->call("lease/revoke", lease_request(lease), deadline);
  } catch (const EtcdRefused& refused) {
    if (refused.code != EtcdRefused::kNotFound) throw;  // it ended by itself
  }
}

EtcdRange EtcdClient::range(const std::string& prefix, TimePoint deadline) {
  return range_in(impl_->call("kv/range", range_request(prefix), deadline));
}

EtcdTransacted EtcdClient::transact(const EtcdTransaction& transaction, TimePoint deadline) {
  return transacted_in(impl_->call("kv/txn", transact_request(transaction), deadline));
}

bool EtcdClient::watch(const std::string& prefix, int64_t revision, TimePoint deadline) {
  bool changed = false;
  // A line says that it was created; the next one, that something happened.
  const auto two_lines = [&changed](std::string_view text) {
    return changed =
               text.size() > kMostWatchBytes || std::count(text.begin(), text.end(), '\n') >= 2;
  };
  try {
    impl_->connect(deadline);
    impl_->connection->post("/v3/watch", impl_->token, watch_request(prefix, revision), deadline,
                            two_lines);
  } catch (const EtcdError&) {
    // As a rule nothing happened. What is wrong is told by what is asked next.
  }
  impl_->connection.reset();
  return changed;
}

void EtcdClient::pause(TimePoint until) {
  const auto guard = asio::make_work_guard(*impl_->waiting.io);
  impl_->waiting.until(until, [] { return false; });
}

void EtcdClient::interrupt() {
  impl_->waiting.interrupted = true;
  asio::post(*impl_->waiting.io, [] {});
}

void EtcdClient::reset() { impl_->waiting.interrupted = false; }

}  // namespace eplbd
