// A deployment with one publisher of counts and one worker that reports state.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <catch2/catch.hpp>

#include "core/decide/rebalancer.h"
#include "tests/core/shapes.h"

namespace eplbd {

inline RebalancerOptions quick_options() {
  RebalancerOptions options;
  options.window.half_life = std::chrono::seconds(5);
  options.trigger.cooldown = std::chrono::seconds(1);
  options.trigger.min_tokens_per_gpu_step = 0;
  return options;
}

struct RebalancerFixture {
  Topology topology = make_topology(4, 32, 40, 8);
  RebalancerOptions options = quick_options();
  Rebalancer rebalancer{topology, options, at(0)};
  Publisher publisher;
  Reporter reporter;
  double time = 10;  // past the hold of a fresh start

  RebalancerFixture() { publisher.counts = as_counts(skewed_loads(topology, 1)); }

  IngestResult send_counts() {
    time += 1;
    return rebalancer.ingest(publisher.report(time), at(time));
  }
  ObserveResult report(PlacementId id, const Placement& map,
                       WorkerStatus status = WorkerStatus::idle) {
    return rebalancer.observe(reporter.report(topology, time, id, map, status), at(time));
  }
  Decision decide() {
    rebalancer.advance(at(time));
    return rebalancer.decide(at(time));
  }
  // Sends counts until a decision is an update, publishes it, and returns it.
  Decision publish() {
    send_counts();
    Decision decision = decide();
    INFO(decision.detail);
    REQUIRE(decision.verdict == Verdict::update);
    REQUIRE(rebalancer.record(decision));
    publisher.running = {};
    return decision;
  }
  Decision publish_and_apply() {
    Decision decision = publish();
    const ObserveResult result =
        report(decision.update->id, decision.update->placement, WorkerStatus::applied);
    REQUIRE(result.applied);
    publisher.running = decision.update->id;
    return decision;
  }
};

}  // namespace eplbd
