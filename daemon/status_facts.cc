// What an operator wants to know at a glance, in sentences: the page and eplbctl show the same
// ones.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/decide/resize.h"
#include "core/model/imbalance.h"
#include "daemon/status_parts.h"
#include "daemon/words.h"

namespace eplbd {
namespace {

std::string ago(double then, Now now) { return duration_words(now.unix_seconds - then) + " ago"; }

std::string change(double before, double after) {
  return before > 0 ? fmt::format("{:.3f} -> {:.3f}, ", before, after) : "";
}

std::string cost(const PlacementUpdate& update) {
  return counted(static_cast<int64_t>(update.moves.size()), "move") + " in " +
         counted(static_cast<int64_t>(update.changed_layers.size()), "layer");
}

std::string verdict(const JournalDecision& decision, Now now) {
  return fmt::format("{}{}{} (for {})", to_string(decision.latest.verdict),
                     decision.latest.detail.empty() ? "" : ": ", decision.latest.detail,
                     duration_words(now.unix_seconds - decision.since));
}

// Of the hour's limits, where there are any.
std::string budget_left(const LimitOptions& limits, const Snapshot& snap) {
  std::string text;
  const auto add = [&](std::optional<int64_t> left, int64_t limit, const char* what) {
    if (!left) return;
    text += fmt::format("{}{} of {} {}", text.empty() ? "" : ", ", grouped(*left), grouped(limit),
                        what);
  };
  add(snap.updates_left, limits.updates_per_hour, "updates");
  add(snap.moves_left, limits.moves_per_hour, "moves");
  return text;
}

// Limits, cooldown and pause alone; the verdict says what else there is.
std::string next_update(const Snapshot& snap, Now now) {
  const double wait = snap.next_update_unix_seconds - now.unix_seconds;
  if (wait > 0) {
    return "possible in " + duration_words(wait) + (snap.paused ? ", after the pause" : "");
  }
  return snap.paused ? "none until it is resumed" : "possible now";
}

std::string searched(const Decision& decision, Now now) {
  return fmt::format("{}: {}{} ({})", ago(decision.now.unix_seconds, now),
                     change(decision.imbalance, decision.imbalance_after),
                     counted(decision.moves, "move"), to_string(decision.verdict));
}

// `gain`: that came of it.
std::string last_update(const PlacementUpdate& update, std::optional<double> gain, Now now) {
  std::string text =
      fmt::format("version {}, {}, {}: {}{}", update.id.version, to_string(update.reason),
                  ago(update.unix_seconds, now),
                  change(update.imbalance_before, update.imbalance_after), cost(update));
  if (gain) {
    text += fmt::format("; on the load since, {:.3f} {} than with the one before", std::abs(*gain),
                        *gain < 0 ? "higher" : "lower");
  }
  return text;
}

// Nothing where it serves alone.
std::string who_leads(const Deployment& deployment) {
  const std::string name = deployment.leader().empty() ? "not known" : deployment.leader();
  if (deployment.stands_by()) return name + "; this daemon stands by";
  return deployment.leader().empty() ? "" : name + ", this daemon";
}

std::string would_be(const PlacementUpdate& update, double imbalance, Now now) {
  const std::string made = ago(update.unix_seconds, now) + ": " +
                           change(update.imbalance_before, update.imbalance_after) + cost(update);
  if (imbalance <= 0) return "an update " + made;
  return fmt::format("imbalance {:.3f}, had it made the update of {}", imbalance, made);
}

// Nothing where it is as configured.
std::string resized_words(const Topology& topology, const Topology& configured) {
  if (topology.shape() == configured.shape()) return "";
  return fmt::format("{}, as resized; configured {}", to_text(topology.shape()),
                     to_text(configured.shape()));
}

std::string from_disk_words(const Topology& topology, const GroupState& group) {
  constexpr size_t kLayersNamed = 8;
  const auto lost = from_disk(group);
  std::string text;
  size_t layers = 0;
  int32_t last = -1;
  for (const auto& [layer, expert] : lost) {
    layers += layer != last ? 1 : 0;
    if (layers <= kLayersNamed) {
      text += layer == last ? fmt::format(", {}", expert)
                            : fmt::format("; layer {}: {}", topology.layer_id(layer), expert);
    }
    last = layer;
  }
  if (lost.empty()) return "";
  if (layers > kLayersNamed) text += fmt::format("; and {} more layers", layers - kLayersNamed);
  return counted(static_cast<int64_t>(lost.size()), "expert") + " that no GPU holds" + text;
}

}  // namespace

std::vector<std::pair<int32_t, int32_t>> from_disk(const GroupState& group) {
  std::vector<std::pair<int32_t, int32_t>> lost;
  if (!group.pending()) return lost;
  for (const Move& move : group.published().moves) {
    if (move.source_slot < 0) lost.emplace_back(move.layer, move.expert);
  }
  std::ranges::sort(lost);
  lost.erase(std::unique(lost.begin(), lost.end()), lost.end());
  return lost;
}

Json facts_json(const Deployment& deployment, const Snapshot& snap, Now now) {
  const Rebalancer& rebalancer = deployment.rebalancer();
  const Journal& journal = deployment.journal();
  Json list = Json::array();
  const auto add = [&](const char* name, const std::string& text) {
    if (!text.empty()) list.push_back({{"name", name}, {"text", text}});
  };
  add("leader", who_leads(deployment));
  add("shape", resized_words(rebalancer.topology(), rebalancer.configured()));
  if (!journal.decisions().empty()) add("verdict", verdict(journal.decisions().front(), now));
  if (const auto layer = worst_layer(snap.layer_imbalance)) {
    add("worst layer", fmt::format("layer {} with {:.3f}; acts on a layer above {:.4g}",
                                   rebalancer.topology().layer_id(*layer),
                                   snap.layer_imbalance[*layer], snap.imbalance_threshold));
  }
  if (snap.mode != Mode::observe) {
    add("next update", next_update(snap, now));
    add("left this hour", budget_left(rebalancer.options().limits, snap));
  }
  if (journal.searched()) add("last search", searched(*journal.searched(), now));
  if (snap.mode == Mode::shadow && !journal.would_updates().empty()) {
    add("would be", would_be(journal.would_updates().front(), snap.imbalance_would_be, now));
  }
  if (!journal.updates().empty()) {
    const PlacementUpdate& last = journal.updates().front();
    const bool judged = last.id == rebalancer.group().running();
    add("last update", last_update(last, judged ? snap.gain_realised : std::nullopt, now));
  }
  add("from disk", from_disk_words(rebalancer.topology(), rebalancer.group()));
  return list;
}

}  // namespace eplbd
