// A group that grew or shrank: what it carries over to its new shape, and what is so in that.
// Loads are per logical expert, so all that is known of them holds; what is known of GPUs does not.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/decide/situation.h"
#include "core/model/time.h"
#include "core/model/topology.h"
#include "core/workers/reported_map.h"

namespace eplbd {

std::string to_text(Shape shape);

// Why the group cannot be planned for in this shape, as a sentence; nothing: it can.
std::optional<std::string> refuses_shape(const Situation& situation, Shape shape, TimePoint now);

// What `placement` leaves in another shape: each GPU that stays keeps what it holds, as far as it
// has slots for it, and all else is empty.
Placement carry_over(const Topology& before, const Placement& placement, const Topology& after);

// As the group reports it. Where it does not (yet), what is in force carries over. Requires:
// the shape is not refused.
CarriedMap carried_to(const Situation& situation, Shape shape);

// The state once `carried` is in force: before anything is planned from it.
RebalancerState state_in_shape(const Situation& situation, const CarriedMap& carried);

// The same, with what a search asks of load: to plan in, and to throw away.
std::unique_ptr<const Situation> in_shape(const Situation& situation, const CarriedMap& carried,
                                          Now now);

}  // namespace eplbd
