// Whom we follow: one engine, and of it either every rank or one source that speaks for all. What
// others send is not load of ours, or load that was counted already.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/model/time.h"
#include "core/workers/worker_report.h"

namespace eplbd {

class Followed {
 public:
  // The engine that is not configured (empty) is the first heard, until it is silent for longer
  // than `timeout`.
  Followed(std::string engine, Duration timeout);
  void set_rules(std::string engine, Duration timeout);

  bool foreign(std::string_view engine, TimePoint now) const;
  // Why counts of this scope do not go with those that came lately, or nothing.
  std::optional<RejectReason> check_scope(const CountsReport& report, TimePoint now) const;

  // What was accepted.
  void note_engine(std::string_view engine, TimePoint now);
  void note_scope(const CountsReport& report, TimePoint now);

 private:
  struct Heard {
    std::optional<TimePoint> at;
    std::string name;
  };
  bool live(const Heard& heard, TimePoint now) const {
    return heard.at && now - *heard.at <= timeout_;
  }
  static void note(std::string_view name, TimePoint now, Heard& heard);

  std::string wanted_;
  Duration timeout_;
  Heard engine_;
  Heard global_;  // the source that speaks for all
  Heard local_;
};

}  // namespace eplbd
