// A deployment's state in etcd, where the next leader finds it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "config/config.h"
#include "daemon/etcd/etcd_client.h"
#include "daemon/etcd/etcd_keys.h"
#include "daemon/store/state_store.h"

namespace eplbd {

// A state file's bytes, compressed: etcd takes no value above 1.5 MiB. Where they are too many, the
// oldest placements are left out of the history.
std::string pack_state(const RebalancerState& state, std::string_view deployment,
                       const Topology& topology);
// The state file's bytes; empty: it is damaged.
std::string unpack_state(std::string_view packed);

class EtcdStore : public StateStore {
 public:
  // Throws std::runtime_error naming the file that cannot be used.
  EtcdStore(const HaOptions& options, std::string deployment, const Topology& topology);

  Recovered load() override;
  void save(const RebalancerState& state) override;
  void fence(int64_t leadership) override { leadership_ = leadership; }

 private:
  TimePoint deadline() const;
  EtcdTransaction fenced() const;
  const EtcdKey* read(EtcdRange& range);
  std::string set_aside(const std::string& bytes);

  std::string deployment_;
  Topology topology_;
  EtcdKeys keys_;
  Duration timeout_;
  EtcdClient etcd_;
  int64_t leadership_ = 0;    // 0: none
  int64_t mod_revision_ = 0;  // of the state, as it was last seen
};

}  // namespace eplbd
