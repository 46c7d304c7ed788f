// SPDX-License-Identifier: Apache-2.0
#include "daemon/descriptors.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

namespace eplbd {
namespace {

constexpr rlim_t kLeast = 64;
constexpr rlim_t kEnough = 65536;
constexpr size_t kOwn = 40;  // listeners, timers, queues, files, with a few to spare
constexpr size_t kMostHttp = 128;

}  // namespace

DescriptorShares share_descriptors(size_t limit) {
  if (limit < kLeast) {
    throw std::runtime_error("may have " + std::to_string(limit) + " open files and needs " +
                             std::to_string(kLeast) +
                             ": raise the limit (ulimit -n, LimitNOFILE=)");
  }
  const size_t rest = limit - kOwn;
  DescriptorShares shares;
  shares.http = shares.control = std::min(kMostHttp, rest / 4);
  shares.counts = shares.placements = (rest - shares.http - shares.control) / 2;
  return shares;
}

DescriptorShares share_descriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    throw std::runtime_error(std::string("limit of open files: ") + std::strerror(errno));
  }
  const rlim_t wanted = std::min(limit.rlim_max, kEnough);
  if (limit.rlim_cur < wanted) {
    const rlimit raised{wanted, limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit.rlim_cur = wanted;
  }
  return share_descriptors(std::min(limit.rlim_cur, kEnough));
}

}  // namespace eplbd
