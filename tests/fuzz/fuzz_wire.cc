// libFuzzer: what strangers send, through the wire and into a rebalancer.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "core/decide/rebalancer.h"
#include "daemon/formats/wire.h"

namespace {

using namespace eplbd;

const Topology& topology() {
  static const Topology shape{
      .layers = 2, .logical_experts = 4, .slots = 6, .gpus = 2, .layer_ids = {}, .gpu_speeds = {}};
  return shape;
}

void check(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Rebalancer rebalancer(topology(), {}, {});
  static Now now;
  now.steady += std::chrono::milliseconds(10);
  now.unix_seconds += 0.01;
  const auto payload = std::as_bytes(std::span(data, size));
  const WorkerMessage message =
      decode_worker_message(as_bytes(encode_sequence(size)), payload, topology());
  if (const auto* counts = std::get_if<CountsReport>(&message)) {
    check(counts->counts.size() == 8 && !counts->source.empty());
    rebalancer.ingest(*counts, now);
    for (const double load : rebalancer.loads(now)) check(std::isfinite(load) && load >= 0);
  } else if (const auto* state = std::get_if<StateReport>(&message)) {
    check(state->physical_to_logical.size() ==
          static_cast<size_t>(state->layers) * static_cast<size_t>(state->slots));
    rebalancer.observe(*state, now);
    for (const int32_t expert : rebalancer.group().in_force().map()) {
      check(expert >= kNoExpert && expert < topology().logical_experts);
    }
  }
  decode_daemon_message(payload, topology());
  return 0;
}
