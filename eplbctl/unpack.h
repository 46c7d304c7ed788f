// What files are packed in: gzip (RFC 1952), and the ZIP archive (APPNOTE.TXT 6.3) that a .npz is.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace eplbd {

// Both throw std::runtime_error, a sentence without the file's name.
std::string gunzip(std::string_view packed);

// The one array of a .npz, as a .npy; of several the one that is called counts, loads,
// logical_count or physical_to_logical_map.
std::string npz_array(std::string_view archive);

}  // namespace eplbd
