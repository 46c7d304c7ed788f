// SPDX-License-Identifier: Apache-2.0
#include "daemon/etcd/etcd_client.h"

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "config/file.h"
#include "core/model/utf8.h"
#include "daemon/etcd/base64.h"

namespace eplbd {
namespace {

namespace asio = boost::asio;
using Json = nlohmann::json;

constexpr size_t kMostFileBytes = 1 << 20;
constexpr int kNotFound = 5;  // of gRPC
constexpr int kUnauthenticated = 16;
constexpr int64_t kMostTtlSeconds = 3600;
constexpr size_t kMostErrorBytes = 300;
constexpr size_t kMostTokenBytes = 16 << 10;  // a field of HTTP takes no more than 64 KiB
// What is asked for are a few keys: each value in memory is many times what it is on the wire.
constexpr size_t kMostValues = 10'000;
constexpr size_t kMostWatchBytes = 64 << 10;
constexpr int64_t kHighestRevision = int64_t{1} << 62;

[[noreturn]] void fail(const std::string& what) { throw EtcdError("etcd: " + what); }

// ---- What etcd answers comes from outside like everything else ----

const Json& member(const Json& json, const char* name) {
  static const Json nothing;
  const auto found = json.is_object() ? json.find(name) : json.end();
  return json.is_object() && found != json.end() ? *found : nothing;
}

// 64-bit integers come as strings, and 0 as nothing.
int64_t number(const Json& json) {
  if (json.is_null()) return 0;
  if (json.is_number_integer()) return json.get<int64_t>();
  int64_t value = 0;
  if (json.is_string()) {
    const auto& text = json.get_ref<const std::string&>();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc{} && end == text.data() + text.size()) return value;
  }
  fail("answered something else where a number belongs");
}

std::string bytes(const Json& json) {
  if (json.is_null()) return {};
  auto decoded = json.is_string() ? from_base64(json.get_ref<const std::string&>()) : std::nullopt;
  if (!decoded) fail("answered what is no base64");
  return std::move(*decoded);
}

EtcdRange range_of(const Json& json, int64_t revision) {
  EtcdRange range;
  range.revision = revision;
  const Json& keys = member(json, "kvs");
  if (!keys.is_null() && !keys.is_array()) fail("answered no list of keys");
  for (const Json& key : keys) {
    range.keys.push_back({bytes(member(key, "key")), bytes(member(key, "value")),
                          number(member(key, "create_revision")),
                          number(member(key, "mod_revision"))});
  }
  return range;
}

int64_t revision_of(const Json& json) {
  const int64_t revision = number(member(member(json, "header"), "revision"));
  if (revision < 1 || revision > kHighestRevision) fail("answered no revision of its store");
  return revision;
}

// It refused, with this sentence and gRPC's code.
class Refused : public EtcdError {
 public:
  Refused(const std::string& what, int64_t grpc_code) : EtcdError(what), code(grpc_code) {}
  int64_t code;
};

// At least as many values as there are in it: none of these stands in base64.
size_t values_in(const std::string& json) {
  return static_cast<size_t>(std::count_if(
      json.begin(), json.end(), [](char c) { return c == ',' || c == '[' || c == '{'; }));
}

Json answer_of(const EtcdResponse& response) {
  if (values_in(response.body) > kMostValues) fail("answered more than what it was asked");
  Json json = Json::parse(response.body, nullptr, /*allow_exceptions=*/false);
  const std::string status = "etcd: status " + std::to_string(response.status);
  if (!json.is_object()) throw EtcdError(status + " and no JSON object");
  if (response.status == 200) return json;
  const Json& error = member(json, "error");
  const Json& code = member(json, "code");
  const std::string why =
      error.is_string() ? ": " + printable_line(error.get<std::string>(), kMostErrorBytes) : "";
  throw Refused(status + why, code.is_number_integer() ? code.get<int64_t>() : 0);
}

// The key after all that begin with `prefix`, as etcd wants it.
std::string after(std::string prefix) {
  while (!prefix.empty() && static_cast<unsigned char>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) prefix.back() = static_cast<char>(prefix.back() + 1);
  return prefix;
}

Json range_json(const std::string& prefix) {
  return {{"key", to_base64(prefix)}, {"range_end", to_base64(after(prefix))}};
}

std::string read_file(const char* key, const std::string& path) {
  try {
    return read_regular_file(path, kMostFileBytes);
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(std::string(key) + ": cannot read " + path + ": " + error.what());
  }
}

std::unique_ptr<asio::ssl::context> tls_context(const HaOptions& options) {
  auto tls = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_client);
  const auto use = [](const char* key, const std::string& path, auto how) {
    if (path.empty()) return;
    try {
      const std::string text = read_file(key, path);
      how(asio::buffer(text));
    } catch (const boost::system::system_error& error) {
      throw std::runtime_error(std::string(key) + ": cannot use " + path + ": " + error.what());
    }
  };
  if (options.ca.empty()) tls->set_default_verify_paths();
  use("ha.ca", options.ca, [&](auto text) { tls->add_certificate_authority(text); });
  use("ha.certificate", options.certificate, [&](auto text) { tls->use_certificate_chain(text); });
  use("ha.key", options.key,
      [&](auto text) { tls->use_private_key(text, asio::ssl::context::pem); });
  return tls;
}

