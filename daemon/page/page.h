// The live page that `/` serves: one HTML document without outside assets, built into the program
// from the files beside this one.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace eplbd {

std::string_view live_page();

}  // namespace eplbd
