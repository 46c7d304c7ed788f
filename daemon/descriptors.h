// How many descriptors the process may have, and who of us gets how many: libzmq ends the process
// when one is missing, and a full table makes a listener spin.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace eplbd {

struct DescriptorShares {  // connections
  size_t http = 0;
  size_t control = 0;
  size_t counts = 0;
  size_t placements = 0;
};

// Raises the soft limit as far as it helps, and shares out what is left after our own. Throws
// std::runtime_error when the hard limit is too low to work with.
DescriptorShares share_descriptors();
DescriptorShares share_descriptors(size_t limit);

}  // namespace eplbd
