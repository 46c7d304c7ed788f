// Whether what a configuration names is there on this machine: its key files, network interfaces
// and folders of sockets.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/config.h"
#include "config/key_reader.h"

namespace eplbd {

void check_usable(Findings& in, const Config& config);

}  // namespace eplbd
