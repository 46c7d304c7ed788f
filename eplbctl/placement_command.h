// `eplbctl placement`: shows the placement in force; export, import and diff of it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "daemon/formats/placement_format.h"
#include "eplbctl/daemon_client.h"

namespace eplbd {

struct PlacementOptions {
  DaemonAddress daemon;
  bool json = false;
  bool dry_run = false;  // import
  int32_t layer = -1;    // the model's number; show this one, GPU by GPU
  std::string file;      // export: written; import, diff: read
  std::string other;     // diff: against this file instead of the placement in force
  std::optional<PlacementFormat> format;  // export; nothing: by the file's name
};

int run_placement(const PlacementOptions& options);
int run_placement_export(const PlacementOptions& options);
int run_placement_import(const PlacementOptions& options);
int run_placement_diff(const PlacementOptions& options);

}  // namespace eplbd
