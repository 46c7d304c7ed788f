// SPDX-License-Identifier: Apache-2.0
#include "daemon/received_log.h"

#include <fmt/format.h>

namespace eplbd {
namespace {

constexpr size_t kKept = 512;

std::string remarks(const CountsReport& report, const IngestResult& result) {
  std::string text;
  if (result.duplicate) text += "; a repeat: dropped";
  if (result.restarted) text += "; the source restarted";
  if (result.lost > 0) text += fmt::format("; {} messages before it were lost", result.lost);
  if (result.reset) {
    text += "; its running counter started over: it counts from here on";
  } else if (result.baseline) {
    text += "; a baseline: it counts from here on";
  }
  if (result.inconsistent)
    text += "; layers disagree about the tokens: is each token counted once?";
  const bool counted = !result.duplicate && !result.baseline;
  if (counted && result.tokens == 0) text += "; nothing in it";
  if (counted && result.tokens > 0 && report.steps == 0) {
    text += "; steps is 0: tokens a step cannot be judged";
  }
  return text;
}

}  // namespace

void ReceivedLog::counts(const CountsReport& report, const IngestResult& result, Now now) {
  add({0, now.unix_seconds, std::string(report.source), "counts", true,
       fmt::format("{} tokens in {:.3g} s, {} steps, {} {}, runs {}{}", result.tokens,
                   to_seconds(result.covered), report.steps, report.global ? "global" : "local",
                   report.cumulative ? "cumulative" : "delta", to_text(report.running),
                   remarks(report, result))});
}

void ReceivedLog::state(const StateReport& report, const ObserveResult& result, Now now) {
  std::string text =
      fmt::format("{}, runs {}, {} layers x {} slots on {} GPUs", to_string(report.status),
                  to_text(report.running), report.layers, report.slots, report.gpus);
  if (report.layers_done >= 0) text += fmt::format(", {} layers done", report.layers_done);
  if (!report.error.empty()) text += fmt::format(", error: {}", report.error);
  if (!result.detail.empty()) text += "; " + result.detail;
  const bool right = !result.topology_mismatch && !result.failed;
  add({0, now.unix_seconds, std::string(report.source), "state", right, std::move(text)});
}

void ReceivedLog::rejected(const RejectedSender& sender, Now now) {
  add({0, now.unix_seconds, sender.source.empty() ? sender.name() : sender.source, "", false,
       fmt::format("dropped ({}): {}", to_string(sender.reason), sender.text)});
}

const std::deque<ReceivedLog::Entry>& ReceivedLog::ask(TimePoint now) {
  if (!asked(now)) entries_.clear();
  asked_ = now;
  return entries_;
}

void ReceivedLog::add(Entry entry) {
  entry.number = ++numbered_;
  entries_.push_back(std::move(entry));
  if (entries_.size() > kKept) entries_.pop_front();
}

}  // namespace eplbd
