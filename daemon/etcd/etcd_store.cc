// SPDX-License-Identifier: Apache-2.0
#include "daemon/etcd/etcd_store.h"

#include <zlib.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "daemon/store/state_file.h"

namespace eplbd {
namespace {

constexpr size_t kMostPackedBytes = 1'500'000;  // etcd's own limit is 1.5 MiB for all of a request
constexpr uint64_t kMostBytes = 64 << 20;
constexpr uint64_t kMostRatio = 1032;  // of deflate: https://zlib.net/zlib_tech.html

std::string compress(const std::string& bytes) {
  const uint64_t size = bytes.size();
  uLongf packed_size = compressBound(bytes.size());
  std::string packed(sizeof(size) + packed_size, '\0');
  std::memcpy(packed.data(), &size, sizeof(size));
  const int result =
      compress2(reinterpret_cast<Bytef*>(packed.data() + sizeof(size)), &packed_size,
                reinterpret_cast<const Bytef*>(bytes.data()), bytes.size(), Z_BEST_SPEED);
  if (result != Z_OK) throw std::runtime_error("the state cannot be compressed");
  packed.resize(sizeof(size) + packed_size);
  return packed;
}

}  // namespace

std::string pack_state(const RebalancerState& state, std::string_view deployment,
                       const Topology& topology) {
  const std::string bytes = encode_state_file(state, deployment, topology);
  std::string packed = compress(bytes);
  if (packed.size() <= kMostPackedBytes && bytes.size() <= kMostBytes) return packed;
  if (state.placements.history.empty()) {
    throw std::runtime_error("a state of " + std::to_string(bytes.size()) + " bytes, " +
                             std::to_string(packed.size()) +
                             " compressed, is more than is kept in etcd");
  }
  RebalancerState shorter = state;
  shorter.placements.history.pop_back();
  return pack_state(shorter, deployment, topology);
}

std::string unpack_state(std::string_view packed) {
  uint64_t size = 0;
  if (packed.size() < sizeof(size)) return {};
  std::memcpy(&size, packed.data(), sizeof(size));
  if (size > std::min(kMostBytes, packed.size() * kMostRatio)) return {};
  std::string bytes(size, '\0');
  uLongf unpacked = bytes.size();
  const int result = uncompress(reinterpret_cast<Bytef*>(bytes.data()), &unpacked,
                                reinterpret_cast<const Bytef*>(packed.data() + sizeof(size)),
                                packed.size() - sizeof(size));
  return result == Z_OK && unpacked == size ? bytes : "";
}

EtcdStore::EtcdStore(const HaOptions& options, std::string deployment, const Topology& topology)
    : deployment_(std::move(deployment)),
      topology_(topology),
      keys_(options, deployment_),
      timeout_(options.ttl),
      etcd_(options) {}

// Longer than the lease would be too long for whoever leads by it.
TimePoint EtcdStore::deadline() const { return std::chrono::steady_clock::now() + timeout_; }

// What nobody but the leader of this leadership can do, and tells who leads.
EtcdTransaction EtcdStore::fenced() const {
  return {{{keys_.leader, &EtcdKey::create_revision, leadership_}}, {}, keys_.leader};
}

const EtcdKey* EtcdStore::read(EtcdRange& range) {
  range = etcd_.transact({{}, {}, keys_.state}, deadline()).range;
  const EtcdKey* const found = range.find(keys_.state);
  mod_revision_ = found != nullptr ? found->mod_revision : 0;
  return found;
}

std::string EtcdStore::set_aside(const std::string& bytes) {
  if (leadership_ == 0) return "the leader keeps it";
  EtcdTransaction transaction = fenced();
  transaction.puts.push_back({keys_.set_aside, bytes});
  const bool done = etcd_.transact(transaction, deadline()).done;
  return done ? "kept as " + keys_.set_aside : "cannot be kept, as another daemon leads";
}

Recovered EtcdStore::load() {
  EtcdRange range;
  const EtcdKey* const found = read(range);
  Recovered recovered;
  if (found == nullptr) return recovered;
  StateFileContent content = decode_state_file(unpack_state(found->value), deployment_, topology_);
  switch (content.fault) {
    case StateFileFault::none:
      recovered.state = std::move(content.state);
      break;
    case StateFileFault::other_deployment:
    case StateFileFault::newer_format:
      throw std::runtime_error("cannot use " + keys_.state + " in etcd: " + content.detail);
    case StateFileFault::other_shape:
    case StateFileFault::damaged:
      recovered.notes.push_back(keys_.state + " in etcd: " + content.detail + "; " +
                                set_aside(found->value));
      break;
  }
  return recovered;
}

void EtcdStore::save(const RebalancerState& state) {
  if (leadership_ == 0) throw EtcdError("etcd: this daemon never led");
  const std::string packed = pack_state(state, deployment_, topology_);
  for (bool again = false;; again = true) {
    EtcdTransaction transaction = fenced();
    // So that nothing that was asked for earlier, and given up, comes after this.
    transaction.expected.push_back({keys_.state, &EtcdKey::mod_revision, mod_revision_});
    transaction.puts = {{keys_.state, packed},
                        {keys_.term, std::to_string(state.placements.highest.term)}};
    const EtcdTransacted result = etcd_.transact(transaction, deadline());
    if (result.done) {
      mod_revision_ = result.range.revision;
      return;
    }
    const EtcdKey* const leader = result.range.find(keys_.leader);
    if (leader == nullptr) throw EtcdError("etcd: the lease of this leader ended");
    if (leader->create_revision != leadership_) throw EtcdError("etcd: another daemon leads");
    if (again) throw EtcdError("etcd: " + keys_.state + " changes under the leader's hands");
    EtcdRange range;
    read(range);
  }
}

}  // namespace eplbd
