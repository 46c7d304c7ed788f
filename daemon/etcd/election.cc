// SPDX-License-Identifier: Apache-2.0
#include "daemon/etcd/election.h"

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <algorithm>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <charconv>
#include <chrono>
#include <ctime>
#include <thread>

#include "core/model/utf8.h"
#include "daemon/etcd/etcd_client.h"
#include "daemon/etcd/etcd_keys.h"

namespace eplbd {
namespace {

namespace asio = boost::asio;

// Of the lease: who leads falls silent so long before it ends, for clocks that run apart.
constexpr int kMargin = 10;
constexpr size_t kNameBytes = 300;
// Whatever etcd answers at once, it is not asked in an endless hurry.
constexpr Duration kShortestRound = std::chrono::milliseconds(10);

TimePoint steady_now() { return std::chrono::steady_clock::now(); }

uint64_t term_of(const EtcdKey* key) {
  uint64_t term = 0;
  if (key == nullptr) return term;
  std::from_chars(key->value.data(), key->value.data() + key->value.size(), term);
  return std::min(term, uint64_t{1} << 53);  // far after any clock
}

}  // namespace

struct Election::Impl {
  Impl(asio::io_context& io, const HaOptions& options, const std::string& deployment,
       std::string own_name, ElectionHandler handlers)
      : loop(io),
        keys(options, deployment),
        name(std::move(own_name)),
        ttl(options.ttl),
        handler(std::move(handlers)),
        etcd(options) {}

  void run();
  void take_part();
  std::optional<Leadership> campaign(const EtcdRange& seen);
  void lead(Leadership leadership);
  std::string keep_leading(Leadership& leadership);
  bool holds_key(const Leadership& leadership, TimePoint deadline);
  void release(TimePoint deadline);
  void note_failure(const std::string& why);

  template <typename Handle, typename... Arguments>
  void tell(Handle handle, Arguments... arguments) {
    asio::post(loop, [handle, arguments...] { handle(arguments...); });
  }
  TimePoint soon() const { return steady_now() + ttl / 3; }
  TimePoint safe_until(TimePoint asked, Duration granted) const {
    return asked + granted - granted / kMargin;
  }

  asio::io_context& loop;
  const EtcdKeys keys;
  const std::string name;
  const Duration ttl;
  const ElectionHandler handler;
  EtcdClient etcd;
  std::atomic<bool> stopping = false;
  std::atomic<bool> resigning = false;
  std::thread thread;

