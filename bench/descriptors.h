// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/resource.h>

namespace eplbd {

// As many as the hard limit allows: a socket each of thousands of peers.
inline void raise_descriptors() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace eplbd
