// libFuzzer: a deployment's life as a sequence of reports, decisions and orders, whatever they say.
// Each step takes a few bytes of the input; where they end, the rest is zeros.
// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/decide/rebalancer.h"

namespace {

using namespace eplbd;

constexpr size_t kMostSteps = 300;  // of one input

void check(bool condition) {
  if (!condition) std::abort();
}

class Life {
 public:
  explicit Life(std::span<const uint8_t> input) : input_(input) {}

  void run() {
    for (size_t steps = 0; !input_.empty() && steps < kMostSteps; ++steps) {
      pass_time();
      step();
      check_all();
    }
  }

 private:
  static Topology topology() {
    Topology shape;
    shape.layers = 2;
    shape.logical_experts = 4;
    shape.slots = 6;
    shape.gpus = 2;
    return shape;
  }

  static RebalancerOptions options() {
    RebalancerOptions options;
    options.window.half_life = std::chrono::seconds(5);
    options.trigger.min_tokens_per_gpu_step = 0;
    options.limits.sources = 4;
    return options;
  }

  // ---- What the input says ----
  uint8_t byte() {
    if (input_.empty()) return 0;
    const uint8_t value = input_.front();
    input_ = input_.subspan(1);
    return value;
  }
  uint64_t whole() {  // near 0, or near a power of two
    const uint8_t power = byte();
    const int8_t beside = static_cast<int8_t>(byte());
    const uint64_t base = power < 64 ? uint64_t{1} << power : 0;
    return base + static_cast<uint64_t>(int64_t{beside});
  }
  double real() {
    switch (byte() % 4) {
      case 0:
        return static_cast<double>(static_cast<int8_t>(byte()));
      case 1:
        return now_.unix_seconds + byte();
      case 2:
        return std::bit_cast<double>(whole() << 32);
      default:
        return byte() % 2 == 0 ? std::numeric_limits<double>::infinity() : std::nan("");
    }
  }
  std::string_view source() {
    static constexpr std::string_view kNames[] = {"a", "b", "c", "d", "e", "f", ""};
    return kNames[byte() % 7];
  }
  PlacementId id() {
    const PlacementId published = rebalancer_.group().published().id;
    switch (byte() % 4) {
      case 0:
        return {};
      case 1:
        return published;
      case 2:
        return {published.term + byte(), published.version + byte()};
      default:
        return {whole(), whole()};
    }
  }

  // ---- Steps ----
  void pass_time() {
    const uint8_t passed = byte();
    now_.steady += std::chrono::milliseconds(passed < 200 ? passed : (passed - 199) * 1000);
    now_.unix_seconds += passed == 255 ? real_jump() : 0.001 * passed;
  }
  double real_jump() { return 1000.0 * static_cast<int8_t>(byte()); }

  void step() {
    switch (byte() % 8) {
      case 0:
      case 1:
        return count();
      case 2:
      case 3:
        return report();
      case 4:
        return order();
      default:
        return decide();
    }
  }

  void count() {
    CountsReport report;
    report.source = source();
    report.engine = byte() % 8 == 0 ? "other" : "";
    report.sequence = byte() % 8 == 0 ? whole() : ++sequence_;
    report.epoch = byte() % 8 == 0 ? whole() : 1;
    report.ts = byte() % 8 == 0 ? real() : now_.unix_seconds;
    report.since = byte() % 8 == 0 ? real() : now_.unix_seconds - 1;
    report.steps = whole();
    report.running = id();
    const uint8_t kind = byte();
    report.cumulative = kind % 2 == 1;
    report.global = kind % 16 > 13;
    std::vector<uint32_t> counts(8);
    for (uint32_t& cell : counts) cell = static_cast<uint32_t>(whole());
    const std::vector<uint32_t> tokens(4, static_cast<uint32_t>(whole()));
    report.counts = PackedArray<uint32_t>(std::as_bytes(std::span(counts)));
    if (kind > 128) report.gpu_tokens = PackedArray<uint32_t>(std::as_bytes(std::span(tokens)));
    rebalancer_.ingest(report, now_);
  }