std::string password_of(const HaOptions& options) {
  if (options.password.empty()) return {};
  std::string password = read_file("ha.password", options.password);
  while (password.ends_with('\n') || password.ends_with('\r')) password.pop_back();
  if (!is_printable_utf8(password)) {
    throw std::runtime_error("ha.password: " + options.password + " holds no line of UTF-8");
  }
  return password;
}

}  // namespace

const EtcdKey* EtcdRange::find(std::string_view key) const {
  const auto found =
      std::find_if(keys.begin(), keys.end(), [&](const EtcdKey& each) { return each.key == key; });
  return found == keys.end() ? nullptr : &*found;
}

struct EtcdClient::Impl {
  explicit Impl(const HaOptions& options)
      : user(options.user), password(password_of(options)), tls(tls_context(options)) {
    for (const std::string& url : options.etcd) {
      if (const auto split = split_http_url(url)) endpoints.push_back(*split);
    }
  }

  void turn_to_next() {
    next = (next + 1) % endpoints.size();
    connection.reset();
  }
  void connect(TimePoint deadline);
  EtcdResponse ask(const std::string& path, const std::string& body, TimePoint deadline);
  // Asks the endpoints in turn until one answers.
  EtcdResponse post(const std::string& path, const Json& body, TimePoint deadline);
  void authenticate(TimePoint deadline);
  Json call(const std::string& path, const Json& body, TimePoint deadline);

  std::string user;
  std::string password;
  std::string token;
  std::unique_ptr<asio::ssl::context> tls;
  std::vector<HttpUrl> endpoints;
  size_t next = 0;  // of them, to be asked
  asio::io_context io;
  EtcdWaiting waiting{io};
  std::unique_ptr<EtcdConnection> connection;
};

