// What eplbd asks of etcd, over its JSON gateway (v3, from 3.4 on): leases, transactions, ranges,
// and a watch as a hint. Used by one thread, which waits for each answer.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "config/config.h"
#include "core/model/time.h"
#include "daemon/etcd/etcd_json.h"

namespace eplbd {

class EtcdClient {
 public:
  // Its files are read again where etcd asks who it is, or what they held did not do. Throws
  // std::runtime_error naming the one that cannot be used.
  explicit EtcdClient(const HaOptions& options);
  ~EtcdClient();
  EtcdClient(const EtcdClient&) = delete;
  EtcdClient& operator=(const EtcdClient&) = delete;

  // ---- Each throws EtcdError, where it has no answer by the deadline too; it may then have been
  //      done, or be done later. An endpoint that fails is the last one to be asked again. ----
  EtcdLease grant(Duration ttl, TimePoint deadline);
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
