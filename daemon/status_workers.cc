// Who sends, and what was dropped: see daemon/status_parts.h.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "daemon/status_parts.h"

namespace eplbd {

Json workers_json(const Rebalancer& rebalancer, Now now) {
  const SourceTable& table = rebalancer.sources();
  const PlacementId newest = rebalancer.group().published().id;
  std::vector<const SourceTable::Map::value_type*> sources;
  for (const auto& entry : table.sources()) {
    if (entry.second.counts.heard()) sources.push_back(&entry);
  }
  std::sort(sources.begin(), sources.end(),
            [](const auto* a, const auto* b) { return a->first < b->first; });
  Json list = Json::array();
  for (const auto* entry : sources) {
    const Source& source = entry->second;
    const bool live = table.live(source, now.steady);
    list.push_back({{"source", entry->first},
                    {"live", live},
                    {"behind", live && source.running != newest},
                    {"term", source.running.term},
                    {"version", source.running.version},
                    {"heard_seconds_ago", rounded(to_seconds(now.steady - source.counts.at()))},
                    {"messages", source.messages},
                    {"lost", source.lost}});
  }
  return list;
}

Json group_json(const Deployment& deployment, Now now) {
  const auto& report = deployment.group_report();
  if (!report) return nullptr;
  return {{"source", report->source},
          {"status", to_string(report->status)},
          {"layers_done", report->layers_done < 0 ? Json(nullptr) : Json(report->layers_done)},
          {"error", text_or_null(report->error)},
          {"heard_seconds_ago", rounded(to_seconds(now.steady - report->at))},
          {"term", report->running.term},
          {"version", report->running.version}};
}

std::string waiting_for(const Deployment& deployment, const Endpoints& endpoints, Now now) {
  const auto& report = deployment.group_report();
  const auto& sources = deployment.rebalancer().sources().sources();
  const SourceTable::Map::value_type* last = nullptr;
  for (const auto& entry : sources) {
    if (!entry.second.counts.heard()) continue;
    if (last == nullptr || entry.second.counts.at() > last->second.counts.at()) last = &entry;
  }
  const auto ago = [&](TimePoint then) {
    return fmt::format("{:.0f} s ago", to_seconds(now.steady - then));
  };
  std::string text = fmt::format("no worker sent counts since the start: they connect to {}",
                                 fmt::join(endpoints.counts, " "));
  if (last != nullptr) {
    text = fmt::format("nobody sends counts: the last came from {} {}", last->first,
                       ago(last->second.counts.at()));
  }
  if (report) {
    text +=
        fmt::format("; {} said {} {}", report->source, to_string(report->status), ago(report->at));
  }
  return text;
}

Json rejected_json(const Rejections& rejections) {
  Json list = Json::array();
  for (const RejectedSender& sender : rejections.senders()) {
    list.push_back({{"source", text_or_null(sender.source)},
                    {"peer", text_or_null(sender.peer)},
                    {"reason", to_string(sender.reason)},
                    {"detail", sender.text},
                    {"times", sender.times},
                    {"ts", sender.last.unix_seconds}});
  }
  return list;
}

}  // namespace eplbd
