// SPDX-License-Identifier: Apache-2.0
#include "daemon/etcd/etcd_client.h"

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/write.hpp>
#include <catch2/catch.hpp>

#include "daemon/etcd/base64.h"
#include "tests/daemon/etcd/etcd_server.h"

using namespace eplbd;

namespace {

// A peer that answers one connection with these bytes, whatever it is asked.
class OddServer {
 public:
  explicit OddServer(std::string answer)
      : thread_([this, answer = std::move(answer)] {
          boost::system::error_code ignored;
          boost::asio::ip::tcp::socket socket(io_);
          acceptor_.accept(socket, ignored);
          char asked[4096];
          socket.read_some(boost::asio::buffer(asked), ignored);
          boost::asio::write(socket, boost::asio::buffer(answer), ignored);
        }) {}
  ~OddServer() { thread_.join(); }
  HaOptions options() const {
    HaOptions options;
    options.etcd = {"http://127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port())};
    return options;
  }

 private:
  boost::asio::io_context io_;
  boost::asio::ip::tcp::acceptor acceptor_{io_, {boost::asio::ip::make_address("127.0.0.1"), 0}};
  std::thread thread_;
};

std::string json_answer(const std::string& body, int status = 200) {
  return "HTTP/1.1 " + std::to_string(status) +
         " x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

}  // namespace

TEST_CASE("base64 and back", "[etcd]") {
  CHECK(to_base64("") == "");
  CHECK(to_base64("a") == "YQ==");
  CHECK(to_base64("/eplbd") == "L2VwbGJk");
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  for (const std::string& bytes : {std::string(), std::string("\0", 1), all, all + "x"}) {
    CHECK(from_base64(to_base64(bytes)) == bytes);
  }
  for (const char* none : {"a", "YQ=", "YQ==YQ", "Y!==", "====", " YQ="}) {
    INFO(none);
    CHECK_FALSE(from_base64(none));
  }
}

TEST_CASE("A lease ends with what hangs on it", "[etcd]") {
  EtcdServer* const server = EtcdServer::shared();
  if (server == nullptr) return;
  EtcdClient etcd(server->options);
  const auto lease = etcd.grant(std::chrono::milliseconds(2500), within(20));
  CHECK(lease.ttl == std::chrono::seconds(3));
  CHECK(etcd.keep_alive(lease.id, within(20)) == std::chrono::seconds(3));
  REQUIRE(
      etcd.transact({{}, {{"/lease/a", "1", lease.id}, {"/lease/b", "2"}}, ""}, within(20)).done);
  CHECK(etcd.range("/lease/", within(20)).keys.size() == 2);
  etcd.revoke(lease.id, within(20));
  etcd.revoke(lease.id, within(20));  // it is no mistake to do so twice
  CHECK(etcd.keep_alive(lease.id, within(20)) == std::nullopt);
  const EtcdRange left = etcd.range("/lease/", within(20));
  REQUIRE(left.keys.size() == 1);
  CHECK(left.keys[0].value == "2");
  CHECK_THROWS_AS(etcd.transact({{}, {{"/lease/a", "1", lease.id}}, ""}, within(20)), EtcdError);
}

TEST_CASE("A transaction happens where all is as expected, and tells what is", "[etcd]") {
  EtcdServer* const server = EtcdServer::shared();
  if (server == nullptr) return;
  EtcdClient etcd(server->options);
  const std::string key = "/transact/k";
  const auto put = [&](int64_t EtcdKey::*revision, int64_t expected, const std::string& value) {
    return etcd.transact({{{key, revision, expected}}, {{key, value}}, key}, within(20));
  };
  const EtcdTransacted created = put(&EtcdKey::create_revision, 0, "first");
  REQUIRE(created.done);
  const EtcdTransacted again = put(&EtcdKey::create_revision, 0, "second");
  CHECK_FALSE(again.done);
  REQUIRE(again.range.find(key) != nullptr);
  CHECK(again.range.find(key)->value == "first");
  CHECK(again.range.find(key)->create_revision == created.range.revision);
  const EtcdTransacted changed = put(&EtcdKey::mod_revision, created.range.revision, "third");
  CHECK(changed.done);
  CHECK_FALSE(put(&EtcdKey::mod_revision, created.range.revision, "fourth").done);
  const EtcdRange now = etcd.range("/transact", within(20));
  CHECK(now.find(key)->value == "third");
  CHECK(now.find(key)->create_revision == created.range.revision);
  CHECK(now.find(key)->mod_revision == changed.range.revision);
}

TEST_CASE("A watch returns when something changes, and not before", "[etcd]") {
  EtcdServer* const server = EtcdServer::shared();
  if (server == nullptr) return;
  EtcdClient etcd(server->options);
  const int64_t revision = etcd.range("/watched", within(20)).revision;
  const auto soon = std::chrono::steady_clock::now() + std::chrono::milliseconds(50);
  CHECK_FALSE(etcd.watch("/watched", revision + 1, soon));
  CHECK(std::chrono::steady_clock::now() >= soon);
  std::thread other([&] {
    EtcdClient(server->options).transact({{}, {{"/watched/x", "1"}}, ""}, within(20));
  });
  CHECK(etcd.watch("/watched", revision + 1, within(60)));
  other.join();
  CHECK(etcd.watch("/watched", revision + 1, within(60)));  // what happened already, too
}

TEST_CASE("What waits is interrupted, and goes on when it may", "[etcd]") {
  EtcdServer* const server = EtcdServer::shared();
  if (server == nullptr) return;
  EtcdClient etcd(server->options);
  std::thread other([&] { etcd.interrupt(); });
  CHECK_FALSE(etcd.watch("/never", 1 << 30, within(60)));
  etcd.pause(within(60));
  CHECK_THROWS_AS(etcd.range("/", within(60)), EtcdError);
  other.join();
  etcd.reset();
  etcd.range("/", within(60));
}

TEST_CASE("An endpoint that gives no answer leaves the next one to be asked", "[etcd]") {
  const OddServer silent("");
  const OddServer sound(json_answer(R"({"header": {"revision": "5"}})"));
  HaOptions options = silent.options();
  options.etcd.push_back(sound.options().etcd[0]);
  CHECK(EtcdClient(options).range("/", within(20)).revision == 5);
}

TEST_CASE("An endpoint that is not there leaves the next one to be asked", "[etcd]") {
  EtcdServer* const server = EtcdServer::shared();
  if (server == nullptr) return;
  HaOptions options = server->options;
  options.etcd.insert(options.etcd.begin(), {"http://127.0.0.1:1", "https://127.0.0.1:1"});
  EtcdClient etcd(options);
  etcd.range("/", within(20));
  options.etcd = {"http://127.0.0.1:1"};
  CHECK_THROWS_WITH(EtcdClient(options).range("/", within(20)),
                    Catch::Contains("etcd at 127.0.0.1:1") && Catch::Contains("refused"));
}

TEST_CASE("An answer that etcd does not give is an error with a sentence", "[etcd]") {
  const std::string header = R"("header": {"revision": "5"})";
  const std::string deep = std::string(200'000, '[') + std::string(200'000, ']');
  std::string many = "3";
  for (int i = 0; i < 20'000; ++i) many += ",3";
  for (const std::string& answer :
       {std::string(), std::string("no HTTP\r\n\r\n"), json_answer(""), json_answer("[]"),
        json_answer("{"), json_answer("{}"), json_answer("{}", 500),
        json_answer(R"({"error": "no"})", 400), json_answer(R"({"header": {"revision": "x"}})"),
        json_answer(R"({"header": {"revision": {}}})"),
        json_answer(R"({"header": {"revision": "99999999999999999999"}})"),
        json_answer(R"({"header": {"revision": "9223372036854775807"}})"),
        json_answer(R"({"header": {"revision": )" + deep + "}}"),
        json_answer("{" + header + R"(, "more": [)" + many + "]}"),
        json_answer("{" + header + R"(, "kvs": 3})"),
        json_answer("{" + header + R"(, "kvs": [3]})"),
        json_answer("{" + header + R"(, "kvs": [{"key": "%"}]})"),
        json_answer("{" + header + R"(, "kvs": [{"key": "YQ==", "mod_revision": 1.5}]})"),
        std::string("HTTP/1.1 200 x\r\nContent-Length: 99999999999\r\n\r\n")}) {
    INFO(answer.substr(0, 200));
    const OddServer odd(answer);
    EtcdClient etcd(odd.options());
    if (answer.find("[3]") != std::string::npos) {
      CHECK(etcd.range("/", within(20)).find("/") == nullptr);  // a key without a name
    } else {
      CHECK_THROWS_AS(etcd.range("/", within(20)), EtcdError);
    }
  }
}

TEST_CASE("A sentence of etcd's is one line that may be shown", "[etcd]") {
  const OddServer odd(json_answer(R"({"error": "no\n\u001b[31mlike a line"})", 400));
  CHECK_THROWS_WITH(EtcdClient(odd.options()).range("/", within(20)),
                    "etcd refused kv/range: no ?[31mlike a line (status 400)");
}

TEST_CASE("A token that is none, or fits no request, is an error", "[etcd]") {
  const Folder folder;
  folder.write_secret("password", "secret\n");
  for (const std::string& token : {std::string(), std::string("a b"), std::string(100'000, 't')}) {
    const OddServer odd(json_answer(R"({"token": ")" + token + "\"}"));
    HaOptions options = odd.options();
    options.user = "eplbd";
    options.password = folder / "password";
    CHECK_THROWS_WITH(EtcdClient(options).range("/", within(20)), "etcd: gave no token");
  }
}

TEST_CASE("An endpoint that never answers is given up at the deadline", "[etcd]") {
  boost::asio::io_context io;
  const boost::asio::ip::tcp::acceptor silent(io, {boost::asio::ip::make_address("127.0.0.1"), 0});
  HaOptions options;
  options.etcd = {"http://127.0.0.1:" + std::to_string(silent.local_endpoint().port())};
  EtcdClient etcd(options);
  const auto soon = std::chrono::steady_clock::now() + std::chrono::milliseconds(50);
  CHECK_THROWS_WITH(etcd.range("/", soon), Catch::Contains("no answer in time"));
}

TEST_CASE("Files that cannot be used are named", "[etcd]") {
  const Folder folder;
  folder.write("none", "no certificate");
  HaOptions options;
  options.etcd = {"https://127.0.0.1:1"};
  options.ca = folder / "none";
  CHECK_THROWS_WITH(EtcdClient(options), Catch::StartsWith("ha.ca: cannot use "));
  options.ca = "";
  options.password = folder / "missing";
  CHECK_THROWS_WITH(EtcdClient(options), Catch::StartsWith("ha.password: cannot use "));
  folder.write_secret("bytes", "\xff\xfe\n");
  options.password = folder / "bytes";
  CHECK_THROWS_WITH(EtcdClient(options), Catch::Contains("holds no line of UTF-8"));
  folder.write("known", "to all\n");
  options.password = folder / "known";
  CHECK_THROWS_WITH(EtcdClient(options), Catch::Contains("anybody may read this secret"));
}
