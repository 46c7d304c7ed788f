// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/record.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <vector>

#include "daemon/counts_totals.h"
#include "daemon/formats/npy.h"
#include "eplbctl/stop_signal.h"
#include "eplbctl/trace_writer.h"

namespace eplbd {
namespace {

using Clock = std::chrono::steady_clock;

// Asks in between too, as the daemon forgets totals that nobody asks for.
bool wait_and_ask(Clock::time_point time, const DaemonClient& daemon) {
  constexpr Clock::duration kAskEvery = CountsTotals::kForgotten / 4;
  while (time - Clock::now() > kAskEvery) {
    if (!wait_until(Clock::now() + kAskEvery)) return false;
    try {
      daemon.ask("/v1/counts");
    } catch (const std::runtime_error&) {  // told at the end of the step, if it lasts
    }
  }
  return wait_until(time);
}

struct Totals {
  std::string series;  // another one: they began anew
  std::vector<int64_t> shape;
  std::vector<uint64_t> tokens;
};

Totals read_totals(const DaemonClient& daemon) {
  const HttpAnswer answer = daemon.ask("/v1/counts");
  if (answer.status != 200) {
    throw std::runtime_error("the daemon answers " + std::to_string(answer.status) + " " +
                             answer.body.substr(0, 200));
  }
  const auto bytes = std::as_bytes(std::span(answer.body.data(), answer.body.size()));
  const NpyHeader header = read_npy_header(bytes);
  if (header.type != NpyType::uint64 || header.shape.size() != 2) {
    throw std::runtime_error("the daemon's totals are of another kind than this eplbctl's");
  }
  Totals totals{answer.etag, header.shape, {}};
  totals.tokens.resize(static_cast<size_t>(header.elements()));
  std::memcpy(totals.tokens.data(), bytes.data() + header.data_offset,
              totals.tokens.size() * sizeof(uint64_t));
  return totals;
}

// What came since, as `steps` steps with an even share each.
void append_difference(const Totals& before, const Totals& now, int64_t steps,
                       TraceWriter& writer) {
  const bool anew = before.series != now.series;
  std::vector<uint32_t> counts(now.tokens.size());
  for (int64_t step = 0; step < steps; ++step) {
    for (size_t i = 0; i < counts.size(); ++i) {
      const uint64_t grown = anew ? now.tokens[i] : now.tokens[i] - before.tokens[i];
      const auto n = static_cast<uint64_t>(steps);
      const uint64_t each = grown / n + (static_cast<uint64_t>(step) < grown % n ? 1 : 0);
      counts[i] =
          static_cast<uint32_t>(std::min<uint64_t>(each, std::numeric_limits<uint32_t>::max()));
    }
    writer.append(counts);
  }
}

}  // namespace

int run_record(const RecordOptions& options) {
  const DaemonClient daemon(options.daemon);
  stop_on_signals();
  Totals last = read_totals(daemon);
  const auto keep = static_cast<int64_t>(std::ceil(options.keep_seconds / options.every_seconds));
  TraceWriter writer(options.file, static_cast<int32_t>(last.shape[0]),
                     static_cast<int32_t>(last.shape[1]), keep);
  const Duration every = from_seconds(options.every_seconds);
  const int64_t steps =
      options.for_seconds > 0
          ? std::max<int64_t>(1, std::llround(options.for_seconds / options.every_seconds))
          : std::numeric_limits<int64_t>::max();
  Clock::time_point next = Clock::now();
  int64_t missed = 0;
  for (int64_t step = 0; step < steps; ++step) {
    next += every;
    if (!wait_and_ask(next, daemon)) break;
    try {
      Totals now = read_totals(daemon);
      if (now.shape != last.shape) throw std::logic_error("the deployment has another shape now");
      append_difference(last, now, missed + 1, writer);
      last = std::move(now);
      missed = 0;
    } catch (const std::runtime_error& error) {
      if (missed++ == 0) std::cerr << "eplbctl: record: " << error.what() << "; trying on\n";
    }
  }
  writer.finish();
  std::cerr << options.file << ": " << (keep > 0 ? std::min(keep, writer.steps()) : writer.steps())
            << " steps of " << options.every_seconds << " s\n";
  return writer.steps() > 0 ? 0 : 1;
}

}  // namespace eplbd
