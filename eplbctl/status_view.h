// What /api/v1/status says, for people.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace eplbd {

// A dozen lines: is it well, what runs, how even is it, what did it decide last and why.
std::string status_text(const nlohmann::json& status);

// The same and more, in a terminal of this size: imbalance over time, GPU loads, decisions.
std::string watch_text(const nlohmann::json& status, int columns, int rows);

}  // namespace eplbd
