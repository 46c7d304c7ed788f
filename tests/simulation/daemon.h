// One of the daemons of a run: its process, which may be killed or frozen at any moment, and what
// its subscribers get. Where there are two they share the disk as they would share etcd: who leads
// saves, by a lease.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/io_context.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/model/placement_update.h"
#include "daemon/background.h"
#include "daemon/deployment.h"
#include "daemon/membership.h"
#include "daemon/net/placement_sink.h"
#include "metrics/metrics.h"

namespace eplbd::simulation {

class World;

// The key in etcd that tells who leads.
struct LeaderKey {
  int64_t fence = 0;  // of the newest leadership
  uint64_t term = 0;  // the highest that was given out
  int64_t saves = 0;  // of all leaders
  TimePoint until{};  // the end of its lease

  bool is_held(int64_t by, TimePoint now) const { return by == fence && now < until; }
};

using ToDaemon = std::function<void(Deployment&)>;

class Daemon : public PlacementSink {
 public:
  explicit Daemon(World& world);
  ~Daemon() override;

  // ---- What befalls it ----
  void start();
  void kill(Duration down);  // it starts again after that
  void freeze(Duration length);
  void cut_off(Duration length);  // from what it shares with the other
  void tick();
  void beat();
  void subscribe();             // what it holds is sent once more
  void take(ToDaemon message);  // a worker's
  void run(ToDaemon task);      // something of the process, which may be killed in it

  // ---- What it is ----
  const Deployment* deployment() const;  // null: it does not run
  bool frozen() const;
  bool serves() const;  // it may publish
  bool reaches_store() const;
  void leads_by(int64_t fence) { leadership_ = fence; }
  bool holds_lease() const;
  World& world() { return world_; }
  boost::asio::io_context& loop() { return loop_; }

  // ---- PlacementSink ----
  void hold(std::string placement) override;
  void publish(std::string placement) override;
  void publish_again() override;
  void heartbeat(std::string_view payload) override;

  // ---- The seams: what daemon/background and the election's thread are here ----
  void run_background(std::function<void()> work, std::function<void()> done);
  void after(Duration delay, std::function<void()> task);  // unless it was killed meanwhile

 private:
  // The disk as one of them sees it.
  class Store : public StateStore {
   public:
    explicit Store(Daemon& daemon) : daemon_(daemon) {}
    Recovered load() override;
    void save(const RebalancerState& state) override;
    void fence(int64_t fence) override { fence_ = fence; }

   private:
    Daemon& daemon_;
    int64_t fence_ = 0;
  };
  // What a kill ends.
  struct Process {
    explicit Process(Daemon& daemon);
    Store store;
    Metrics metrics;
    Background background;
    std::unique_ptr<Deployment> deployment;
    std::unique_ptr<Membership> membership;
    bool counts_held = false;
    std::deque<ToDaemon> waiting;
  };
  void thaw();
  void send_held();
  void name(PlacementId id);

  World& world_;
  boost::asio::io_context loop_;  // nothing runs on it
  std::unique_ptr<Process> process_;
  uint64_t life_ = 0;  // which process it is
  TimePoint frozen_until_{};
  TimePoint cut_until_{};
  int64_t leadership_ = 0;
  std::deque<ToDaemon> frozen_;  // what it has yet to do
  std::string held_;
  PlacementId held_id_;
};

}  // namespace eplbd::simulation