  void report() {
    StateReport report;
    report.source = source();
    report.sequence = byte() % 8 == 0 ? whole() : ++sequence_;
    report.epoch = byte() % 8 == 0 ? whole() : 1;
    report.ts = byte() % 8 == 0 ? real() : now_.unix_seconds;
    report.running = id();
    report.status = static_cast<WorkerStatus>(byte() % kCount<WorkerStatus>);
    report.apply_seconds = byte() % 4 == 0 ? real() : -1;
    report.error = byte() % 2 == 0 ? "" : "it failed";
    report.layers = 2;
    report.logical_experts = 4;
    report.slots = byte() % 8 == 0 ? 8 : 6;
    report.gpus = 2;
    std::vector<int32_t> map = rebalancer_.group().published().placement.map();
    map.resize(static_cast<size_t>(report.layers * report.slots), -1);
    for (uint8_t changes = byte() % 4; changes > 0; --changes) {
      map[byte() % map.size()] = static_cast<int8_t>(byte());
    }
    report.physical_to_logical = PackedArray<int32_t>(std::as_bytes(std::span(map)));
    rebalancer_.observe(report, now_);
  }

  void order() {
    switch (byte() % 6) {
      case 0:
        return rebalancer_.pause(byte() % 2 == 0 ? 0 : now_.unix_seconds + byte());
      case 1:
        return rebalancer_.resume();
      case 2:
        return rebalancer_.fill_again(byte() % 2);
      case 3: {
        const int32_t gpu = byte() % 3;
        rebalancer_.set_gpus_down(gpu == 2 ? std::vector<int32_t>{} : std::vector<int32_t>{gpu},
                                  {});
        return;
      }
      case 4:
        return carry_out(rebalancer_.plan_rollback(std::nullopt, now_));
      default:
        return carry_out(rebalancer_.plan_rebalance(now_));
    }
  }

  void decide() {
    rebalancer_.advance(now_);
    const auto waits = rebalancer_.seconds_to_adopted(now_);
    if (waits) check(*waits >= 0 && *waits <= 3600 + kMostSteps);  // a clock may be slewed by one
    if (waits == 0.0) rebalancer_.tell_adopted(now_);
    const Decision decision = rebalancer_.decide(now_);
    check(std::isfinite(decision.imbalance) && std::isfinite(decision.imbalance_after));
    check(std::isfinite(decision.tokens) && std::isfinite(decision.tokens_per_gpu_step));
    if (decision.verdict == Verdict::update) return carry_out(decision);
    rebalancer_.record(decision);
  }

  // As the daemon does: what is saved is what is published; a save may fail.
  void carry_out(const Decision& decision) {
    if (!decision.update) return;
    const PlacementUpdate& update = *decision.update;
    PlacementRules rules;
    rules.gpus_down = update.gpus_down;
    check(!find_violation(topology(), update.placement, rules));
    check(update.id > named_);
    const RebalancerState saved = rebalancer_.state_after(decision);
    check(saved.placements.published.id == update.id && saved.placements.highest >= update.id);
    if (byte() % 8 == 0 || !rebalancer_.record(decision)) return rebalancer_.give_up(decision);
    check(rebalancer_.state() == saved);
    const auto [known, is_new] = maps_.emplace(update.id, update.placement);
    check(is_new);
    named_ = update.id;
  }

  void check_all() const {
    double sum = 0;
    for (const double load : rebalancer_.loads(now_)) {
      check(std::isfinite(load) && load >= 0);
      sum += load;
    }
    check(std::abs(rebalancer_.tokens(now_) - sum) <= 1e-6 * sum + 1e-6);
    check(std::isfinite(rebalancer_.measured_imbalance(now_)));
    for (const int32_t expert : rebalancer_.group().in_force().map()) {
      check(expert >= kNoExpert && expert < 4);
    }
    check(rebalancer_.sources().sources().size() <= 4);
    check(rebalancer_.group().published().id <= rebalancer_.state().placements.highest);
    for (const Problem& problem : rebalancer_.problems(now_)) check(!problem.text.empty());
  }

  std::span<const uint8_t> input_;
  Now now_{TimePoint(std::chrono::seconds(100)), 1.7e9};
  Rebalancer rebalancer_{topology(), options(), now_};
  uint64_t sequence_ = 0;
  PlacementId named_;
  std::map<PlacementId, Placement> maps_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Life(std::span(data, size)).run();
  return 0;
}