  // ---- The thread's own ----
  int64_t lease = 0;        // 0: none that could still be there
  TimePoint lease_ends{};   // by itself
  TimePoint let_others{};   // go first until then
  std::string leader = "";  // the other one that leads, as told
  bool told_leader = false;
  int64_t seen_term = 0;  // the revision of its key, as told
  std::string failure;
};

void Election::Impl::run() {
  while (true) {
    etcd.reset();
    if (resigning.exchange(false)) let_others = steady_now() + ttl;
    if (stopping) break;
    const TimePoint began = steady_now();
    try {
      take_part();
      note_failure("");
      etcd.pause(began + kShortestRound);
    } catch (const EtcdError& error) {
      if (stopping || resigning) continue;
      note_failure(error.what());
      etcd.pause(steady_now() + ttl / 6);
    }
  }
  etcd.reset();
  try {
    release(soon());
  } catch (const EtcdError&) {
    // Others wait for its end, then.
  }
}

void Election::Impl::note_failure(const std::string& why) {
  if (why == failure) return;
  failure = why;
  tell(handler.failed, why);
}

// One look at who leads; leads itself while that is nobody; else waits for what comes next.
void Election::Impl::take_part() {
  release(soon());
  const EtcdRange seen = etcd.range(keys.leader, soon());
  note_failure("");
  const EtcdKey* const key = seen.find(keys.leader);
  if (key != nullptr) let_others = {};
  if (key == nullptr && steady_now() >= let_others) {
    if (const auto leadership = campaign(seen)) lead(*leadership);
    return;
  }
  const std::string now_leading = key != nullptr ? printable_line(key->value, kNameBytes) : "";
  if (!std::exchange(told_leader, true) || now_leading != leader) {
    tell(handler.followed, leader = now_leading);
  }
  const EtcdKey* const term = seen.find(keys.term);
  const int64_t changed = term != nullptr ? term->mod_revision : 0;
  if (std::exchange(seen_term, changed) != changed) tell(handler.changed);
  const TimePoint until = soon();
  if (!etcd.watch(keys.leader, seen.revision + 1, until)) etcd.pause(until);
}

// Leads from here on, where nobody else was faster.
std::optional<Leadership> Election::Impl::campaign(const EtcdRange& seen) {
  const TimePoint asked = steady_now();
  const EtcdLease granted = etcd.grant(ttl, soon());
  lease = granted.id;
  lease_ends = steady_now() + granted.ttl;
  const EtcdKey* const term = seen.find(keys.term);
  Leadership leadership;
  const auto date = static_cast<uint64_t>(std::max<std::time_t>(1, std::time(nullptr)));
  leadership.term = std::max(date, term_of(term) + 1);
  leadership.until = safe_until(asked, granted.ttl);
  const int64_t term_revision = term != nullptr ? term->mod_revision : 0;
  const EtcdTransacted result =
      etcd.transact({{{keys.leader, &EtcdKey::create_revision, 0},
                      {keys.term, &EtcdKey::mod_revision, term_revision}},
                     {{keys.leader, name, lease}, {keys.term, std::to_string(leadership.term)}},
                     keys.leader},
                    soon());
  if (!result.done) return std::nullopt;
  leadership.fence = result.range.revision;  // at which the key was created
  return leadership;
}

void Election::Impl::lead(Leadership leadership) {
  tell(handler.won, leadership);
  told_leader = false;
  const std::string why = keep_leading(leadership);
  tell(handler.lost, why);
}

// Until it must fall silent; why.
std::string Election::Impl::keep_leading(Leadership& leadership) {
  TimePoint next = soon();
  std::string trouble = "the lease was not renewed in time";
  while (true) {
    etcd.pause(std::min(next, leadership.until));
    if (stopping || resigning) return "it resigned";
    const TimePoint asked = steady_now();
    if (asked >= leadership.until) return trouble;
    const TimePoint deadline = std::min(soon(), leadership.until);
    try {
      const auto granted = etcd.keep_alive(lease, deadline);
      if (!granted) return "the lease ended";
      lease_ends = steady_now() + *granted;
      if (!holds_key(leadership, deadline)) return "its key in etcd is gone, or another's";
      leadership.until = safe_until(asked, *granted);
      next = asked + ttl / 3;
      tell(handler.renewed, leadership.until);
    } catch (const EtcdError& error) {
      trouble = error.what();
      next = steady_now() + ttl / 30;
    }
  }
}

// A lease outlives its key where somebody deletes that, and others lead then.
bool Election::Impl::holds_key(const Leadership& leadership, TimePoint deadline) {
  const EtcdRange seen = etcd.range(keys.leader, deadline);
  const EtcdKey* const key = seen.find(keys.leader);
  return key != nullptr && key->create_revision == leadership.fence;
}

// Before it takes part again. Where etcd will not end the lease, time does.
void Election::Impl::release(TimePoint deadline) {
  if (lease != 0 && steady_now() < lease_ends) etcd.revoke(lease, deadline);
  lease = 0;
}

Election::Election(asio::io_context& loop, const HaOptions& options, const std::string& deployment,
                   std::string name, ElectionHandler handler)
    : impl_(
          std::make_unique<Impl>(loop, options, deployment, std::move(name), std::move(handler))) {
  impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
}

Election::~Election() {
  impl_->stopping = true;
  impl_->etcd.interrupt();
  impl_->thread.join();
}

void Election::resign() {
  impl_->resigning = true;
  impl_->etcd.interrupt();
}

}  // namespace eplbd
