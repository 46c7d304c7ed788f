// What etcd is asked and what it answers, as the JSON of its gateway (v3, from 3.4 on). What it
// answers comes from outside like everything else: each function that reads an answer throws
// EtcdError with a sentence where it makes no sense.
// https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/time.h"
#include "daemon/etcd/etcd_connection.h"

namespace eplbd {

struct EtcdKey {
  std::string key;
  std::string value;
  int64_t create_revision = 0;
  int64_t mod_revision = 0;
};

struct EtcdRange {
  std::vector<EtcdKey> keys;
  int64_t revision = 0;  // of the whole store
  const EtcdKey* find(std::string_view key) const;
};

// All of `puts`, and an answer to `range`, when every revision is as expected (0: there is no such
// key); otherwise only the answer.
struct EtcdTransaction {
  struct Expect {
    std::string key;
    int64_t EtcdKey::*revision;  // create_revision or mod_revision
    int64_t value;
  };
  struct Put {
    std::string key;
    std::string value;
    int64_t lease = 0;  // 0: none
  };
  std::vector<Expect> expected;
  std::vector<Put> puts;
  std::string range;  // a key; empty: none
};

struct EtcdTransacted {
  bool done = false;
  EtcdRange range;
};

struct EtcdLease {
  int64_t id = 0;
  Duration ttl{};  // from when it was asked for, at least
};

// It refused what it was asked.
class EtcdRefused : public EtcdError {
 public:
  EtcdRefused(const std::string& what, int64_t grpc_code) : EtcdError(what), code(grpc_code) {}
  // https://grpc.io/docs/guides/status-codes/
  static constexpr int64_t kInvalidArgument = 3;
  static constexpr int64_t kNotFound = 5;
  static constexpr int64_t kUnauthenticated = 16;
  int64_t code;
};

// ---- Requests ----
std::string authenticate_request(const std::string& user, const std::string& password);
std::string grant_request(Duration ttl);
std::string lease_request(int64_t lease);
std::string range_request(const std::string& prefix);  // all keys that begin so
std::string transact_request(const EtcdTransaction& transaction);
std::string watch_request(const std::string& prefix, int64_t revision);  // from this one on

// ---- Answers ----
// Throws EtcdRefused for every status but 200. `path`: what was asked.
void check_refusal(std::string_view path, const EtcdResponse& response);
std::string token_in(const std::string& answer);  // fits a field of HTTP
EtcdLease lease_in(const std::string& answer);
std::optional<Duration> kept_alive_in(const std::string& answer);  // nothing: it ended
EtcdRange range_in(const std::string& answer);
EtcdTransacted transacted_in(const std::string& answer);

}  // namespace eplbd
