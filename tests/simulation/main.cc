// Runs seeds, each a deployment and what befalls it, and tells the first that breaks a rule with
// the fewest events that still break it.
//   simulation --seeds 2000 [--first 0] [--jobs 2]     exit 1 when a seed breaks a rule
//   simulation --seed 17                               one, with everything that befalls it
// SPDX-License-Identifier: Apache-2.0
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/log.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/world.h"

namespace eplbd::simulation {
namespace {

std::optional<Broken> run(const Scenario& scenario) { return World(scenario).run(); }

// Without any event that the rule breaks without.
Scenario minimised(Scenario scenario, const std::string& rule) {
  for (size_t i = scenario.events.size(); i-- > 0;) {
    Scenario fewer = scenario;
    fewer.events.erase(fewer.events.begin() + static_cast<ptrdiff_t>(i));
    const auto broken = run(fewer);
    if (!broken || broken->rule != rule) continue;
    scenario = std::move(fewer);
    i = scenario.events.size();
  }
  return scenario;
}

void tell(const Scenario& scenario, const Broken& broken) {
  const Topology& topology = scenario.topology;
  std::printf("seed %llu at %.3f s: %s: %s\n", static_cast<unsigned long long>(scenario.seed),
              broken.at, broken.rule.c_str(), broken.detail.c_str());
  std::printf("  %d layers, %d experts, %d slots, %d GPUs, %d daemons, %d sources, %s\n",
              topology.layers, topology.logical_experts, topology.slots, topology.gpus,
              scenario.daemons, scenario.sources,
              scenario.reports ? "which report state" : "no state");
  for (const Event& event : scenario.events) std::printf("  %s\n", to_text(event).c_str());
  std::fflush(stdout);
}

bool check(uint64_t seed) {
  const Scenario scenario = scenario_of(seed);
  const auto broken = run(scenario);
  if (!broken) return true;
  const Scenario fewest = minimised(scenario, broken->rule);
  tell(fewest, *run(fewest));
  return false;
}

// How many of every `jobs`-th seed broke a rule; at most ten are told.
int check_share(uint64_t first, uint64_t end, uint64_t jobs) {
  int failed = 0;
  for (uint64_t seed = first; seed < end && failed < 10; seed += jobs) failed += !check(seed);
  return failed;
}

int check_all(uint64_t first, uint64_t seeds, uint64_t jobs) {
  for (uint64_t job = 0; job < jobs; ++job) {
    if (fork() == 0) std::exit(check_share(first + job, first + seeds, jobs));
  }
  int failed = 0;
  for (int status = 0; wait(&status) > 0;) {
    failed += WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    if (WIFSIGNALED(status)) std::printf("ended by signal %d\n", WTERMSIG(status));
  }
  std::printf("%llu seeds, %d broke a rule\n", static_cast<unsigned long long>(seeds), failed);
  return failed > 0 ? 1 : 0;
}

int show(uint64_t seed) {
  const Scenario scenario = scenario_of(seed);
  const auto broken = run(scenario);
  tell(scenario, broken.value_or(Broken{"holds", "", 0}));
  return broken ? 1 : 0;
}

}  // namespace
}  // namespace eplbd::simulation

int main(int argc, char** argv) {
  std::map<std::string, uint64_t, std::less<>> given{
      {"--seeds", 100}, {"--first", 0}, {"--jobs", 1}};
  for (int i = 1; i + 1 < argc; i += 2) given[argv[i]] = std::strtoull(argv[i + 1], nullptr, 10);
  eplbd::set_up_logging({eplbd::LogLevel::error, eplbd::LogFormat::text});
  if (std::freopen("/dev/null", "w", stderr) == nullptr) return 2;  // where it logs
  if (given.contains("--seed")) return eplbd::simulation::show(given["--seed"]);
  return eplbd::simulation::check_all(given["--first"], given["--seeds"], given["--jobs"]);
}
