// One deployment as it is served: reports go into its Rebalancer, decisions come out and are
// carried out in order: saved, published, recorded. Lives on the loop thread.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/decide/rebalancer.h"
#include "daemon/counts_totals.h"
#include "daemon/journal.h"
#include "daemon/log.h"
#include "daemon/received_log.h"
#include "daemon/rejections.h"
#include "daemon/store/state_store.h"
#include "metrics/metrics.h"

namespace eplbd {

class PlacementSink;
class Background;

// What became of an operator's order.
struct OrderResult {
  enum class Status { done, refused, not_saved };
  Status status = Status::done;
  std::string detail;                   // a sentence for people
  std::optional<Decision> decision;     // of orders that plan a placement
  std::vector<std::string> warnings{};  // what who ordered it may not have thought of
};
using OrderDone = std::function<void(OrderResult)>;

class Deployment {
 public:
  // What it works with outlives it. `recovered`: the state as it was found, or nothing.
  // `hold_counts(true)` is called before the rebalancer is read on another thread, with false
  // afterwards: nothing is to be taken in between.
  Deployment(std::string name, const Topology& topology, const RebalancerOptions& options,
             std::optional<RebalancerState> recovered, PlacementSink& publisher, StateStore& store,
             Background& background, Metrics& metrics, std::function<void(bool)> hold_counts);
  ~Deployment();  // waits for what runs in the background
  Deployment(const Deployment&) = delete;
  Deployment& operator=(const Deployment&) = delete;

  // ---- What comes in ----
  // `peer`: the sender's address.
  void take(const CountsReport& report, size_t bytes, std::string_view peer);
  void take(StateReport report, std::string_view peer);
  void reject(const Rejection& rejection, std::string_view peer);  // before it was read, or by it

  // ---- What time brings ----
  void tick();       // every trigger.interval
  void heartbeat();  // every second

  // ---- Which of several daemons serves it: this one, unless it stands by ----
  // Nothing is decided, saved or named from here on; what workers report is taken as before.
  void stand_by(const std::string& why);
  void when_standing_by(std::function<void()> hook) { stands_by_hook_ = std::move(hook); }
  void lead(const Leadership& won);  // goes on from what the last leader saved, once it is loaded
  void lead_until(TimePoint until) { leads_until_ = until; }
  // What is known of who leads: its name (empty: nobody, or `trouble` to find out), and that it
  // saved its state.
  void follow(const std::string& leader, const std::string& trouble);
  void take_up_saved();
  void step_down(OrderDone done);

  // ---- What operators order: each answers once, after it took effect ----
  void rebalance(bool dry_run, OrderDone done);
  void roll_back(std::optional<uint64_t> version, bool dry_run, OrderDone done);
  void import(Placement placement, bool dry_run, OrderDone done);
  void pause(std::optional<double> seconds, OrderDone done);
  void resume(OrderDone done);
  void set_mode(std::optional<Mode> mode, OrderDone done);
  enum class GpuOrder { drain, lost, restore };
  void order_gpu(int32_t gpu, GpuOrder order, OrderDone done);
  void resize(Shape shape, bool dry_run, OrderDone done);
  void set_options(const RebalancerOptions& options, std::function<void()> done);

  // ---- What is seen from outside ----
  const std::string& name() const { return name_; }
  bool stands_by() const { return standing_by_; }
  bool leads() const;                                    // it may publish
  const std::string& leader() const { return leader_; }  // who does; empty: alone, or not known
  std::optional<std::string> refuses_orders() const;     // why they are not for this daemon
  const Rebalancer& rebalancer() const { return rebalancer_; }
  const Journal& journal() const { return journal_; }
  Metrics& metrics() { return metrics_; }
  const Metrics& metrics() const { return metrics_; }
  CountsTotals& totals() { return totals_; }
  ReceivedLog& received() { return received_; }
  const Rejections& rejections() const { return rejections_; }
  double started() const { return started_; }
  Snapshot snapshot(Now now) const;
  std::vector<Problem> problems(Now now) const;
  // The newest state report, as its sender put it.
  struct GroupReport {
    std::string source;
    WorkerStatus status = WorkerStatus::idle;
    int64_t layers_done = -1;
    std::string error;
    PlacementId running;
    TimePoint at{};
  };
  const std::optional<GroupReport>& group_report() const { return group_report_; }
  // The newest placement that is saved, with the map that the group reports under its name.
  const PlacementUpdate& named() const {
    const PlacementUpdate& published = rebalancer_.group().published();
    return published.id == announced_.id ? published : announced_;
  }

