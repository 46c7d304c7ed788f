// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/scenario.h"

#include <algorithm>
#include <cstdio>

#include "tests/simulation/schedule.h"

namespace eplbd::simulation {
namespace {

constexpr double kFaultsEnd = 60;  // seconds
constexpr double kLongest = 15;    // of what lasts
constexpr double kTakeover = 6;    // until one leads again

Topology draw_topology(Random& random) {
  struct Shape {
    int32_t layers, experts, slots, gpus;
  };
  constexpr Shape kShapes[] = {{2, 8, 12, 4}, {1, 16, 20, 4}, {3, 8, 16, 8}, {2, 12, 18, 6}};
  const Shape shape = random.one_of(kShapes);
  Topology topology;
  topology.layers = shape.layers;
  topology.logical_experts = shape.experts;
  topology.slots = shape.slots;
  topology.gpus = shape.gpus;
  return topology;
}

RebalancerOptions draw_options(Random& random) {
  RebalancerOptions options;
  options.window.half_life = std::chrono::seconds(5);
  options.trigger.interval = std::chrono::milliseconds(250);
  options.trigger.cooldown = std::chrono::seconds(1 + random.below(4));
  options.trigger.min_tokens_per_gpu_step = random.chance(0.5) ? 0 : 8;
  constexpr int64_t kUpdates[] = {0, 4, 8, 120};
  options.limits.updates_per_hour = random.one_of(kUpdates);
  options.limits.max_moves_per_gpu = random.chance(0.3) ? 1 : 0;
  options.limits.max_moves = random.chance(0.2) ? 3 : 0;
  options.limits.sources = 8;
  options.workers.timeout = std::chrono::seconds(10);
  options.workers.apply_timeout = std::chrono::seconds(8);
  return options;
}

Event draw_event(Random& random, const Scenario& scenario) {
  Event event;
  event.at = 1 + random.real() * (kFaultsEnd - 1);
  event.fault = static_cast<Fault>(random.below(kCount<Fault>));
  event.length = 0.2 + random.real() * kLongest;
  event.who = static_cast<int32_t>(random.below(
      event.fault == Fault::drain || event.fault == Fault::empty_gpu ? scenario.topology.gpus
                                                                     : scenario.sources));
  event.number = random.below(6);
  event.amount = random.real();
  constexpr double kJumps[] = {-6e7, -4000, -2, 2, 4000, 6e7};
  constexpr double kAhead[] = {1, 5000, 80000};
  constexpr uint64_t kEdges[] = {
      0,         uint64_t{1} << 31, (uint64_t{1} << 32) - 1, uint64_t{1} << 62, uint64_t{1} << 63,
      UINT64_MAX};
  switch (event.fault) {
    case Fault::clock:
    case Fault::worker_clock:
      event.amount = random.one_of(kJumps);
      break;
    case Fault::odd_term:
      event.amount = random.one_of(kAhead);
      break;
    case Fault::odd_number:
      event.amount = static_cast<double>(random.below(5));
      event.number = random.one_of(kEdges);
      break;
    case Fault::slow_apply:
      event.amount *= 20;
      break;
    case Fault::late:
    case Fault::slow_disk:
      event.amount *= 3;
      break;
    case Fault::pause:
      event.amount *= 20;
      break;
    case Fault::crash_clock:
    case Fault::damage:
      event.amount = random.chance(0.5) ? random.one_of(kJumps) : 0;
      [[fallthrough]];
    case Fault::crash:
    case Fault::crash_in_save:
      if (event.fault == Fault::crash_in_save) event.number = random.below(25);
      event.length = random.chance(0.5) ? 0.1 : random.real() * 5;
      break;
    case Fault::failing_disk:
      event.number = random.below(10);
      break;
    case Fault::load:
      event.number = 1 + random.below(7);
      break;
    default:
      break;
  }
  return event;
}

}  // namespace

Scenario scenario_of(uint64_t seed) {
  Random random(seed * 2 + 1);
  Scenario scenario;
  scenario.seed = seed;
  scenario.topology = draw_topology(random);
  scenario.options = draw_options(random);
  scenario.sources = static_cast<int32_t>(1 + random.below(3));
  scenario.reports = random.chance(0.85);
  const uint64_t events = 1 + random.below(10);
  for (uint64_t i = 0; i < events; ++i) {
    scenario.events.push_back(draw_event(random, scenario));
  }
  std::ranges::stable_sort(scenario.events, {}, &Event::at);
  scenario.inactive_gpus = random.chance(0.7);
  scenario.daemons = random.chance(0.2) ? 2 : 1;
  scenario.settled = kFaultsEnd + kLongest + (scenario.daemons > 1 ? kTakeover : 1);
  return scenario;
}

std::string to_text(const Event& event) {
  const std::string fault(to_string(event.fault));
  char text[160];
  std::snprintf(text, sizeof text, "%9.3f  %-16s who %d, number %llu, amount %.6g, length %.3f",
                event.at, fault.c_str(), event.who, static_cast<unsigned long long>(event.number),
                event.amount, event.length);
  return text;
}

}  // namespace eplbd::simulation
