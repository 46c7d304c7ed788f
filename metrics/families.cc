// SPDX-License-Identifier: Apache-2.0
#include "metrics/families.h"

namespace eplbd {

Families::Families(std::string_view deployment, const Topology& topology, std::string_view version,
                   int64_t bytes_of_an_expert)
    : constant{{"deployment", std::string(deployment)}},
      process(constant),
      expert_bytes(static_cast<double>(bytes_of_an_expert)) {
  gauges("eplbd_build_info", "1, labelled with the version that runs.")
      .Add({{"version", std::string(version)}})
      .Set(1);
  Family<Gauge>& modes = gauges("eplbd_mode", "1 for the mode in force, 0 for the others.");
  for (const std::string_view value : names(Mode{})) {
    mode.push_back(&modes.Add({{"mode", std::string(value)}}));
  }
  Family<Gauge>& wrong = gauges("eplbd_problems", "What is wrong now, of each kind how often.");
  for (const std::string_view kind : names(ProblemKind{})) {
    problems.push_back(&wrong.Add({{"kind", std::string(kind)}}));
  }
  Family<Gauge>& layers = gauges("eplbd_layer_imbalance",
                                 "Max GPU load over mean of a layer, by the model's own number.");
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    layer_imbalance.emplace_back(layers,
                                 Labels{{"layer", std::to_string(topology.layer_id(layer))}});
  }
  config_last_reload_successful.Set(1);
  if (expert_bytes > 0) {
    moved_bytes = &counter("eplbd_moved_bytes_total", "Weights that GPUs had to fetch, published.");
  }
}

void GpuFamily::set(const std::vector<double>& now) {
  while (gauges_.size() < now.size()) {
    gauges_.emplace_back(family_, Labels{{"gpu", std::to_string(gauges_.size())}});
  }
  for (size_t gpu = 0; gpu < gauges_.size(); ++gpu) {
    gauges_[gpu].set(gpu < now.size() ? std::optional(now[gpu]) : std::nullopt);
  }
}

SourceFamilies::Series SourceFamilies::add(const std::string& name) {
  const Labels labels{{"source", name}};
  return {&messages_.Add(labels), &lost_.Add(labels), &behind_.Add(labels), &last_.Add(labels)};
}

void SourceFamilies::remove(const Series& series) {
  messages_.Remove(series.messages);
  lost_.Remove(series.lost);
  behind_.Remove(series.behind);
  last_.Remove(series.last);
}

void SourceFamilies::set(const std::vector<SourceSnapshot>& now) {
  std::map<std::string, Series> next;
  for (const SourceSnapshot& source : now) {
    auto known = series_.extract(source.name);
    // One that was forgotten meanwhile counts from zero again.
    if (!known.empty() && known.mapped().messages->Value() > static_cast<double>(source.messages)) {
      remove(known.mapped());
      known = {};
    }
    const Series series = known.empty() ? add(source.name) : known.mapped();
    series.messages->Increment(static_cast<double>(source.messages) - series.messages->Value());
    series.lost->Increment(static_cast<double>(source.lost) - series.lost->Value());
    series.behind->Set(source.behind ? 1 : 0);
    series.last->Set(source.last_unix_seconds);
    next.emplace(source.name, series);
  }
  for (const auto& [name, gone] : series_) remove(gone);
  series_ = std::move(next);
}

}  // namespace eplbd
