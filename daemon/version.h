// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace eplbd {

inline constexpr std::string_view kProgramVersion = EPLBD_VERSION;

}  // namespace eplbd
