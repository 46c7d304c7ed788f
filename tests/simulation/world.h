// One run: a deployment with its daemons, their clocks, disk and network, the group that it serves,
// and what befalls them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "tests/simulation/daemon.h"
#include "tests/simulation/disk.h"
#include "tests/simulation/group.h"
#include "tests/simulation/judge.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/schedule.h"

namespace eplbd::simulation {

class World {
 public:
  explicit World(const Scenario& scenario);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // The rule that did not hold, or nothing.
  std::optional<Broken> run();

  // ---- For the group and the daemons ----
  static constexpr Duration kLatency = std::chrono::microseconds(300);
  void send(const ToDaemon& message);  // over the network, to each daemon
  void subscribe();                    // what they hold comes once more
  void carry(std::function<void()> deliver);
  bool lasts(Fault fault) const { return schedule_.now() < until_[static_cast<size_t>(fault)]; }
  const Event& latest(Fault fault) const { return *latest_[static_cast<size_t>(fault)]; }
  Schedule& schedule() { return schedule_; }
  Judge& judge() { return judge_; }
  Group& group() { return group_; }
  Disk& disk() { return disk_; }
  LeaderKey& leader_key() { return leader_key_; }
  const Scenario& scenario() const { return scenario_; }
  Duration down() const { return down_; }
  void goes_on();  // a daemon, from what the disk holds
  void saved();

  // ---- The seams: what daemon/clock and an event loop are here ----
  static World* current();
  Now clock() const;
  Daemon& daemon_of(boost::asio::io_context& loop);

 private:
  Daemon* serving();  // null: none
  Daemon& struck(uint64_t number);
  void tick_and_again();
  void beat_and_again();
  void befall(const Event& event);
  void order(const Event& event);
  void strike(const Event& event);
  void move_clock(double seconds);
  void set_gpu(int32_t gpu, Deployment::GpuOrder order);
  void settle();

  const Scenario& scenario_;
  Schedule schedule_;
  Disk disk_;
  LeaderKey leader_key_;
  Judge judge_;
  Random network_;
  Group group_;
  std::array<TimePoint, kCount<Fault>> until_{};
  std::array<const Event*, kCount<Fault>> latest_{};
  double wall_ahead_ = 0;  // of where it began
  Duration down_ = {};     // of the next crash in a save
  bool damaged_ = false;
  const Event* strikes_ = nullptr;        // once the next save is done
  std::optional<TimePoint> clock_moved_;  // since the last save
  std::vector<std::unique_ptr<Daemon>> daemons_;
  const Daemon* served_ = nullptr;  // last
};

}  // namespace eplbd::simulation
