// What holds updates back after one, and what is answered in spite of it.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "core/decide/number.h"
#include "core/decide/rebalancer.h"

namespace eplbd {
namespace {

// So many updates in a row that gained nothing make it slow down, twice as much for each further.
constexpr int32_t kUnpaidBeforeSlower = 3;
constexpr int32_t kMostDoublings = 6;
constexpr Duration kLeastSlowCooldown = std::chrono::seconds(1);

// trigger.min_gain is what an update is worth at the least; so many times that is far more.
constexpr double kFarMore = 10;

// Of those that are waited for, as many are named.
constexpr size_t kNamed = 8;

// a, b and c
std::string list(const std::vector<std::string_view>& names) {
  const size_t named = std::min(names.size(), kNamed);
  std::string text;
  for (size_t i = 0; i < named; ++i) {
    if (i > 0) text += i + 1 < names.size() ? ", " : " and ";
    text += names[i];
  }
  if (named < names.size()) text += " and " + std::to_string(names.size() - named) + " more";
  return text;
}

}  // namespace

Duration Rebalancer::cooldown() const {
  const int32_t excess = gain_.unpaid() - kUnpaidBeforeSlower + 1;
  if (excess <= 0) return options_.trigger.cooldown;
  return std::max(options_.trigger.cooldown, kLeastSlowCooldown) *
         (int64_t{1} << std::min(excess, kMostDoublings));
}

bool Rebalancer::cooling_down(TimePoint now) const {
  const auto last = std::max(group_.applied_at(), shadowed_at_);
  return last && now - *last < cooldown();
}

// While a jump is suspected the window takes nothing in: some sources would speak for all.
void Rebalancer::follow_jump(Now now) {
  if (const auto since = jump_.gathered_since()) {
    if (!sources_.awaited(*since, now.steady).empty()) return;
    std::vector<double> loads(static_cast<size_t>(topology_.layers) * topology_.logical_experts);
    if (const auto ago = jump_.settle(now.steady, loads)) {
      // Who only measures is told all that came, decayed, whatever the load does.
      if (mode() != Mode::observe) window_.jump(loads, *ago, now.steady);
      jumped_at_ = now.steady - *ago;
    }
    if (jump_.gathered_since()) return;
  }
  if (window_.tick(now.steady)) jump_.expect(this->loads(now));
}

// Nothing is decided from what a part of the sources told of a jump. Once all have, the cooldown
// does not hold it back, unless the update before the last did not pay: then the load swings faster
// than it can be followed.
Rebalancer::Rule Rebalancer::check_cooldown(TimePoint now) const {
  if (const auto since = jump_.gathered_since()) {
    return Answer{Verdict::cooling_down,
                  "the load may have jumped " + number(to_seconds(now - *jump_.suspected_at())) +
                      " s ago: waiting for " + list(sources_.awaited(*since, now))};
  }
  if (now < hold_until_) {
    return Answer{Verdict::cooling_down, "just started: waiting for workers to say what they run"};
  }
  if (!cooling_down(now) || (jumped_at_ && gain_.unpaid() == 0)) return std::nullopt;
  const bool shadow = shadowed_at_ > group_.applied_at();
  std::string detail = (shadow ? "the last one would have been applied less than "
                               : "the last placement was applied less than ") +
                       number(to_seconds(cooldown())) + " s ago";
  if (gain_.unpaid() >= kUnpaidBeforeSlower) {
    detail += "; the last " + std::to_string(gain_.unpaid()) + " updates did not pay";
  }
  return Answer{Verdict::cooling_down, std::move(detail)};
}

// Within the cooldown a jump is answered for far more than a small update is worth.
double Rebalancer::least_gain(TimePoint now) const {
  return (cooling_down(now) ? kFarMore : 1) * options_.trigger.min_gain;
}

}  // namespace eplbd
