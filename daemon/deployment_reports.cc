// What comes in from workers: see daemon/deployment.h.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "core/model/utf8.h"
#include "daemon/clock.h"
#include "daemon/deployment.h"

namespace eplbd {
namespace {

constexpr size_t kErrorBytes = 500;  // of a worker's error, as it is logged and shown

}  // namespace

void Deployment::take(const CountsReport& report, size_t bytes, std::string_view peer) {
  const Now now = read_clock();
  const IngestResult result = rebalancer_.ingest(report, now);
  metrics_.counts(result, bytes);
  if (result.rejected) return reject({*result.rejected, report.source}, peer);
  if (received_.asked(now.steady)) received_.counts(report, result, now);
  totals_.add(result.counts, now.steady);
  newest_counts_ = now.steady;
  newest_counts_unix_ = now.unix_seconds;
}

void Deployment::take(StateReport report, std::string_view peer) {
  const Now now = read_clock();
  const std::string error = printable_line(report.error, kErrorBytes);
  report.error = error;
  const ObserveResult result = rebalancer_.observe(report, now);
  metrics_.state(result);
  if (result.rejected) return reject({*result.rejected, report.source}, peer);
  if (received_.asked(now.steady)) received_.state(report, result, now);
  if (result.duplicate) return;
  group_report_ = {std::string(report.source),
                   report.status,
                   report.layers_done,
                   error,
                   report.running,
                   now.steady};
  note(result);
}

void Deployment::reject(const Rejection& rejection, std::string_view peer) {
  const Now now = read_clock();
  const RejectedSender& sender = rejections_.add(rejection, peer, rebalancer_.topology(), now);
  if (received_.asked(now.steady)) received_.rejected(sender, now);
  LogLimit& limit = reject_log_[static_cast<int>(rejection.reason)];
  if (const auto left_out = limit.admit(now.steady)) {
    log(LogLevel::warning, fmt::format("rejected a message of {}: {}: {}{}", sender.name(),
                                       to_string(rejection.reason), sender.text, *left_out));
  }
}

// What the group's reports, or their absence, changed.
void Deployment::note(const ObserveResult& result) {
  unsaved_ |= result.adopted;
  if (result.detail.empty()) return;
  if (result.adopted) {
    journal_.happened({read_clock().unix_seconds, JournalEventKind::adopted, result.detail});
  }
  const bool bad = result.failed || result.topology_mismatch;
  warn_or_tell(bad, result.detail);
}

void Deployment::warn_or_tell(bool warn, const std::string& what) {
  if (const auto left_out = group_log_.admit(std::chrono::steady_clock::now())) {
    log(warn ? LogLevel::warning : LogLevel::info, what + *left_out);
  }
}

}  // namespace eplbd
