// SPDX-License-Identifier: Apache-2.0
#include "daemon/service_manager.h"

#include <fmt/format.h>
#include <systemd/sd-daemon.h>

#include <chrono>
#include <string>

#include "daemon/clock.h"

namespace eplbd {

void tell_ready() { sd_notify(0, "READY=1"); }

void tell_reloading() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  const auto microseconds = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  sd_notify(0, fmt::format("RELOADING=1\nMONOTONIC_USEC={}", microseconds).c_str());
}

void tell_stopping() { sd_notify(0, "STOPPING=1"); }

void tell_alive() { sd_notify(0, "WATCHDOG=1"); }

void tell_status(const Deployment& served) {
  const Now now = read_clock();
  const Rebalancer& rebalancer = served.rebalancer();
  const auto& samples = served.journal().samples();
  const std::string imbalance =
      samples.empty() ? "no counts" : fmt::format("imbalance {:.3f}", samples.back().imbalance);
  sd_notify(0,
            fmt::format("STATUS={}: placement {}, {}, {} workers{}", to_string(rebalancer.mode()),
                        to_text(rebalancer.group().published().id), imbalance,
                        rebalancer.live_sources(now), rebalancer.paused(now) ? ", paused" : "")
                .c_str());
}

}  // namespace eplbd
