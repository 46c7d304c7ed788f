// What eplbd asks of etcd, over its JSON gateway (v3, from 3.4 on): leases, transactions, ranges,
// and a watch as a hint. Used by one thread, which waits for each answer.
// https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
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

class EtcdClient {
 public:
  // Throws std::runtime_error naming the file that cannot be used.
  explicit EtcdClient(const HaOptions& options);
  ~EtcdClient();
  EtcdClient(const EtcdClient&) = delete;
  EtcdClient& operator=(const EtcdClient&) = delete;

  // ---- Each throws EtcdError, where it has no answer by the deadline too; it may then have been
  //      done, or be done later. An endpoint that fails is the last one to be asked again. ----
  struct Lease {
    int64_t id = 0;
    Duration ttl{};  // from when it was asked for, at least
  };
  Lease grant(Duration ttl, TimePoint deadline);
  std::optional<Duration> keep_alive(int64_t lease, TimePoint deadline);  // nothing: it ended
  void revoke(int64_t lease, TimePoint deadline);
  EtcdRange range(const std::string& prefix, TimePoint deadline);  // all keys that begin so
  EtcdTransacted transact(const EtcdTransaction& transaction, TimePoint deadline);
  // Whether a key that begins so changed at this revision or later, as soon as one did. A hint:
  // what it misses is to be found otherwise. False at the deadline, or where it cannot tell.
  bool watch(const std::string& prefix, int64_t revision, TimePoint deadline);

  void pause(TimePoint until);
  // From another thread: what waits, and all that comes until reset(), ends at once.
  void interrupt();
  void reset();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eplbd
