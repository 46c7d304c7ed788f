// A registry in which every family has something to say.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "metrics/metrics.h"

namespace eplbd {

Topology small_topology();  // 2 layers, numbers 3 and 4; 4 GPUs
Snapshot full_snapshot();
std::unique_ptr<Metrics> full_metrics();

}  // namespace eplbd
