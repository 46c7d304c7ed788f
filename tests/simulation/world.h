// One run: a deployment with its clocks, disk and network, the group that it serves, and what
// befalls them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "daemon/background.h"
#include "daemon/deployment.h"
#include "daemon/net/placement_sink.h"
#include "metrics/metrics.h"
#include "tests/simulation/disk.h"
#include "tests/simulation/group.h"
#include "tests/simulation/judge.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/schedule.h"

namespace eplbd::simulation {

class World : public PlacementSink {
 public:
  explicit World(const Scenario& scenario);
  ~World() override;
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // The rule that did not hold, or nothing.
  std::optional<Broken> run();

  // ---- For the group ----
  using ToDaemon = std::function<void(Deployment&)>;
  void send(ToDaemon message);  // over the network
  void subscribe();             // what is held comes once more
  bool lasts(Fault fault) const { return schedule_.now() < until_[static_cast<size_t>(fault)]; }
  const Event& latest(Fault fault) const { return *latest_[static_cast<size_t>(fault)]; }
  Schedule& schedule() { return schedule_; }
  Judge& judge() { return judge_; }
  const Scenario& scenario() const { return scenario_; }

  // ---- PlacementSink ----
  void hold(std::string placement) override;
  void publish(std::string placement) override;
  void publish_again() override;
  void heartbeat(std::string_view payload) override;

  // ---- The seams: what daemon/clock and daemon/background are here ----
  static World* current();
  Now clock() const;
  void run_background(std::function<void()> work, std::function<void()> done);

 private:
  // What a kill ends.
  struct Process {
    explicit Process(World& world);
    Metrics metrics;
    Background background;
    std::unique_ptr<Deployment> deployment;
    bool counts_held = false;
    std::deque<ToDaemon> waiting;
  };

  void start();
  void kill(Duration down);
  // Runs something of the process, which may be killed in it.
  void in_process(const std::function<void(Process&)>& task);
  void tick_and_again();
  void beat_and_again();
  void carry(std::function<void()> deliver);
  void deliver(const ToDaemon& message);
  void send_held();
  void befall(const Event& event);
  void order(const Event& event);
  void set_gpu(int32_t gpu, Deployment::GpuOrder order);
  void settle();

  const Scenario& scenario_;
  Schedule schedule_;
  Disk disk_;
  Judge judge_;
  Random network_;
  Group group_;
  std::array<TimePoint, kCount<Fault>> until_{};
  std::array<const Event*, kCount<Fault>> latest_{};
  double wall_ahead_ = 0;  // of where it began
  Duration down_ = {};     // of the next crash in a save
  bool damaged_ = false;
  bool clock_moved_ = false;  // since the last save
  std::unique_ptr<Process> process_;
  std::string held_;
  PlacementId held_id_;
};

}  // namespace eplbd::simulation
