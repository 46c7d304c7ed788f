// Messages that were dropped, by who sent them: what the log, the status, the page and the problems
// say of them. Bounded, whoever sends what.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/decide/problem.h"
#include "core/model/time.h"
#include "core/model/topology.h"
#include "daemon/formats/rejection.h"

namespace eplbd {

// One sender's, all for one reason.
struct RejectedSender {
  std::string source;  // empty: it could not be read
  std::string peer;    // its address; empty: not known
  RejectReason reason;
  std::string text;  // of the newest: what came and what was expected
  uint64_t times = 0;
  Now last;

  std::string name() const;  // "dp3 (10.0.0.7)"
};

class Rejections {
 public:
  // Returns the sender's entry, until the next call.
  const RejectedSender& add(const Rejection& rejection, std::string_view peer,
                            const Topology& topology, Now now);

  const std::vector<RejectedSender>& senders() const { return senders_; }
  // Of who had more than one message dropped, the newest of them less than `recent` ago.
  std::vector<Problem> problems(Duration recent, Now now) const;

 private:
  std::vector<RejectedSender> senders_;
};

}  // namespace eplbd
