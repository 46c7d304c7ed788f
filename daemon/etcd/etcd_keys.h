// The keys of one deployment in etcd, PREFIX/DEPLOYMENT/...
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "config/config.h"

namespace eplbd {

struct EtcdKeys {
  std::string leader;     // its name, with its lease: it is there as long as it leads
  std::string term;       // the highest that was ever given out; begins with the leader's
  std::string state;      // what the leader saved
  std::string set_aside;  // a state that could not be used

  EtcdKeys(const HaOptions& options, const std::string& deployment) {
    std::string folder = options.prefix + "/";
    for (const char c : deployment) {  // one level, whatever stands in it
      folder += c == '/' ? "%2F" : c == '%' ? "%25" : std::string(1, c);
    }
    leader = folder + "/leader";
    term = folder + "/leader/term";
    state = folder + "/state";
    set_aside = folder + "/set-aside";
  }
};

}  // namespace eplbd
