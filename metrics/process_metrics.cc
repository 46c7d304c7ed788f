// SPDX-License-Identifier: Apache-2.0
#include "metrics/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>

namespace eplbd {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

struct ProcessStat {
  double threads = 0;
  double start_ticks = 0;  // since boot
  double virtual_bytes = 0;
  double resident_pages = 0;
};

// proc(5): the second field is the program's name in brackets and may hold anything, so count from
// the last bracket, behind which the third field stands.
std::optional<ProcessStat> read_stat() {
  std::ifstream file("/proc/self/stat");
  std::string text(std::istreambuf_iterator<char>(file), {});
  const size_t bracket = text.rfind(')');
  if (bracket == std::string::npos) return std::nullopt;
  std::istringstream rest(text.substr(bracket + 1));
  ProcessStat stat;
  std::string field;
  for (int number = 3; number <= 24; ++number) {
    if (!(rest >> field)) return std::nullopt;
    if (number == 20) stat.threads = std::stod(field);
    if (number == 22) stat.start_ticks = std::stod(field);
    if (number == 23) stat.virtual_bytes = std::stod(field);
    if (number == 24) stat.resident_pages = std::stod(field);
  }
  return stat;
}

double seconds_of(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

// Boot time from the clocks, not from /proc/stat: that one is hidden where the service manager sets
// ProcSubset=pid.
double start_time_seconds(const ProcessStat& stat) {
  const double booted = seconds_of(CLOCK_REALTIME) - seconds_of(CLOCK_BOOTTIME);
  return booted + stat.start_ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

std::optional<double> open_fds() {
  std::error_code error;
  std::filesystem::directory_iterator entries("/proc/self/fd", error);
  if (error) return std::nullopt;
  // Less the one that counts them.
  return static_cast<double>(std::distance(begin(entries), end(entries))) - 1;
}

std::optional<double> limit_of(decltype(RLIMIT_NOFILE) resource) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return std::nullopt;
  return static_cast<double>(limit.rlim_cur);
}

}  // namespace

ProcessMetrics::ProcessMetrics(const prometheus::Labels& labels) {
  for (const auto& [name, value] : labels) labels_.push_back({name, value});
}

std::vector<MetricFamily> ProcessMetrics::Collect() const {
  std::vector<MetricFamily> families;
  auto add = [&](const char* name, const char* help, MetricType type, std::optional<double> value) {
    if (!value) return;
    ClientMetric metric;
    metric.label = labels_;
    (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = *value;
    families.push_back({name, help, type, {metric}});
  };
  add("process_cpu_seconds_total", "User and system CPU time spent, in seconds.",
      MetricType::Counter, seconds_of(CLOCK_PROCESS_CPUTIME_ID));
  add("process_open_fds", "Open file descriptors.", MetricType::Gauge, open_fds());
  add("process_max_fds", "Most file descriptors it may open.", MetricType::Gauge,
      limit_of(RLIMIT_NOFILE));
  if (const auto stat = read_stat()) {
    add("process_virtual_memory_bytes", "Virtual memory size, in bytes.", MetricType::Gauge,
        stat->virtual_bytes);
    add("process_resident_memory_bytes", "Resident memory size, in bytes.", MetricType::Gauge,
        stat->resident_pages * static_cast<double>(sysconf(_SC_PAGESIZE)));
    add("process_start_time_seconds", "When the process started, in Unix seconds.",
        MetricType::Gauge, start_time_seconds(*stat));
    add("process_threads", "Threads of the process.", MetricType::Gauge, stat->threads);
  }
  return families;
}

}  // namespace eplbd
