// SPDX-License-Identifier: Apache-2.0
#include "core/workers/followed.h"

#include <utility>

namespace eplbd {

Followed::Followed(std::string engine, Duration timeout)
    : wanted_(std::move(engine)), timeout_(timeout) {}

void Followed::set_rules(std::string engine, Duration timeout) {
  if (engine != wanted_) engine_.at.reset();
  wanted_ = std::move(engine);
  timeout_ = timeout;
}

bool Followed::foreign(std::string_view engine, TimePoint now) const {
  if (!wanted_.empty()) return engine != wanted_;
  return live(engine_, now) && engine != engine_.name;
}

std::optional<RejectReason> Followed::check_scope(const CountsReport& report, TimePoint now) const {
  const bool another_speaks = live(global_, now) && report.source != global_.name;
  const bool conflict = report.global ? live(local_, now) || another_speaks : live(global_, now);
  if (conflict) return RejectReason::scope_conflict;
  return std::nullopt;
}

void Followed::note_engine(std::string_view engine, TimePoint now) { note(engine, now, engine_); }

void Followed::note_scope(const CountsReport& report, TimePoint now) {
  if (report.global) {
    note(report.source, now, global_);
  } else {
    local_.at = now;
  }
}

void Followed::note(std::string_view name, TimePoint now, Heard& heard) {
  if (heard.name != name) heard.name = name;
  heard.at = now;
}

}  // namespace eplbd
