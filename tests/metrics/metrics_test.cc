// SPDX-License-Identifier: Apache-2.0
#include "metrics/metrics.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>

#include "tests/metrics/full_metrics.h"
#include "tests/metrics/scrape.h"
#include "tests/paths.h"

namespace eplbd {
namespace {

Metrics make_metrics() { return Metrics("m-decode", small_topology(), "1.2.3"); }

TEST_CASE("closed label sets are there with zeros from the start") {
  const Scrape scrape(make_metrics().text());
  for (int verdict = 0; verdict < kCount<Verdict>; ++verdict) {
    const std::string name(to_string(static_cast<Verdict>(verdict)));
    CHECK(scrape.value("eplbd_decisions_total", {{"verdict", name}}) == 0);
  }
  for (int reason = 0; reason < kCount<RejectReason>; ++reason) {
    const std::string name(to_string(static_cast<RejectReason>(reason)));
    CHECK(scrape.value("eplbd_counts_rejected_total", {{"reason", name}}) == 0);
  }
  for (int reason = 0; reason < kCount<UpdateReason>; ++reason) {
    const std::string name(to_string(static_cast<UpdateReason>(reason)));
    CHECK(scrape.value("eplbd_updates_total", {{"reason", name}}) == 0);
  }
  CHECK(scrape.series("eplbd_decisions_total") == kCount<Verdict>);
  CHECK(scrape.series("eplbd_counts_rejected_total") == kCount<RejectReason>);
  CHECK(scrape.series("eplbd_updates_total") == kCount<UpdateReason>);
  CHECK(scrape.value("eplbd_mode", {{"mode", "active"}}) == 1);
  CHECK(scrape.value("eplbd_mode", {{"mode", "shadow"}}) == 0);
  CHECK(scrape.value("eplbd_mode", {{"mode", "observe"}}) == 0);
  CHECK(scrape.value("eplbd_leader") == 1);
  CHECK(scrape.value("eplbd_paused") == 0);
  CHECK(scrape.value("eplbd_config_last_reload_successful") == 1);
  CHECK(scrape.value("eplbd_build_info", {{"version", "1.2.3"}}) == 1);
  CHECK(scrape.value("eplbd_decide_seconds_count") == 0);
}

TEST_CASE("every series names the deployment, awkward names included") {
  const std::string name = "we\"ird\\name\nüber";
  const Metrics metrics(name, small_topology(), "1");
  const Scrape scrape(metrics.text());
  CHECK(scrape.samples().size() > 50);
  for (const auto& sample : scrape.samples()) {
    INFO(sample.name);
    CHECK(sample.labels.at("deployment") == name);
  }
}

TEST_CASE("a counts message is counted by what became of it") {
  Metrics metrics = make_metrics();
  IngestResult accepted;
  accepted.tokens = 640;
  accepted.lost = 2;
  metrics.counts(accepted, 1000);
  metrics.counts(accepted, 1000);

  IngestResult duplicate;
  duplicate.duplicate = true;
  metrics.counts(duplicate, 1000);

  IngestResult restarted;
  restarted.restarted = true;
  restarted.inconsistent = true;
  restarted.reset = true;
  metrics.counts(restarted, 10);

  IngestResult conflict;
  conflict.rejected = RejectReason::source_conflict;
  metrics.counts(conflict, 1000);
  metrics.rejected(RejectReason::malformed);
  metrics.rejected(RejectReason::malformed);
  metrics.counts_connection_ended();

  const Scrape scrape(metrics.text());
  CHECK(scrape.value("eplbd_counts_messages_total") == 3);
  CHECK(scrape.value("eplbd_counts_bytes_total") == 2010);
  CHECK(scrape.value("eplbd_counts_tokens_total") == 1280);
  CHECK(scrape.value("eplbd_counts_lost_total") == 4);
  CHECK(scrape.value("eplbd_counts_duplicates_total") == 1);
  CHECK(scrape.value("eplbd_counts_inconsistent_total") == 1);
  CHECK(scrape.value("eplbd_counts_resets_total") == 1);
  CHECK(scrape.value("eplbd_source_restarts_total") == 1);
  CHECK(scrape.value("eplbd_source_conflicts_total") == 1);
  CHECK(scrape.value("eplbd_counts_rejected_total", {{"reason", "source_conflict"}}) == 1);
  CHECK(scrape.value("eplbd_counts_rejected_total", {{"reason", "malformed"}}) == 2);
  CHECK(scrape.value("eplbd_counts_rejected_total", {{"reason", "wrong_shape"}}) == 0);
  CHECK(scrape.value("eplbd_counts_connections_ended_total") == 1);
}

TEST_CASE("a state message is counted with what it brought about") {
  Metrics metrics = make_metrics();
  ObserveResult applied;
  applied.applied = true;
  applied.apply_seconds = 3;
  metrics.state(applied);

  ObserveResult failed;
  failed.failed = true;
  failed.adopted = true;
  failed.lost = 5;
  metrics.state(failed);

  ObserveResult rejected;
  rejected.rejected = RejectReason::wrong_shape;
  metrics.state(rejected);

  ObserveResult timed_out;
  timed_out.failed = true;
  metrics.advanced(timed_out);

  const Scrape scrape(metrics.text());
  CHECK(scrape.value("eplbd_state_messages_total") == 2);
  CHECK(scrape.value("eplbd_apply_failures_total") == 2);
  CHECK(scrape.value("eplbd_placements_adopted_total") == 1);
  CHECK(scrape.value("eplbd_counts_lost_total") == 5);
  CHECK(scrape.value("eplbd_counts_rejected_total", {{"reason", "wrong_shape"}}) == 1);
  CHECK(scrape.value("eplbd_counts_messages_total") == 0);
  CHECK(scrape.value("eplbd_apply_seconds_count") == 1);
  CHECK(scrape.value("eplbd_apply_seconds_sum") == 3);
  CHECK(scrape.value("eplbd_apply_seconds_bucket", {{"le", "2.5"}}) == 0);
  CHECK(scrape.value("eplbd_apply_seconds_bucket", {{"le", "5"}}) == 1);
}

TEST_CASE("decisions and updates") {
  Metrics metrics = make_metrics();
  Decision balanced;
  balanced.verdict = Verdict::balanced;
  balanced.imbalance = 1.01;
  metrics.decided(balanced, 2e-5);
  CHECK_FALSE(Scrape(metrics.text()).has("eplbd_imbalance_predicted"));

  Decision update;
  update.verdict = Verdict::update;
  update.imbalance_after = 1.04;
  metrics.decided(update, 0.004);
  PlacementUpdate published;
  published.reason = UpdateReason::threshold;
  published.moves.resize(17);
  metrics.updated(published, 0.12);
  published.reason = UpdateReason::rollback;
  metrics.updated(published);
  metrics.published_again();
  metrics.state_write_failed();
  metrics.reloaded(true, 1700000000);
  metrics.reloaded(false, 1700000009);

  const Scrape scrape(metrics.text());
  CHECK(scrape.value("eplbd_decisions_total", {{"verdict", "balanced"}}) == 1);
  CHECK(scrape.value("eplbd_decisions_total", {{"verdict", "update"}}) == 1);
  CHECK(scrape.value("eplbd_imbalance_predicted") == 1.04);
  CHECK(scrape.value("eplbd_decide_seconds_count") == 2);
  CHECK(scrape.value("eplbd_updates_total", {{"reason", "threshold"}}) == 1);
  CHECK(scrape.value("eplbd_updates_total", {{"reason", "rollback"}}) == 1);
  CHECK(scrape.value("eplbd_moves_total") == 34);
  CHECK(scrape.value("eplbd_reaction_seconds_count") == 1);
  CHECK(scrape.value("eplbd_publications_repeated_total") == 1);
  CHECK(scrape.value("eplbd_state_write_errors_total") == 1);
  CHECK(scrape.value("eplbd_config_last_reload_successful") == 0);
  CHECK(scrape.value("eplbd_config_last_reload_success_timestamp_seconds") == 1700000000);
  metrics.reloaded(true, 1700000010);
  CHECK(Scrape(metrics.text()).value("eplbd_config_last_reload_successful") == 1);
}

TEST_CASE("moved bytes are counted where it is known what an expert has") {
  CHECK_FALSE(Scrape(make_metrics().text()).has("eplbd_moved_bytes_total"));
  Metrics metrics("m-decode", small_topology(), "1.2.3", 44'040'192);
  CHECK(Scrape(metrics.text()).value("eplbd_moved_bytes_total") == 0);
  PlacementUpdate published;
  published.moves.resize(3);
  metrics.updated(published);
  CHECK(Scrape(metrics.text()).value("eplbd_moved_bytes_total") == 3 * 44'040'192.0);
}

TEST_CASE("gauges say what the snapshot says") {
  Metrics metrics = make_metrics();
  metrics.refresh(full_snapshot());
  const Scrape scrape(metrics.text());
  CHECK(scrape.value("eplbd_mode", {{"mode", "shadow"}}) == 1);
  CHECK(scrape.value("eplbd_mode", {{"mode", "active"}}) == 0);
  CHECK(scrape.value("eplbd_paused") == 1);
  CHECK(scrape.value("eplbd_leader") == 0);
  CHECK(scrape.value("eplbd_workers") == 4);
  CHECK(scrape.value("eplbd_workers_behind") == 1);
  CHECK(scrape.value("eplbd_last_counts_timestamp_seconds") == 1700000100.25);
  CHECK(scrape.value("eplbd_imbalance") == 1.25);
  CHECK(scrape.value("eplbd_balancedness") == 0.8);
  CHECK(scrape.value("eplbd_imbalance_initial") == 1.5);
  CHECK(scrape.value("eplbd_imbalance_measured") == 1.3);
  CHECK(scrape.value("eplbd_imbalance_floor") == 1.02);
  CHECK(scrape.value("eplbd_imbalance_threshold") == 1.1);
  CHECK(scrape.value("eplbd_gain_realised") == 0);
  CHECK(scrape.value("eplbd_imbalance_would_be") == 1.05);
  CHECK(scrape.value("eplbd_updates_left") == 7);
  CHECK(scrape.value("eplbd_moves_left") == 0);
  CHECK(scrape.value("eplbd_next_update_timestamp_seconds") == 1700000300);
  CHECK(scrape.value("eplbd_placement_term") == 1700000000);
  CHECK(scrape.value("eplbd_placement_version") == 7);
  CHECK(scrape.value("eplbd_placement_timestamp_seconds") == 1700000050.5);
  CHECK(scrape.value("eplbd_gpus_down") == 1);
  CHECK(scrape.value("eplbd_window_half_life_seconds") == 30);
  // By the model's own number; a layer without load has no imbalance.
  CHECK(scrape.value("eplbd_layer_imbalance", {{"layer", "3"}}) == 1.2);
  CHECK(scrape.series("eplbd_layer_imbalance") == 1);
  CHECK(scrape.value("eplbd_gpu_load_ratio", {{"gpu", "0"}}) == 1.25);
  CHECK(scrape.value("eplbd_gpu_load_ratio", {{"gpu", "3"}}) == 0);
  CHECK(scrape.series("eplbd_gpu_load_ratio") == 4);
}

TEST_CASE("without tokens there is no imbalance, and it comes and goes") {
  Metrics metrics = make_metrics();
  const std::set<std::string> absent = {"eplbd_imbalance",
                                        "eplbd_balancedness",
                                        "eplbd_imbalance_initial",
                                        "eplbd_imbalance_measured",
                                        "eplbd_imbalance_floor",
                                        "eplbd_gain_realised",
                                        "eplbd_layer_imbalance",
                                        "eplbd_gpu_load_ratio",
                                        "eplbd_imbalance_predicted",
                                        "eplbd_last_counts_timestamp_seconds",
                                        "eplbd_imbalance_would_be",
                                        "eplbd_updates_left",
                                        "eplbd_moves_left",
                                        "eplbd_next_update_timestamp_seconds",
                                        "eplbd_source_messages_total"};
  for (const std::string& name : absent) CHECK_FALSE(Scrape(metrics.text()).has(name));
  metrics.refresh(full_snapshot());
  CHECK(Scrape(metrics.text()).has("eplbd_imbalance"));
  metrics.refresh({});
  for (const std::string& name : absent) CHECK_FALSE(Scrape(metrics.text()).has(name));
}

TEST_CASE("a source has its series while it is there, and counts anew when it was forgotten") {
  Metrics metrics = make_metrics();
  const auto value = [&](const char* name, const char* source) {
    return Scrape(metrics.text()).value(name, {{"source", source}});
  };
  Snapshot now = full_snapshot();
  metrics.refresh(now);
  CHECK(value("eplbd_source_messages_total", "dp0") == 120);
  CHECK(value("eplbd_source_lost_total", "dp0") == 2);
  CHECK(value("eplbd_source_behind", "dp1") == 1);
  CHECK(value("eplbd_source_last_counts_timestamp_seconds", "dp1") == 1700000090.5);
  now.sources = {now.sources[1]};
  now.sources[0].messages += 5;
  metrics.refresh(now);
  CHECK(value("eplbd_source_messages_total", "dp1") == 105);
  CHECK(Scrape(metrics.text()).series("eplbd_source_messages_total") == 1);
  now.sources[0].messages = 1;
  metrics.refresh(now);
  CHECK(value("eplbd_source_messages_total", "dp1") == 1);
}

TEST_CASE("series grow with layers plus GPUs") {
  const auto series = [](int layers, int gpus) {
    Topology topology = small_topology();
    topology.layers = layers;
    topology.layer_ids.clear();
    topology.gpus = gpus;
    Metrics metrics("m", topology, "1");
    Snapshot now = full_snapshot();
    now.layer_imbalance.assign(static_cast<size_t>(layers), 1.5);
    now.gpu_load_ratio.assign(static_cast<size_t>(gpus), 1.0);
    metrics.refresh(now);
    return Scrape(metrics.text()).samples().size();
  };
  const size_t base = series(1, 1);
  CHECK(series(61, 320) == base + 60 + 319);
}

TEST_CASE("process_* are this process's") {
  const Scrape scrape(make_metrics().text());
  const double resident = scrape.value("process_resident_memory_bytes");
  CHECK(resident > 1e6);
  CHECK(scrape.value("process_virtual_memory_bytes") >= resident);
  CHECK(scrape.value("process_cpu_seconds_total") > 0);
  CHECK(scrape.value("process_threads") >= 1);
  CHECK(scrape.value("process_max_fds") >= 64);
  const double started = scrape.value("process_start_time_seconds");
  const double now = static_cast<double>(std::time(nullptr));
  CHECK(started <= now + 1);
  CHECK(started > now - 3600);

  const double before = scrape.value("process_open_fds");
  const int extra = dup(0);
  REQUIRE(extra >= 0);
  CHECK(Scrape(make_metrics().text()).value("process_open_fds") == before + 1);
  close(extra);
}

TEST_CASE("problems are counted by their kind") {
  const Scrape scrape(full_metrics()->text());
  CHECK(scrape.value("eplbd_problems", {{"kind", "worker_clock"}}) == 2);
  CHECK(scrape.value("eplbd_problems", {{"kind", "broken_map"}}) == 1);
  CHECK(scrape.value("eplbd_problems", {{"kind", "empty_gpu"}}) == 0);
}

TEST_CASE("series stand in order, the same in every registry") {
  const Scrape scrape(full_metrics()->text());
  std::vector<std::string> gpus;
  for (const auto& sample : scrape.samples()) {
    if (sample.name == "eplbd_gpu_load_ratio") gpus.push_back(sample.labels.at("gpu"));
  }
  CHECK(gpus == std::vector<std::string>{"0", "1", "2", "3"});
}

TEST_CASE("promtool finds nothing to complain about") {
  if (std::system("command -v promtool >/dev/null 2>&1") != 0) {
    WARN("skipped: promtool is not installed");
    return;
  }
  FILE* promtool = popen("promtool check metrics 2>&1", "w");
  REQUIRE(promtool != nullptr);
  const std::string text = full_metrics()->text();
  REQUIRE(std::fwrite(text.data(), 1, text.size(), promtool) == text.size());
  CHECK(pclose(promtool) == 0);
}

TEST_CASE("docs/metrics.md has every family with its type, and no other") {
  std::map<std::string, std::string> documented;
  std::ifstream file(EPLBD_SOURCE_DIR "/docs/metrics.md");
  REQUIRE(file);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const std::regex row(R"(\n\| `([a-z_]+)` \| (counter|gauge|histogram) \|)");
  for (std::sregex_iterator it(text.begin(), text.end(), row), end; it != end; ++it) {
    documented[(*it)[1]] = (*it)[2];
  }
  CHECK(documented == Scrape(full_metrics()->text()).types());
}

}  // namespace
}  // namespace eplbd
