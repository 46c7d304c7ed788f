// What systemd is told, where it started us: sd_notify(3). Elsewhere these do nothing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "daemon/deployment.h"

namespace eplbd {

void tell_ready();
void tell_reloading();  // until tell_ready()
void tell_stopping();
void tell_alive();                           // feeds the watchdog
void tell_status(const Deployment& served);  // a line that `systemctl status` shows

}  // namespace eplbd
