// SPDX-License-Identifier: Apache-2.0
#include "core/decision.h"

namespace eplbd {
namespace {

// The enumerator that to_string() calls `name`, of `count` ones.
template <typename Enum>
std::optional<Enum> named(std::string_view name, int count) {
  for (int i = 0; i < count; ++i) {
    if (to_string(static_cast<Enum>(i)) == name) return static_cast<Enum>(i);
  }
  return std::nullopt;
}

}  // namespace

std::string_view to_string(Mode mode) {
  switch (mode) {
    case Mode::observe:
      return "observe";
    case Mode::shadow:
      return "shadow";
    case Mode::active:
      return "active";
  }
  return "";
}

std::optional<Mode> mode_from(std::string_view name) { return named<Mode>(name, 3); }

std::string_view to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::observing:
      return "observing";
    case Verdict::paused:
      return "paused";
    case Verdict::no_counts:
      return "no_counts";
    case Verdict::too_few_tokens:
      return "too_few_tokens";
    case Verdict::topology_mismatch:
      return "topology_mismatch";
    case Verdict::applying:
      return "applying";
    case Verdict::apply_failed:
      return "apply_failed";
    case Verdict::cooling_down:
      return "cooling_down";
    case Verdict::balanced:
      return "balanced";
    case Verdict::rate_limited:
      return "rate_limited";
    case Verdict::no_better:
      return "no_better";
    case Verdict::gain_too_small:
      return "gain_too_small";
    case Verdict::invalid_candidate:
      return "invalid_candidate";
    case Verdict::update:
      return "update";
    case Verdict::would_update:
      return "would_update";
  }
  return "";
}

std::string_view to_string(UpdateReason reason) {
  switch (reason) {
    case UpdateReason::initial:
      return "initial";
    case UpdateReason::threshold:
      return "threshold";
    case UpdateReason::requested:
      return "requested";
    case UpdateReason::imported:
      return "imported";
    case UpdateReason::rollback:
      return "rollback";
    case UpdateReason::recovered:
      return "recovered";
    case UpdateReason::gpu:
      return "gpu";
  }
  return "";
}

std::optional<UpdateReason> update_reason_from(std::string_view name) {
  return named<UpdateReason>(name, kUpdateReasons);
}

}  // namespace eplbd