void EtcdClient::Impl::connect(TimePoint deadline) {
  if (connection && connection->usable()) return;
  connection.reset();
  const HttpUrl& url = endpoints[next];
  connection =
      std::make_unique<EtcdConnection>(waiting, url.tls ? tls.get() : nullptr, url, deadline);
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

EtcdResponse EtcdClient::Impl::post(const std::string& path, const Json& body, TimePoint deadline) {
  if (waiting.interrupted) fail("interrupted");
  const std::string text = body.dump();
  for (size_t tried = 1;; ++tried) {
    // One that is not there, or hangs, must leave time for the others.
    const TimePoint now = std::chrono::steady_clock::now();
    const bool last = tried == endpoints.size();
    try {
      EtcdResponse response = ask(path, text, last ? deadline : now + (deadline - now) / 2);
      // One that has lost the others is of no use, and may say so for long.
      if (response.status >= 500) turn_to_next();
      return response;
    } catch (const EtcdError&) {
      turn_to_next();
      if (last || waiting.interrupted || std::chrono::steady_clock::now() >= deadline) throw;
    }
  }
}

void EtcdClient::Impl::authenticate(TimePoint deadline) {
  token.clear();
  const Json json =
      answer_of(post("auth/authenticate", {{"name", user}, {"password", password}}, deadline));
  const Json& given = member(json, "token");
  const std::string text = given.is_string() ? given.get<std::string>() : "";
  const bool fits = !text.empty() && text.size() <= kMostTokenBytes;
  const bool header = fits && std::all_of(text.begin(), text.end(),
                                          [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  if (!header) fail("gave no token");
  token = text;
}

Json EtcdClient::Impl::call(const std::string& path, const Json& body, TimePoint deadline) {
  if (!user.empty() && token.empty()) authenticate(deadline);
  try {
    return answer_of(post(path, body, deadline));
  } catch (const Refused& refused) {
    if (refused.code != kUnauthenticated || user.empty()) throw;
  }
  authenticate(deadline);  // the token expired
  return answer_of(post(path, body, deadline));
}

EtcdClient::EtcdClient(const HaOptions& options) : impl_(std::make_unique<Impl>(options)) {}

EtcdClient::~EtcdClient() = default;

EtcdClient::Lease EtcdClient::grant(Duration ttl, TimePoint deadline) {
  const auto seconds = static_cast<int64_t>(std::ceil(to_seconds(ttl)));
  const Json json = impl_->call("lease/grant", {{"TTL", std::to_string(seconds)}}, deadline);
  const int64_t id = number(member(json, "ID"));
  const int64_t granted = number(member(json, "TTL"));
  if (id == 0 || granted < 1 || granted > kMostTtlSeconds) fail("granted no lease");
  return {id, std::chrono::seconds(granted)};
}

std::optional<Duration> EtcdClient::keep_alive(int64_t lease, TimePoint deadline) {
  const Json json = impl_->call("lease/keepalive", {{"ID", std::to_string(lease)}}, deadline);
  const int64_t seconds = number(member(member(json, "result"), "TTL"));
  if (seconds < 1 || seconds > kMostTtlSeconds) return std::nullopt;
  return std::chrono::seconds(seconds);
}

void EtcdClient::revoke(int64_t lease, TimePoint deadline) {
  try {
    impl_->call("lease/revoke", {{"ID", std::to_string(lease)}}, deadline);
  } catch (const Refused& refused) {
    if (refused.code != kNotFound) throw;  // it ended by itself
  }
}

EtcdRange EtcdClient::range(const std::string& prefix, TimePoint deadline) {
  const Json json = impl_->call("kv/range", range_json(prefix), deadline);
  return range_of(json, revision_of(json));
}

EtcdTransacted EtcdClient::transact(const EtcdTransaction& transaction, TimePoint deadline) {
  Json compare = Json::array();
  for (const auto& expect : transaction.expected) {
    const bool create = expect.revision == &EtcdKey::create_revision;
    compare.push_back(
        {{"key", to_base64(expect.key)},
         {"target", create ? "CREATE" : "MOD"},
         {"result", "EQUAL"},
         {create ? "create_revision" : "mod_revision", std::to_string(expect.value)}});
  }
  Json success = Json::array();
  Json failure = Json::array();
  if (!transaction.range.empty()) {
    const Json range = {{"request_range", {{"key", to_base64(transaction.range)}}}};
    success.push_back(range);
    failure.push_back(range);
  }
  for (const auto& put : transaction.puts) {
    success.push_back({{"request_put",
                        {{"key", to_base64(put.key)},
                         {"value", to_base64(put.value)},
                         {"lease", std::to_string(put.lease)}}}});
  }
  const Json json = impl_->call(
      "kv/txn", {{"compare", compare}, {"success", success}, {"failure", failure}}, deadline);
  EtcdTransacted result;
  result.done = member(json, "succeeded") == true;
  result.range.revision = revision_of(json);
  const Json& responses = member(json, "responses");
  if (!transaction.range.empty() && responses.is_array() && !responses.empty()) {
    result.range = range_of(member(responses[0], "response_range"), result.range.revision);
  }
  return result;
}

bool EtcdClient::watch(const std::string& prefix, int64_t revision, TimePoint deadline) {
  Json body = range_json(prefix);
  body["start_revision"] = std::to_string(revision);
  bool changed = false;
  // A line says that it was created; the next one, that something happened.
  const auto two_lines = [&changed](std::string_view text) {
    return changed =
               text.size() > kMostWatchBytes || std::count(text.begin(), text.end(), '\n') >= 2;
  };
  try {
    impl_->connect(deadline);
    impl_->connection->post("/v3/watch", impl_->token, Json{{"create_request", body}}.dump(),
                            deadline, two_lines);
  } catch (const EtcdError&) {
    // As a rule nothing happened. What is wrong is told by what is asked next.
  }
  impl_->connection.reset();
  return changed;
}

void EtcdClient::pause(TimePoint until) {
  const auto guard = asio::make_work_guard(impl_->io);
  impl_->io.restart();
  while (!impl_->waiting.interrupted && impl_->io.run_one_until(until) > 0) {
  }
}

void EtcdClient::interrupt() {
  impl_->waiting.interrupted = true;
  asio::post(impl_->io, [] {});
}

void EtcdClient::reset() { impl_->waiting.interrupted = false; }

}  // namespace eplbd
