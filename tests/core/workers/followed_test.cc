// SPDX-License-Identifier: Apache-2.0
#include "core/workers/followed.h"

#include <catch2/catch.hpp>

using namespace eplbd;

namespace {

constexpr Duration kTimeout = std::chrono::seconds(30);

TimePoint at(int seconds) { return TimePoint(std::chrono::seconds(1000 + seconds)); }

CountsReport report_of(std::string_view source, bool global) {
  CountsReport report;
  report.source = source;
  report.global = global;
  return report;
}

}  // namespace

TEST_CASE("the first engine heard is followed until it is silent, one configured always") {
  Followed followed("", kTimeout);
  CHECK_FALSE(followed.foreign("a", at(0)));
  followed.note_engine("a", at(0));
  CHECK(followed.foreign("b", at(30)));
  CHECK_FALSE(followed.foreign("b", at(31)));
  followed.note_engine("b", at(31));
  CHECK(followed.foreign("a", at(32)));

  followed.set_rules("a", kTimeout);
  CHECK(followed.foreign("b", at(32)));
  CHECK_FALSE(followed.foreign("a", at(32)));
  followed.set_rules("", kTimeout);  // whoever comes next
  CHECK_FALSE(followed.foreign("b", at(32)));
}

TEST_CASE("one source speaks for all, or each for itself") {
  Followed followed("", kTimeout);
  followed.note_scope(report_of("dp0", true), at(0));
  CHECK_FALSE(followed.check_scope(report_of("dp0", true), at(1)));
  CHECK(followed.check_scope(report_of("dp1", true), at(1)) == RejectReason::scope_conflict);
  CHECK(followed.check_scope(report_of("dp1", false), at(1)) == RejectReason::scope_conflict);
  CHECK_FALSE(followed.check_scope(report_of("dp1", false), at(31)));
  followed.note_scope(report_of("dp1", false), at(31));
  CHECK_FALSE(followed.check_scope(report_of("dp2", false), at(32)));
  CHECK(followed.check_scope(report_of("dp0", true), at(32)) == RejectReason::scope_conflict);
}
