// SPDX-License-Identifier: Apache-2.0
#include "daemon/intake.h"

#include <variant>

#include "daemon/deployment.h"
#include "daemon/formats/wire.h"
#include "daemon/net/curve_server.h"

namespace eplbd {
namespace {

void reject(const Rejection& rejection, std::string_view peer, Deployment& deployment) {
  deployment.metrics().rejected(rejection.reason);
  deployment.reject(rejection, peer);
}

void take(const CountsMessage& message, const CurveServer* curve, Deployment& deployment) {
  const Rebalancer& rebalancer = deployment.rebalancer();
  const CarriedMap* const carried = rebalancer.group().carried();
  const WorkerMessage decoded =
      decode_worker_message(message.sequence, message.payload, rebalancer.topology(),
                            carried == nullptr ? 0 : carried->shape.gpus);
  if (const auto* rejection = std::get_if<Rejection>(&decoded)) {
    return reject(*rejection, message.peer, deployment);
  }
  const auto* counts = std::get_if<CountsReport>(&decoded);
  const auto* state = std::get_if<StateReport>(&decoded);
  const std::string_view source = counts != nullptr ? counts->source : state->source;
  if (curve != nullptr && !curve->may_speak(message.user_id, source)) {
    return reject({RejectReason::unauthorized, source}, message.peer, deployment);
  }
  if (counts != nullptr) {
    deployment.take(*counts, message.bytes, message.peer);
  } else {
    deployment.take(*state, message.peer);
  }
}

}  // namespace

CountsHandler intake_of(Deployment& deployment, const CurveServer* curve) {
  CountsHandler handler;
  handler.message = [&deployment, curve](const CountsMessage& message) {
    take(message, curve, deployment);
  };
  handler.rejected = [&deployment](RejectReason reason, std::string_view peer) {
    reject({reason}, peer, deployment);
  };
  handler.connection_ended = [&deployment] { deployment.metrics().counts_connection_ended(); };
  return handler;
}

}  // namespace eplbd