 private:
  using Task = std::function<void()>;

  void note(const ObserveResult& result);
  void announce(const PlacementUpdate& saved);
  void announce_newest();
  void warn_or_tell(bool warn, const std::string& what);
  // Plans on the other thread, where a search may take seconds. Meanwhile nothing changes the
  // rebalancer: counts wait in their socket, orders for the end, and a tick does nothing.
  using Planned = std::function<void(Decision, double seconds)>;
  void plan(std::function<Decision(Now)> how, Planned then);
  void decide();
  void decided(Decision decision, double seconds);
  void carry_out(Decision decision, OrderDone done);
  void publish(const Decision& decision, std::optional<TimePoint> newest_counts);
  void order(std::function<Decision(Now)> how, bool dry_run, OrderDone done);
  OrderResult planned(Decision decision) const;
  void load(std::function<void(Recovered recovered, const std::string& failure)> then);
  void begin_to_lead(uint64_t term);
  void publish_recovered();
  void save(RebalancerState state, std::function<void(const std::string& failure)> then);
  void save_now(std::string detail, OrderDone done);
  void when_idle(Task task);
  void end_task();
  void note_changes(Now now);
  void sample(Now now);
  double imbalance_would_be(std::span<const double> loads) const;
  double measure_floor(Now now) const;
  void log_decision(const Decision& decision);

  std::string name_;
  Rebalancer rebalancer_;
  PlacementSink& publisher_;
  StateStore& store_;
  Background& background_;
  Metrics& metrics_;
  std::function<void(bool)> hold_counts_;
  PlacementUpdate announced_;  // the newest that workers were told of
  Journal journal_;
  CountsTotals totals_;
  Rejections rejections_;
  ReceivedLog received_;
  double started_ = 0;
  double next_update_ = 0;  // Unix seconds: until then cooldown and limits hold updates back

  bool standing_by_ = false;
  std::function<void()> stands_by_hook_;
  TimePoint leads_until_ = TimePoint::max();
  int64_t won_fence_ = 0;        // of the leadership that was won last
  bool owes_recovered_ = false;  // what was published is still to be named by this leader
  bool saved_waits_ = false;     // a state that another leader saved is still to be read
  std::string leader_;
  std::string no_leader_;  // why none is known

  bool planning_ = false;
  bool busy_ = false;         // planning or saving: one at a time
  bool unsaved_ = false;      // the state changed by itself and is to be saved
  std::string save_failure_;  // of the last save
  TimePoint retry_at_{};      // after a save failed
  std::deque<Task> waiting_;  // until nothing is planned or saved
  std::optional<TimePoint> newest_counts_;
  std::optional<double> newest_counts_unix_;
  std::optional<GroupReport> group_report_;
  std::string last_logged_;
  std::optional<PlacementUpdate> would_be_;  // shadow's last
  // As the journal was told.
  struct Settings {
    bool paused = false;
    Mode mode = Mode::active;
    std::vector<int32_t> gpus_down;
    bool operator==(const Settings&) const = default;
  };
  Settings settings(Now now) const;
  std::vector<SourceSnapshot> sources_seen(Now now) const;
  Settings told_;
  TimePoint sampled_at_{};
  double floor_ = 0;  // of the imbalance, as sampled; it costs more than the rest of a snapshot
  TimePoint floor_due_{};
  LogLimit reject_log_[kCount<RejectReason>];
  LogLimit group_log_{std::chrono::seconds(10), 5};    // what the group's reports change
  LogLimit verdict_log_{std::chrono::seconds(10), 5};  // what decisions warn of
  LogLimit would_update_log_{std::chrono::minutes(1)};
};

}  // namespace eplbd
