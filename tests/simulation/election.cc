// The daemon's Election over a key in memory, in virtual time.
// SPDX-License-Identifier: Apache-2.0
#include "daemon/etcd/election.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "daemon/clock.h"
#include "tests/simulation/world.h"

namespace eplbd {
namespace {

constexpr Duration kTtl = std::chrono::seconds(2);
constexpr Duration kSafeTtl = kTtl - kTtl / 10;  // as it is counted by whoever leads
constexpr Duration kRound = std::chrono::milliseconds(200);

}  // namespace

struct Election::Impl {
  void round_and_again();
  void round();
  void campaign(simulation::LeaderKey& key);
  void follow(const simulation::LeaderKey& key);
  void lose(const std::string& why);

  simulation::Daemon& daemon;
  const ElectionHandler handler;
  std::optional<Leadership> leads{};
  bool resigning = false;
  TimePoint let_others{};  // go first until then
  int64_t seen_saves = 0;
};

void Election::Impl::round_and_again() {
  round();
  daemon.after(kRound, [this] { round_and_again(); });
}

void Election::Impl::round() {
  simulation::LeaderKey& key = daemon.world().leader_key();
  const TimePoint now = read_clock().steady;
  const bool answers = daemon.reaches_store();
  const bool held = leads && key.is_held(leads->fence, now);
  if (std::exchange(resigning, false)) {
    let_others = now + kTtl;
    if (held && answers) key.until = now;
    if (leads) lose("it resigned");
  } else if (leads && (now >= leads->until || (answers && !held))) {
    lose("the lease ended");
  } else if (!answers) {
    if (!leads) handler.failed("no answer");
  } else if (leads) {
    key.until = now + kTtl;
    leads->until = now + kSafeTtl;
    handler.renewed(leads->until);
  } else if (now >= key.until && now >= let_others) {
    campaign(key);
  } else {
    follow(key);
  }
}

void Election::Impl::campaign(simulation::LeaderKey& key) {
  const Now now = read_clock();
  const auto date = static_cast<uint64_t>(std::max(1.0, now.unix_seconds));
  key.term = std::max(date, key.term + 1);
  key.until = now.steady + kTtl;
  leads = Leadership{++key.fence, key.term, now.steady + kSafeTtl};
  daemon.leads_by(key.fence);
  daemon.world().goes_on();
  handler.failed("");
  handler.won(*leads);
}

void Election::Impl::follow(const simulation::LeaderKey& key) {
  handler.failed("");
  handler.followed("the other");
  if (std::exchange(seen_saves, key.saves) != key.saves) handler.changed();
}

void Election::Impl::lose(const std::string& why) {
  leads.reset();
  handler.lost(why);
}

Election::Election(boost::asio::io_context& loop, const HaOptions&, const std::string&, std::string,
                   ElectionHandler handler)
    : impl_(new Impl{simulation::World::current()->daemon_of(loop), std::move(handler)}) {
  impl_->daemon.after(kRound, [impl = impl_.get()] { impl->round_and_again(); });
}
Election::~Election() = default;
void Election::resign() { impl_->resigning = true; }

}  // namespace eplbd
