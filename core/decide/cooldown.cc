// SPDX-License-Identifier: Apache-2.0
#include "core/decide/cooldown.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "core/decide/number.h"

namespace eplbd {
namespace {

// So many updates in a row that gained nothing make it slow down, twice as much for each further.
constexpr int32_t kUnpaidBeforeSlower = 3;
constexpr int32_t kMostDoublings = 6;
constexpr Duration kLeastSlowCooldown = std::chrono::seconds(1);

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

Duration cooldown(const Situation& situation) {
  const Duration usual = situation.options.trigger.cooldown;
  const int32_t excess = situation.gain.unpaid() - kUnpaidBeforeSlower + 1;
  if (excess <= 0) return usual;
  return std::max(usual, kLeastSlowCooldown) * (int64_t{1} << std::min(excess, kMostDoublings));
}

// Since the last placement was applied; not above 0: it is over.
Duration left_since_applied(const Situation& situation, TimePoint now) {
  const auto last = std::max(situation.group.applied_at(), situation.shadowed_at);
  return last ? *last + cooldown(situation) - now : Duration{0};
}

}  // namespace

Duration cooldown_left(const Situation& situation, TimePoint now) {
  const Duration hold = situation.hold_until - now;
  return std::max({left_since_applied(situation, now), hold, Duration{0}});
}

bool cooling_down(const Situation& situation, TimePoint now) {
  return left_since_applied(situation, now) > Duration{0};
}

Rule check_hold(const Situation& situation, TimePoint now) {
  if (now >= situation.hold_until) return std::nullopt;
  return Answer{Verdict::cooling_down, "just started: waiting for workers to say what they run"};
}

Rule check_cooldown(const Situation& situation, TimePoint now) {
  const JumpDetector& jump = situation.jump;
  if (const auto since = jump.gathered_since()) {
    return Answer{Verdict::cooling_down,
                  "the load may have jumped " + number(to_seconds(now - *jump.suspected_at())) +
                      " s ago: waiting for " + list(situation.sources.awaited(*since, now))};
  }
  if (Rule rule = check_hold(situation, now)) return rule;
  const int32_t unpaid = situation.gain.unpaid();
  const bool answers_jump = situation.jumped_at && unpaid == 0;
  if (!cooling_down(situation, now) || answers_jump) return std::nullopt;
  const bool shadow = situation.shadowed_at > situation.group.applied_at();
  std::string detail = (shadow ? "the last one would have been applied less than "
                               : "the last placement was applied less than ") +
                       number(to_seconds(cooldown(situation))) + " s ago";
  if (unpaid >= kUnpaidBeforeSlower) {
    detail += "; the last " + std::to_string(unpaid) + " updates did not pay";
  }
  return Answer{Verdict::cooling_down, std::move(detail)};
}

}  // namespace eplbd
