// SPDX-License-Identifier: Apache-2.0
#include "daemon/rejections.h"

#include <fmt/format.h>

#include <algorithm>

namespace eplbd {
namespace {

constexpr size_t kSenders = 16;

bool earlier(const RejectedSender& a, const RejectedSender& b) {
  return a.last.steady < b.last.steady;
}

}  // namespace

std::string RejectedSender::name() const {
  if (source.empty()) return peer.empty() ? "somebody" : "somebody at " + peer;
  return peer.empty() ? source : fmt::format("{} ({})", source, peer);
}

const RejectedSender& Rejections::add(const Rejection& rejection, std::string_view peer,
                                      const Topology& topology, Now now) {
  auto entry = std::ranges::find_if(senders_, [&](const RejectedSender& sender) {
    return sender.reason == rejection.reason && sender.source == rejection.source &&
           sender.peer == peer;
  });
  if (entry == senders_.end()) {
    if (senders_.size() == kSenders) senders_.erase(std::ranges::min_element(senders_, earlier));
    senders_.push_back(
        {std::string(rejection.source), std::string(peer), rejection.reason, "", 0, now});
    entry = senders_.end() - 1;
  }
  entry->text = explain(rejection, topology);
  entry->last = now;
  ++entry->times;
  return *entry;
}

std::vector<Problem> Rejections::problems(Duration recent, Now now) const {
  std::vector<Problem> problems;
  for (const RejectedSender& sender : senders_) {
    if (sender.times < 2 || now.steady - sender.last.steady >= recent) continue;
    problems.push_back(
        {ProblemKind::messages_rejected,
         fmt::format("{} messages of {} were dropped, the last {:.0f} s ago: {} ({})", sender.times,
                     sender.name(), to_seconds(now.steady - sender.last.steady), sender.text,
                     to_string(sender.reason))});
  }
  return problems;
}

}  // namespace eplbd
